"""permessage-deflate with other libraries, in both roles: messages arrive, fewer bytes travel (RFC 7692)."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from sage_ws import Deflate, SecureMessage, connect, serve

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger

pytestmark = pytest.mark.timeout(60, func_only=True)

PYTHON = ("websockets", "aiohttp")
DETAILS: dict[str, Any] = {
    "default": "deflate",
    "takeover": Deflate(server_no_context_takeover=False, client_no_context_takeover=False),
    "narrow": Deflate(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=9,
        client_max_window_bits=9,
        threshold=0,
        memory_level=1,
    ),
}
NOISE = random.Random(7).randbytes(40_000)
PAYLOADS = [
    b"hi",
    b"words that come again " * 2000,
    NOISE,
    b"",
    b"words that come again " * 2000,
    bytes(1 << 20),
]
"""Short, text, noise, text again, and very long."""


@pytest.fixture(params=PYTHON)
def library(request: pytest.FixtureRequest) -> str:
    """The library's name."""
    return str(request.param)


@pytest.fixture
async def peer(
    library: str, request: pytest.FixtureRequest, run: Callable[[Stranger], Awaitable[Program]]
) -> Program:
    """A peer on that library, which has neither dialled nor listened yet."""
    name = "python_stranger" if library in PYTHON else f"{'node' if library == 'ws' else library}_stranger"
    found = request.getfixturevalue(name)
    return await run(found(library) if library in PYTHON else found)


async def upper(message: SecureMessage) -> bytes:
    return message.payload.upper()


@pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
@pytest.mark.parametrize("library", [*PYTHON, "ws"], indirect=True)
async def test_our_client_calls(peer: Program, details: Any) -> None:
    port = (await peer.ask("listen", "listening"))["port"]
    async with connect(f"ws://127.0.0.1:{port}/ws", compression=details) as client:
        await peer.event("opened")
        for payload in filter(None, PAYLOADS):
            message = SecureMessage(payload=payload, did="did:sage:ours")
            call = asyncio.create_task(client.send(message))
            arrived = json.loads((await peer.event("message"))["text"])
            assert base64.b64decode(arrived["payload"]) == payload
            answer = {"success": True, "message_id": message.id, "data": arrived["payload"]}
            await peer.tell("send", text=json.dumps(answer), kind="text")
            assert (await call).data == payload
        stats = client.stats()
        for direction in ("bytes_in", "bytes_out"):
            assert len(NOISE) < stats[direction] < 100_000
        assert client.stats()["late"] == 0


@pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
@pytest.mark.parametrize("library", [*PYTHON, "ws"], indirect=True)
async def test_our_server_answers(peer: Program, details: Any) -> None:
    async with serve(upper, compression=details, keepalive_interval=None) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        for number, payload in enumerate(filter(None, PAYLOADS)):
            encoded = base64.b64encode(payload).decode()
            request = {"id": f"m-{number}", "did": "did:sage:plain", "payload": encoded}
            await peer.tell("send", text=json.dumps(request), kind="text")
            answer = json.loads((await peer.event("message"))["text"])
            assert (answer["success"], answer["message_id"]) == (True, f"m-{number}")
            assert base64.b64decode(answer["data"]) == payload.upper()
        stats = server.stats()
        for direction in ("bytes_in", "bytes_out"):
            assert len(NOISE) < stats[direction] < 100_000


async def test_what_is_off_here_is_not_chosen(peer: Program) -> None:
    async with serve(upper, keepalive_interval=None) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        request = {"id": "m-1", "did": "did:sage:plain", "payload": base64.b64encode(bytes(50_000)).decode()}
        await peer.tell("send", text=json.dumps(request), kind="text")
        assert len(json.loads((await peer.event("message"))["text"])["data"]) > 50_000
        assert min(server.stats()["bytes_in"], server.stats()["bytes_out"]) > 50_000


class TestGorilla:
    """The SAGE peer in Go, told to compress: it takes no context over and knows no window but the largest."""

    @pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
    async def test_its_client_calls(
        self, go_stranger: Stranger, run: Callable[..., Awaitable[Program]], details: Any
    ) -> None:
        async with serve(upper, compression=details, keepalive_interval=None) as server:
            peer = await run(go_stranger, "client", "-compress")
            await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
            for number, payload in enumerate(filter(None, PAYLOADS)):
                encoded = base64.b64encode(payload).decode()
                message = {"id": f"m-{number}", "did": "did:sage:go", "payload": encoded}
                answered = await peer.ask("call", "answered", message=message, timeout=10)
                assert base64.b64decode(answered["response"]["data"]) == payload.upper()
            # noise does not shrink: it came in fragments of which the first alone says that it is compressed
            assert (await peer.ask("frames", "frames"))["continuations"] >= len(NOISE) // 4096
            stats = server.stats()
            for direction in ("bytes_in", "bytes_out"):
                assert len(NOISE) < stats[direction] < 100_000
            assert (stats["invalid"], stats["lost"]) == (0, 0)

    async def test_its_client_makes_many_calls(
        self, go_stranger: Stranger, run: Callable[..., Awaitable[Program]]
    ) -> None:
        async def echo(message: SecureMessage) -> bytes:
            return message.payload

        async with serve(echo, compression=DETAILS["takeover"], keepalive_interval=None) as server:
            peer = await run(go_stranger, "client", "-compress")
            await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
            done = await peer.ask(
                "calls", "done", count=64, in_flight=16, size=65_536, timeout=30, patience=40
            )
            assert done["answered"] == 64, done["failures"]
            assert max(server.stats()["bytes_in"], server.stats()["bytes_out"]) < 64 * 65_536 // 4

    @pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
    async def test_its_server_answers(
        self, go_stranger: Stranger, run: Callable[..., Awaitable[Program]], details: Any
    ) -> None:
        peer = await run(go_stranger, "server", "-compress")
        port = (await peer.event("listening"))["port"]
        async with connect(f"ws://127.0.0.1:{port}/ws", compression=details) as client:
            for payload in filter(None, PAYLOADS):
                response = await client.send(SecureMessage(payload=payload, did="did:sage:ours"))
                assert response.data == payload
            stats = client.stats()
            for direction in ("bytes_in", "bytes_out"):
                assert len(NOISE) < stats[direction] < 100_000
            assert (await peer.ask("frames", "frames"))["continuations"] >= len(NOISE) // 1024
            payloads = [b"hi", PAYLOADS[1]] * 16
            calls = [client.send(SecureMessage(payload=payload, did="did:sage:ours")) for payload in payloads]
            assert [response.data for response in await asyncio.gather(*calls)] == payloads

    async def test_what_is_off_at_one_end_is_off(
        self, go_stranger: Stranger, run: Callable[..., Awaitable[Program]]
    ) -> None:
        peer = await run(go_stranger, "server")
        port = (await peer.event("listening"))["port"]
        async with connect(f"ws://127.0.0.1:{port}/ws", compression="deflate") as client:
            response = await client.send(SecureMessage(payload=bytes(50_000), did="did:sage:ours"))
            assert len(response.data) < min(client.stats()["bytes_in"], client.stats()["bytes_out"])
