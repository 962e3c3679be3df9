"""The rules that need a socket: who closes it, what arrives before it closes, and `echo.py` as suites run it.

RFC 6455 §4, §5.5.2, §7.1; docs/reliability.md on ping floods and protocol violations.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

ECHO = str(Path(__file__).parent / "echo.py")
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MIB = 1024 * 1024
SECONDS = 20
"""For anything to happen that must; nothing takes it when it is right."""

HEAD = (
    b"GET /any/path?case=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Origin: https://elsewhere.example\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def start_server(loop: str) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, ECHO, "server", "--port", "0", "--loop", loop]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith("listening on 127.0.0.1:")
    return process, int(line.rpartition(":")[2])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(SECONDS) == 0
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="module", params=["asyncio", "auto"])
def loop(request: pytest.FixtureRequest) -> str:
    """What `echo.py` runs on; auto is uvloop, where it is installed."""
    return str(request.param)


@pytest.fixture(scope="module")
def port(loop: str) -> Iterator[int]:
    process, number = start_server(loop)
    yield number
    stop(process)


class Raw:
    """A client that is a socket and nothing else."""

    def __init__(self, port: int, head: bytes = HEAD, *, behind: bytes = b"", slices: int = 1 << 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = head + behind
        for start in range(0, len(data), slices):
            self.socket.sendall(data[start : start + slices])
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def answer(self) -> bytes:
        """The head of the answer to the opening handshake."""
        while b"\r\n\r\n" not in self.received:
            part = self.socket.recv(65536)
            assert part
            self.received += part
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head

    def to_the_end(self) -> bytes:
        """Everything up to the end of the stream: a reset is an error."""
        parts = [self.received]
        while part := self.socket.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture
def peer(server: Any) -> Any:
    """A client's frames, with a key of zeros: large ones are made at once."""
    return type(server.peer)("server", bytes(4))


# ── the opening handshake ─────────────────────────────────────────────────────────────
@pytest.mark.parametrize("slices", [1, 7, 1 << 20])
def test_4_2_any_path_and_any_origin_however_it_arrives(port: int, peer: Any, slices: int) -> None:
    with Raw(port, behind=peer.text("early") + peer.close(1000), slices=slices) as raw:
        answer = raw.answer()
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert ACCEPT in answer
        # what the client said before it had its answer is not lost
        assert peer.read(raw.to_the_end()) == [(TEXT, b"early"), (CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405, id="4.2.1-post"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 400, id="4.2.1-http-1.0"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426, id="4.2.1-no-upgrade"),
        pytest.param(HEAD.replace(b"Version: 13", b"Version: 7"), 426, id="4.4-version"),
        pytest.param(HEAD.replace(b"Key: ", b"Key: x"), 400, id="4.2.1-key"),
        pytest.param(b"GET /" + b"a" * 9000, 414, id="4.2.1-9000-bytes-of-path"),
        pytest.param(HEAD[:-2] + b"X: y\r\n" * 200 + b"\r\n", 431, id="4.2.1-200-headers"),
        # read on and thrown away, so that the sender finds the refusal and no reset
        pytest.param(b"GET /" + b"a" * 20 * MIB, 414, id="4.2.1-20-mib-of-path"),
        pytest.param(HEAD[:-2] + b"X: y\r\n" * 3 * MIB, 431, id="4.2.1-18-mib-of-headers"),
        pytest.param(HEAD[:-2] + b"X: " + b"y" * 20 * MIB, 431, id="4.2.1-20-mib-of-a-header"),
    ],
)
def test_a_refusal_arrives_whole(port: int, head: bytes, status: int) -> None:
    with Raw(port, head) as raw:
        answer = raw.answer()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"Connection: close" in answer
        (length,) = [line for line in answer.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        assert len(raw.to_the_end()) == int(length[16:])


# ── messages ──────────────────────────────────────────────────────────────────────────
def test_5_6_text_and_binary_come_back(port: int, peer: Any) -> None:
    sent = [
        (TEXT, b""),
        (BINARY, b""),
        (TEXT, "κόσμε".encode()),
        (BINARY, bytes(range(256))),
        (TEXT, b"x" * 70_000),
    ]
    data = b"".join(peer.frame(opcode, content) for opcode, content in sent)
    data += peer.text("a", fin=False) + peer.ping(b"?") + peer.last(b"b") + peer.close(1001, "done")
    with Raw(port) as raw:
        raw.answer()
        raw.socket.sendall(data)
        assert peer.read(raw.to_the_end()) == [*sent, (PONG, b"?"), (TEXT, b"ab"), (CLOSE, b"\x03\xe9")]


def test_5_2_a_message_of_20_mib_comes_back(port: int, peer: Any) -> None:
    content = bytes(range(256)) * 4096 * 20
    with Raw(port) as raw:
        raw.answer()
        raw.socket.sendall(peer.frame(BINARY, claims=len(content)) + content)
        raw.socket.sendall(peer.close(1000))
        received = raw.to_the_end()
        assert received[:10] == b"\x82\x7f" + len(content).to_bytes(8, "big")
        assert received[10:-4] == content
        assert received[-4:] == b"\x88\x02\x03\xe8"


def test_7_4_1_more_than_64_mib_is_refused(port: int, peer: Any) -> None:
    with Raw(port) as raw:
        raw.answer()
        raw.socket.sendall(peer.frame(BINARY, claims=64 * MIB + 1))
        reason = b"message over 67108864 bytes"
        assert peer.read(raw.to_the_end()) == [(CLOSE, b"\x03\xf1" + reason)]


# ── the end ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("code", [None, 1000, 3000])
def test_7_1_1_the_server_closes_the_socket(port: int, peer: Any, code: int | None) -> None:
    with Raw(port) as raw:
        raw.answer()
        raw.socket.sendall(peer.close(code))
        assert peer.read(raw.to_the_end()) == [(CLOSE, b"" if code is None else code.to_bytes(2, "big"))]


@pytest.mark.parametrize(
    ("broken", "code", "reason"),
    [
        pytest.param(b"\xc1\x80", 1002, b"reserved bits set", id="5.2"),
        pytest.param(b"\x81\x00", 1002, b"unmasked frame from a client", id="5.1"),
        pytest.param(b"\x81\x81\0\0\0\0\xff", 1007, b"invalid UTF-8", id="8.1"),
        pytest.param(b"\x88\x82\0\0\0\0\x03\xed", 1002, b"invalid close code 1005", id="7.4"),
    ],
)
@pytest.mark.parametrize("behind", [0, 4 * MIB], ids=["alone", "with-megabytes-behind"])
def test_7_1_7_the_close_frame_of_a_failure_arrives(
    port: int, peer: Any, broken: bytes, code: int, reason: bytes, behind: int
) -> None:
    # The peer has written on: a socket that is closed over unread bytes resets, and eats the close frame.
    with Raw(port) as raw:
        raw.answer()
        raw.socket.sendall(peer.text("before") + broken + bytes(behind))
        frames = peer.read(raw.to_the_end())
        assert frames[-1] == (CLOSE, code.to_bytes(2, "big") + reason)


def test_5_5_2_a_ping_flood_that_does_not_read_is_cut_with_1008(port: int, peer: Any) -> None:
    with Raw(port, b"") as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        raw.socket.sendall(HEAD)
        flood = peer.ping(b"x" * 125) * 1000
        for _ in range(100):
            raw.socket.sendall(flood)
        raw.answer()
        close = b"\x88\x1b\x03\xf0too many pings unanswered"
        while not raw.received.endswith(close):
            part = raw.socket.recv(MIB)
            assert part
            raw.received += part
    pong = b"\x8a\x7d" + b"x" * 125
    pongs, rest = divmod(len(raw.received) - len(close), len(pong))
    assert rest == 0
    assert raw.received[: -len(close)] == pong * pongs
    assert 64 < pongs < 100_000
    # and nobody else has noticed
    with Raw(port, behind=peer.text("fine") + peer.close(1000)) as raw:
        raw.answer()
        assert peer.read(raw.to_the_end()) == [(TEXT, b"fine"), (CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_7_1_2_a_signal_closes_with_1001(peer: Any, loop: str, number: int) -> None:
    process, port = start_server(loop)
    with Raw(port, behind=peer.text("open")) as raw:
        raw.answer()
        while len(raw.received) < 6:
            raw.received += raw.socket.recv(100)
        process.send_signal(number)
        while len(raw.received) < 6 + 4:
            part = raw.socket.recv(100)
            assert part
            raw.received += part
        raw.socket.sendall(peer.close(1001))
        frames = peer.read(raw.to_the_end())
        assert frames == [(TEXT, b"open"), (CLOSE, b"\x03\xe9going away")]
    assert process.wait(SECONDS) == 0
    assert process.stdout is not None
    process.stdout.close()


# ── echo.py as a client ───────────────────────────────────────────────────────────────
class FuzzingServer:
    """What a fuzzing server says, case by case; it keeps what it was asked and told."""

    def __init__(self, peer: Any, cases: list[bytes]) -> None:
        self.peer = peer
        self.cases = cases
        self.targets: list[str] = []
        self.echoes: list[list[tuple[int, bytes]]] = []
        self.told: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split(" ")[1]
        self.targets.append(target)
        key = head.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        await self._answer(key, target, reader, writer)
        writer.close()
        await writer.wait_closed()

    async def _answer(
        self, key: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()) + b"\r\n\r\n"
        )
        if target == "/getCaseCount":
            writer.write(self.peer.text(str(len(self.cases))) + self.peer.close(1000))
        elif target.startswith("/runCase"):
            writer.write(self.cases[len(self.echoes)])
            self.echoes.append([])
        else:
            writer.write(self.peer.close(1000))
        # up to the client's close frame; it must not close the socket: that is the server's (§7.1.1)
        received = b""
        while CLOSE not in [opcode for opcode, _ in self._frames(received)]:
            part = await reader.read(65536)
            assert part, "the client has closed first"
            received += part
        if target.startswith("/runCase"):
            self.echoes[-1] = self._frames(received)

    def _frames(self, received: bytes) -> list[tuple[int, bytes]]:
        """As far as they are whole."""
        try:
            frames: list[tuple[int, bytes]] = self.peer.read(received)
        except (AssertionError, StopIteration):
            return []
        return frames


async def run_client(url: str, agent: str, loop: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, ECHO, "client", "--url", url, "--agent", agent, "--loop", loop),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    return process.returncode, out.decode(), err.decode()


async def test_a_client_runs_every_case(client: Any, loop: str) -> None:
    peer = client.peer
    big = b"b" * 100_000
    cases = [
        peer.text("κόσμε") + peer.binary(b"\xff\0") + peer.close(1000),
        peer.text("a", fin=False) + peer.ping(b"?") + peer.last(b"b") + peer.binary(big) + peer.close(1001),
        peer.text("first") + peer.text("masked", masked=True),
        peer.close(),
    ]
    fuzzing = FuzzingServer(peer, cases)
    async with await asyncio.start_server(fuzzing.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        code, out, err = await run_client(f"ws://127.0.0.1:{port}", "sage/ws ü&", loop)
    assert (code, out, err) == (0, "ran 4 cases\n", "")
    agent = "sage%2Fws%20%C3%BC%26"
    runs = [f"/runCase?case={number}&agent={agent}" for number in range(1, 5)]
    assert fuzzing.targets == ["/getCaseCount", *runs, f"/updateReports?agent={agent}"]
    assert fuzzing.echoes == [
        [(TEXT, "κόσμε".encode()), (BINARY, b"\xff\0"), (CLOSE, b"\x03\xe8")],
        [(PONG, b"?"), (TEXT, b"ab"), (BINARY, big), (CLOSE, b"\x03\xe9")],
        [(TEXT, b"first"), (CLOSE, b"\x03\xeamasked frame from a server")],
        [(CLOSE, b"")],
    ]


async def test_a_client_says_why_it_cannot(loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, out, err = await run_client(f"ws://127.0.0.1:{port}", "a", loop)
    assert (code, out) == (1, "")
    assert err.startswith(f"echo.py: could not reach 127.0.0.1:{port}: ")
    code, _, err = await run_client("http://127.0.0.1", "a", loop)
    assert code == 1
    assert "ws://" in err
