"""Groups 12 and 13 over sockets, `echo.py` in both roles; the peer is `websockets`, with all parameters."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.sync.client import connect

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

ECHO = str(Path(__file__).parent / "echo.py")
SECONDS = 20
"""For anything to happen that must; nothing takes it when it is right."""
SIZES = [16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]

# no_context_takeover and max_window_bits, of the server and then of the client
PARAMETERS: dict[str, tuple[bool, bool, int | None, int | None]] = {
    "13.1": (False, False, None, None),
    "13.2": (True, True, None, None),
    "13.3": (False, False, 9, 9),
    "13.4": (False, False, 15, 15),
    "13.5": (True, True, 9, 9),
    "13.6": (True, True, 15, 15),
    "13.7": (True, False, 9, 15),
}


def messages() -> Iterator[str | bytes]:
    """Text and noise of every size, each in one frame and in fragments."""
    source = random.Random(13)
    for size in SIZES:
        yield "".join(source.choices("abcdefgh äß€😀", k=size))
        yield source.randbytes(size)
    yield ""
    yield b""


def whole_or_in_parts() -> Iterator[tuple[str | bytes, str | bytes | list[Any]]]:
    """Each message, and how it is sent."""
    for message in messages():
        yield message, message
        size = max(len(message) // 5, 1)
        parts: list[Any] = [message[start : start + size] for start in range(0, len(message), size)]
        yield message, parts or [message]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where `echo.py` serves."""
    command = [sys.executable, ECHO, "server", "--port", "0", "--loop", "asyncio"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().decode().rpartition(":")[2])
        process.terminate()
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_a_server_echoes(port: int, parameters: tuple[bool, bool, int | None, int | None]) -> None:
    alone, own_alone, bits, own_bits = parameters
    factory = ClientPerMessageDeflateFactory(alone, own_alone, bits, own_bits)
    with connect(
        f"ws://127.0.0.1:{port}/", extensions=[factory], compression=None, max_size=None, proxy=None
    ) as peer:
        [agreed] = peer.protocol.extensions
        assert agreed.name == "permessage-deflate"
        for message, sent in whole_or_in_parts():
            peer.send(sent)
            assert peer.recv(SECONDS) == message


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
async def test_a_client_echoes(parameters: tuple[bool, bool, int | None, int | None]) -> None:
    alone, other_alone, bits, other_bits = parameters
    agreed: list[str] = []
    echoed: list[str | bytes] = []

    async def play(peer: ServerConnection) -> None:
        assert peer.request is not None
        if peer.request.path == "/getCaseCount":
            await peer.send("1")
        elif peer.request.path.startswith("/runCase"):
            agreed.extend(one.name for one in peer.protocol.extensions)
            for _, sent in whole_or_in_parts():
                await peer.send(sent)
                echoed.append(await peer.recv())

    factories: Sequence[Any] = [ServerPerMessageDeflateFactory(alone, other_alone, bits, other_bits)]
    async with serve(play, "127.0.0.1", 0, extensions=factories, compression=None, max_size=None) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        command = (sys.executable, ECHO, "client", "--url", url, "--agent", "a", "--loop", "asyncio")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert (process.returncode, out) == (0, b"ran 1 cases\n")
    assert agreed == ["permessage-deflate"]
    assert echoed == [message for message, _ in whole_or_in_parts()]
