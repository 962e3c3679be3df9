"""The opening handshake on a server's socket: what is too long, too slow or no handshake, and who notices.

Not GET is 405, a line over 8 KiB 414, over 128 headers or 64 KiB 431, a body, HTTP/1.0 or anything malformed
400, no upgrade 426, wrong version 426 with ours; the text names the likely cause.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from sage_ws import Client, DialError, SecureMessage, connect, serve
from sage_ws.aio import opening

LARGEST_READ = 256 * 1024
"""Bytes that one read of a loop's socket hands over at most: asyncio's; uvloop's are smaller."""


async def echo(one: SecureMessage) -> bytes:
    return one.payload


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", signature=b"canary")


# ── statuses ──────────────────────────────────────────────────────────────────────────
def request(line: str = "GET /ws HTTP/1.1", *extra: str, **changed: str) -> bytes:
    """An opening request with further lines; a keyword changes a field, "" leaves it out."""
    fields = {
        "Host": "agent.example",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Version": "13",
        **changed,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([line, *lines, *extra, "", ""]).encode("latin-1")


def long(size: int) -> str:
    return "x" * size


FIVE = 5  # lines of a request that are headers already
LINE = 8192 - 2  # the CRLF counts
PROXY = b"if a proxy stands between, it must pass the Upgrade and Connection headers on"

# what is sent; the status, a header that must stand in the answer, and what its text says
STATUSES: dict[str, tuple[bytes, int, bytes, bytes]] = {
    "as-it-should-be": (request(), 101, b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b""),
    "post": (
        request("POST /ws HTTP/1.1"),
        405,
        b"Allow: GET",
        b"method POST is not GET: this is a WebSocket endpoint, for ws:// URLs",
    ),
    "connect": (request("CONNECT a:443 HTTP/1.1"), 405, b"Allow: GET", b"method CONNECT is not GET"),
    "http-2-without-tls": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405, b"Allow: GET", b"method PRI"),
    "line-at-8-KiB": (request(f"GET /{long(LINE - 14)} HTTP/1.1"), 101, b"Upgrade: websocket", b""),
    "line-over-8-KiB": (request(f"GET /{long(LINE - 13)} HTTP/1.1"), 414, b"", b"over 8190 bytes"),
    "line-without-end": (f"GET /{long(9000)}".encode(), 414, b"", b"over 8190 bytes"),
    "header-at-8-KiB": (request("GET / HTTP/1.1", f"X: {long(LINE - 3)}"), 101, b"Upgrade: websocket", b""),
    "header-over-8-KiB": (request("GET / HTTP/1.1", f"X: {long(LINE - 2)}"), 431, b"", b"over 8190 bytes"),
    "128-headers": (request("GET / HTTP/1.1", *["X: y"] * (128 - FIVE)), 101, b"Upgrade: websocket", b""),
    "129-headers": (request("GET / HTTP/1.1", *["X: y"] * (129 - FIVE)), 431, b"", b"more than 128 headers"),
    "over-64-KiB": (request("GET / HTTP/1.1", *[f"X: {long(4000)}"] * 17), 431, b"", b"over 65536 bytes"),
    "over-64-KiB-without-end": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 12000, 431, b"", b"over 65536 bytes"),
    "body": (request("GET / HTTP/1.1", "Content-Length: 5") + b"hello", 400, b"", b"malformed head"),
    "chunked-body": (request("GET / HTTP/1.1", "Transfer-Encoding: chunked"), 400, b"", b"malformed head"),
    "http-1.0": (request("GET /ws HTTP/1.0"), 400, b"", b"a proxy may speak an older one"),
    "http-0.9": (b"GET /ws\r\n\r\n", 400, b"", b"malformed request line 'GET /ws'"),
    "no-request": (b"hello\r\n\r\n", 400, b"", b"malformed request line 'hello'"),
    "empty-line-first": (b"\r\n" + request(), 400, b"", b"malformed request line ''"),
    "folded-header": (request("GET / HTTP/1.1", "X: y", " z"), 400, b"", b"malformed head"),
    "no-host": (request(Host=""), 400, b"", b"exactly one Host"),
    "bad-key": (request(Sec_WebSocket_Key="short"), 400, b"", b"Sec-WebSocket-Key"),
    "no-key": (request(Sec_WebSocket_Key=""), 400, b"", b"Sec-WebSocket-Key"),
    "no-upgrade": (request(Upgrade=""), 426, b"Upgrade: websocket", PROXY),
    "other-upgrade": (request(Upgrade="h2c"), 426, b"Upgrade: websocket", PROXY),
    "keep-alive": (request(Connection="keep-alive"), 426, b"Upgrade: websocket", PROXY),
    "version-8": (request(Sec_WebSocket_Version="8"), 426, b"Sec-WebSocket-Version: 13", b"not '8'"),
    "no-version": (request(Sec_WebSocket_Version=""), 426, b"Sec-WebSocket-Version: 13", b"not none"),
}


@pytest.mark.parametrize(("sent", "status", "header", "text"), STATUSES.values(), ids=STATUSES)
async def test_each_fault_has_its_status_and_says_what_it_is(
    raw_client: Any, sent: bytes, status: int, header: bytes, text: bytes
) -> None:
    async with serve(echo, open_timeout=None) as server:
        async with raw_client(server.port, handshake=False) as peer:
            peer.write(sent)
            head, empty, rest = (await peer.reader.readuntil(b"\r\n\r\n")).partition(b"\r\n\r\n")
            assert (empty, rest) == (b"\r\n\r\n", b"")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert header in head.split(b"\r\n") or not header
            if status == 101:
                assert server.stats()["accepted"] == 1
                return
            body = await peer.read_end()
            assert text in body
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            assert int(fields[b"Content-Length"]) == len(body)
            assert fields[b"Connection"] == b"close"
            assert (server.stats()["accepted"], server.stats()["refused"]) == (0, 1)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"it is TLS, and this port is plain ws://"),
        (b"\x16", b"it is TLS"),
        (b"\x00\x00\x00\x08", b"malformed request line '\\x00"),
        (b" GET", b"malformed request line ' GET'"),
        (b"\x81\x85", b"malformed request line"),
    ],
)
async def test_another_protocol_is_refused_at_its_first_byte_and_waits_for_no_timeout(
    raw_client: Any, sent: bytes, text: bytes
) -> None:
    async with serve(echo, open_timeout=None) as server:
        async with raw_client(server.port, handshake=False) as peer:
            peer.write(sent)
            answer = await peer.read_end()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert text in answer


# ── sizes ─────────────────────────────────────────────────────────────────────────────
class Watched(opening.HeadReader):
    """Counts what comes by, and what is kept of it."""

    __slots__ = ()
    given: list[int]
    kept: list[int]

    def receive_data(self, data: bytes) -> bytes | None:
        self.given.append(len(data))
        try:
            return super().receive_data(data)
        finally:
            self.kept.append(len(self._buffer))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """All heads of this test go through it."""
    Watched.given, Watched.kept = [], []
    monkeypatch.setattr(opening, "HeadReader", Watched)
    return Watched


class TestSizes:
    @pytest.mark.parametrize(
        "piece",
        [
            pytest.param(b"X: " + b"y" * 1_000_000 + b"\r\n", id="lines-of-1-MB"),
            pytest.param(b"X: y\r\n" * 1000, id="lines-of-6-bytes"),
            pytest.param(b"y" * 100_000, id="one-line"),
        ],
    )
    async def test_of_twenty_megabytes_no_more_is_looked_at_than_a_head_may_hold(
        self, raw_client: Any, watched: type[Watched], piece: bytes
    ) -> None:
        async with serve(echo, open_timeout=None) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(b"GET / HTTP/1.1\r\n")
                sent = 0
                while sent < 20_000_000:
                    peer.write(piece)
                    sent += len(piece)
                assert (await peer.read_end()).startswith(b"HTTP/1.1 431 ")
            assert server.stats()["refused"] == 1
        assert sum(watched.given) <= opening.MAX_HEAD + LARGEST_READ
        assert max(watched.kept) <= opening.MAX_HEAD + LARGEST_READ
        assert max(watched.kept[:-1], default=0) <= opening.MAX_HEAD, "refused with the read that is too much"

    async def test_a_client_looks_at_no_more_of_an_answer_either(
        self, lying_server: Any, watched: type[Watched]
    ) -> None:
        async def endless(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(b"HTTP/1.1 101 X\r\n")
            while True:
                peer.write(b"X: " + b"y" * 100_000 + b"\r\n")
                await peer.writer.drain()

        async with lying_server(endless, handshake=False) as server:
            with pytest.raises(DialError, match="no opening handshake: the head is over 65536 bytes"):
                await connect(server.url)
        assert sum(watched.given) <= opening.MAX_HEAD + LARGEST_READ

    async def test_a_head_may_be_cut_anywhere(
        self, raw_client: Any, watched: type[Watched], eventually: Any
    ) -> None:
        head = request("GET /ws?x=1 HTTP/1.1")
        async with serve(echo) as server:
            for cut in range(1, len(head)):
                watched.given.clear()
                async with raw_client(server.port, handshake=False) as peer:
                    peer.write(head[:cut])
                    await eventually(lambda: sum(watched.given) == cut)  # noqa: B023  # awaited here
                    peer.write(head[cut:] + peer.frame(0x9, b"early"))
                    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                    assert await peer.read_frame() == (0xA, b"early", True, False)
            assert server.stats()["accepted"] == len(head) - 1


# ── time ──────────────────────────────────────────────────────────────────────────────
class TestSlowOnes:
    async def test_five_hundred_hold_up_nobody_else(self, raw_client: Any, eventually: Any) -> None:
        async with serve(echo, open_timeout=None, max_connections=20) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with AsyncExitStack() as stack, connect(url) as before:
                for _ in range(500):
                    peer = await stack.enter_async_context(raw_client(server.port, handshake=False))
                    peer.write(b"GET /ws HTTP/1.1\r\nHost: ")
                await eventually(lambda: len(server.openings) == 500)
                clients = [Client(url) for _ in range(10)]
                answers = await asyncio.gather(
                    *(one.send(message()) for one in clients), *(before.send(message()) for _ in range(50))
                )
                assert all(one.success for one in answers)
                assert len(server.openings) == 500
                await asyncio.gather(*(one.close() for one in clients))
                await server.close()
                assert server.openings == set()

    async def test_each_is_told_and_dropped_when_its_own_time_is_over(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A byte now and then buys no time.
        async with serve(echo, open_timeout=0.1) as server:
            async with raw_client(server.port, handshake=False) as peer:
                answer = asyncio.create_task(peer.reader.readuntil(b"\r\n\r\n"))
                for byte in request() * 10:
                    if answer.done():
                        break
                    peer.write(bytes([byte]) if byte != 13 else b"x")
                    await asyncio.sleep(0.005)
                assert (await answer).startswith(b"HTTP/1.1 408 ")
            assert server.stats()["refused"] == 1
