"""Raw peers: sockets that speak frames written by hand, so that they can be slow, silent, or lie.

Nothing of sage_ws is used here: what these say is RFC 6455 and docs/reference/wire.md, read a second time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import pytest

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
PATIENCE = 10.0
"""Seconds after which a wait of a test has failed."""
SECRET = "canary"
"""What no program may write into its log: see tests/conftest.py."""


class Frame(NamedTuple):
    """A frame as it stood on the wire, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = False


class Peer:
    """One end of a connection; as a client it masks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.client = client
        self.head = b""

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool | None = None
    ) -> bytes:
        """A frame's bytes; ``masked`` is as the role has it, unless told."""
        masked = self.client if masked is None else masked
        length = len(payload)
        head = bytes([fin << 7 | opcode])
        if length < 126:
            head += bytes([masked << 7 | length])
        elif length < 1 << 16:
            head += bytes([masked << 7 | 126]) + length.to_bytes(2, "big")
        else:
            head += bytes([masked << 7 | 127]) + length.to_bytes(8, "big")
        if not masked:
            return head + payload
        key = os.urandom(4)
        return head + key + mask(payload, key)

    def send(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool | None = None
    ) -> None:
        self.write(self.frame(opcode, payload, fin=fin, masked=masked))

    def send_json(self, value: Any) -> None:
        self.send(TEXT, json.dumps(value).encode())

    def ask(self, message_id: str, payload: bytes = b"x", did: str = "did:sage:raw", **fields: Any) -> None:
        """Send a request, as a Go client writes it."""
        encoded = base64.b64encode(payload).decode()
        self.send_json({"id": message_id, "payload": encoded, "did": did, "signature": "Y2FuYXJ5", **fields})

    def answer(self, message_id: str, data: bytes = b"", **fields: Any) -> None:
        """Send an answer, as a Go server writes it."""
        value = {"success": True, "message_id": message_id, **fields}
        if data:
            value["data"] = base64.b64encode(data).decode()
        self.send_json(value)

    def close_frame(self, code: int | None = 1000, reason: str = "") -> None:
        self.send(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())

    async def read_exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)

    async def read_frame(self) -> Frame:
        """The next frame; IncompleteReadError where the stream ends instead."""
        first, second = await self.read_exactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self.read_exactly(2 if length == 126 else 8), "big")
        key = await self.read_exactly(4) if second & 0x80 else None
        payload = await self.read_exactly(length)
        if key is not None:
            payload = mask(payload, key)
        return Frame(first & 0x0F, payload, bool(first & 0x80), key is not None)

    async def read_json(self) -> dict[str, Any]:
        """The next frame, which is a whole message."""
        frame = await self.read_frame()
        assert (frame.opcode, frame.fin) == (TEXT, True), frame
        value: dict[str, Any] = json.loads(frame.payload)
        return value

    async def read_close(self) -> tuple[int | None, str]:
        """Code and reason of the next frame, which is a close frame."""
        frame = await self.read_frame()
        assert frame.opcode == CLOSE, frame
        if not frame.payload:
            return None, ""
        return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()

    async def read_end(self) -> bytes:
        """All that still comes, until the other side has ended: b"" where it says nothing more."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    async def until_closed(self) -> tuple[int | None, str]:
        """Take whatever comes until a close frame does; reply to it. Its code and reason."""
        while (frame := await self.read_frame()).opcode != CLOSE:
            pass
        self.send(CLOSE, frame.payload[:2])
        code = int.from_bytes(frame.payload[:2], "big") if frame.payload else None
        return code, frame.payload[2:].decode()

    async def open_as_server(self) -> None:
        """Answer the opening handshake."""
        async with asyncio.timeout(PATIENCE):
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        self.write(accepting(self.head))

    async def open_as_client(self, path: str, headers: dict[str, str]) -> None:
        """Ask for the opening handshake, and expect the 101."""
        self.write(asking(path, headers))
        async with asyncio.timeout(PATIENCE):
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head

    def abort(self) -> None:
        self.writer.transport.abort()


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (RFC 6455 §5.3)."""
    length = len(payload)
    repeated = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")


def accepting(head: bytes) -> bytes:
    """The 101 that answers a request's head (RFC 6455 §4.2.2)."""
    (key,) = (line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def asking(path: str = "/ws", headers: dict[str, str] | None = None) -> bytes:
    """An opening request; a header given as "" is left out."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class LyingServer:
    """A server whose every connection is played by a script of the test's."""

    def __init__(self, script: Callable[[Peer], Awaitable[None]], *, handshake: bool) -> None:
        self._script = script
        self._handshake = handshake
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self.port = 0
        self.failures: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        task = asyncio.get_running_loop().create_task(self._play(Peer(reader, writer, client=False)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, peer: Peer) -> None:
        try:
            if self._handshake:
                await peer.open_as_server()
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away in the middle of the script
        except Exception as error:  # raised by the fixture
            self.failures.append(error)
        finally:
            peer.writer.close()

    async def stop(self) -> None:
        """Refuse from now on, and drop whom it has."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)


@pytest.fixture
def lying_server() -> Callable[..., AbstractAsyncContextManager[LyingServer]]:
    """``async with lying_server(script) as server``: a script plays each connection.

    With ``handshake=False`` it plays it from its first byte on.
    """

    @asynccontextmanager
    async def start(
        script: Callable[[Peer], Awaitable[None]],
        *,
        handshake: bool = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[LyingServer]:
        server = LyingServer(script, handshake=handshake)
        await server.start(port, tls)
        try:
            yield server
        finally:
            await server.stop()
        for failure in server.failures:
            raise failure

    return start


@pytest.fixture
def raw_client() -> Callable[..., AbstractAsyncContextManager[Peer]]:
    """``async with raw_client(port) as peer``: a connection to a server, opened; cut at the end.

    With ``handshake=False`` it is TCP alone.
    """

    @asynccontextmanager
    async def dial(
        port: int = 0,
        path: str = "/ws",
        *,
        handshake: bool = True,
        headers: dict[str, str] | None = None,
        unix: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Peer]:
        if unix is not None:
            reader, writer = await asyncio.open_unix_connection(unix)
        else:
            name = "localhost" if tls else None
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        peer = Peer(reader, writer, client=True)
        try:
            if handshake:
                await peer.open_as_client(path, headers or {})
            yield peer
        finally:
            peer.abort()

    return dial


@pytest.fixture
def http_status(
    raw_client: Callable[..., AbstractAsyncContextManager[Peer]],
) -> Callable[..., Awaitable[tuple[int, bytes]]]:
    """``status, answer = await http_status(port, request)``: all that a server says to these bytes."""

    async def ask(port: int, request: bytes, **options: Any) -> tuple[int, bytes]:
        async with raw_client(port, handshake=False, **options) as peer:
            peer.write(request)
            answer = await peer.read_end()
        assert answer.startswith(b"HTTP/1.1 "), answer
        return int(answer.split(b" ", 2)[1]), answer

    return ask


@pytest.fixture
def opening_request() -> Callable[..., bytes]:
    """``opening_request(path, headers)``: the bytes of an upgrade request."""
    return asking


@pytest.fixture
def opening_answer() -> Callable[[bytes], bytes]:
    """``opening_answer(head)``: the 101 to a request's head."""
    return accepting


@pytest.fixture
async def outcome_of() -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """``code, out, err = await outcome_of(source)``: a process that ends by itself, on the loop of this one.

    There, ``factory`` is the module whose ``new_event_loop`` makes one.
    """
    name = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    head = (
        f"import asyncio, {name} as factory, gc, os, signal, sys, threading\n"
        "from sage_ws import *\n"
        "def message(payload=b'x'):\n"
        "    return SecureMessage(payload=payload, did='did:sage:test')\n"
    )

    async def run(source: str, *flags: str, patience: float = 40.0) -> tuple[int, str, str]:
        command = [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            *flags,
            "-c",
            head + textwrap.dedent(source),
        ]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=patience
        )
        return done.returncode, done.stdout, done.stderr

    return run


class Program:
    """A process that runs some Python, and what it and its children print."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.port = 0
        self._lines: list[str] = []

    async def line(self, containing: str) -> str:
        """The next line with this text; lines that came before it wait for their turn."""
        assert self.process.stdout is not None
        async with asyncio.timeout(2 * PATIENCE):
            while True:
                for line in self._lines:
                    if containing in line:
                        self._lines.remove(line)
                        return line
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended without saying {containing!r}, but {self._lines}"
                assert SECRET not in line, f"a secret in a log: {line}"
                self._lines.append(line.strip())

    async def rest(self) -> list[str]:
        """What nobody has asked for, when the last process that could print something has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(2 * PATIENCE):
            rest = (await self.process.stdout.read()).decode()
        assert SECRET not in rest, f"a secret in a log: {rest}"
        return [*self._lines, *rest.splitlines()]

    async def serving(self) -> None:
        """Wait until it says where it serves."""
        self.port = int((await self.line("serving on")).rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), 2 * PATIENCE)


@pytest.fixture
async def start_program() -> AsyncIterator[Callable[..., Awaitable[Program]]]:
    """``program = await start_program(code)``: Python in a process group of its own, killed at the end.

    Further arguments are set in its environment.
    """
    started: list[Program] = []

    async def start(code: str, **environment: str) -> Program:
        program = Program(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        )
        started.append(program)
        return program

    yield start
    for program in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        await program.rest()
        await program.process.wait()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and which no other process is given meanwhile; a server can have it."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


@pytest.fixture
def growing() -> Callable[[float], Iterator[float]]:
    """``for seconds in growing(0.05): …``: times to run out or to keep, until the test breaks off.

    On a machine that is busy elsewhere one may be over before what belongs into it has happened: then there
    is another try, with a longer one.
    """

    def times(first: float) -> Iterator[float]:
        for turn in range(5):
            yield first * 4**turn
        pytest.fail("no time was long enough")

    return times


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """``await eventually(lambda: condition)``: waits until it holds, and fails if it never does."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # of anything, not only of what has an event
                await asyncio.sleep(0.001)

    return wait
