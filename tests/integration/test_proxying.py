"""Dialling through a proxy: which one is asked, what it is told, and what becomes of what it says."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

from sage_ws import (
    Client,
    DialError,
    DialTimeoutError,
    RefusedError,
    SecureMessage,
    UpgradeRequest,
    connect,
    serve,
)
from sage_ws.aio.dialing import can_heal

PATIENCE = 10.0
ESTABLISHED = b"HTTP/1.0 200 Connection established\r\nProxy-Agent: test\r\n\r\n"
MESSAGE = SecureMessage(payload=b"hello", did="did:sage:test")


async def shout(message: SecureMessage) -> bytes:
    return message.payload.upper()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class FakeProxy:
    """Answers a CONNECT with the bytes it is given, and is a tunnel where they say so."""

    def __init__(self, answer: bytes, *, stays: bool = False) -> None:
        self.answer = answer
        self.port = 0
        self.heads: list[str] = []
        self._stays = stays

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            writer.write(self.answer)
            if self.answer == ESTABLISHED:
                host, _, port = head.split()[1].rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
                await asyncio.gather(relay(reader, far_writer), relay(far_reader, writer))
            elif self._stays:
                await reader.read()
        except OSError:
            pass  # one side of the tunnel went away

    def url(self, scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user}{'@' if user else ''}127.0.0.1:{self.port}"


@asynccontextmanager
async def a_proxy(
    answer: bytes = ESTABLISHED, *, stays: bool = False, context: ssl.SSLContext | None = None
) -> AsyncIterator[FakeProxy]:
    proxy = FakeProxy(answer, stays=stays)
    async with listening(proxy.serve, context) as proxy.port:
        yield proxy


@asynccontextmanager
async def listening(
    serve_one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """The port of a server, whose connections end with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve_one(reader, writer)
        finally:
            writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(until_closed(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class TestTunnel:
    async def test_a_call_goes_through(self) -> None:
        async with (
            a_proxy() as proxy,
            serve(shout) as server,
            connect(f"ws://127.0.0.1:{server.port}/ws", proxy=proxy.url()) as client,
        ):
            assert (await client.send(MESSAGE)).data == b"HELLO"
        target = f"127.0.0.1:{server.port}"
        assert proxy.heads == [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: sage-ws\r\n\r\n"]

    async def test_user_and_password_are_basic_credentials(self) -> None:
        async with (
            a_proxy() as proxy,
            serve(shout) as server,
            connect(f"ws://127.0.0.1:{server.port}/ws", proxy=proxy.url(user="me:p%40ss")),
        ):
            pass
        expected = base64.b64encode(b"me:p@ss").decode()
        assert f"\r\nProxy-Authorization: Basic {expected}\r\n" in proxy.heads[0]

    @pytest.mark.parametrize("over_tls", [False, True])
    async def test_tls_with_the_server_is_inside_of_it(
        self,
        over_tls: bool,
        authority: trustme.CA,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        tmp_path: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trusted = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(trusted))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        async with (
            a_proxy(context=server_context if over_tls else None) as proxy,
            serve(shout, ssl=server_context) as server,
            connect(
                f"wss://127.0.0.1:{server.port}/ws",
                ssl=client_context,
                proxy=proxy.url("https" if over_tls else "http"),
            ) as client,
        ):
            assert (await client.send(MESSAGE)).data == b"HELLO"

    async def test_a_certificate_that_does_not_pass_says_so_as_ever(
        self, server_context: ssl.SSLContext
    ) -> None:
        async with a_proxy() as proxy, serve(shout, ssl=server_context) as server:
            client = Client(f"wss://127.0.0.1:{server.port}/ws", proxy=proxy.url())
            with pytest.raises(
                DialError, match=r"^the certificate of .*, through the proxy http://127"
            ) as got:
                await client.connect()
            assert not can_heal(got.value)
            await client.close()

    async def test_what_the_server_refuses_has_the_servers_status(self) -> None:
        async def nobody(_: UpgradeRequest) -> str | None:
            raise RefusedError(403, "not you")

        async with a_proxy() as proxy, serve(shout, authorize=nobody) as server:
            client = Client(f"ws://127.0.0.1:{server.port}/ws", proxy=proxy.url())
            with pytest.raises(DialError, match=r"^the server answered HTTP 403: 'not you'$") as got:
                await client.connect()
            assert got.value.status == 403
            await client.close()


SAYS: dict[str, tuple[bytes, str, int | None]] = {
    "407": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9\r\n\r\nwho\nareyou",
        r"answered HTTP 407: 'who\\nareyo'$",
        407,
    ),
    "502-until-the-end": (
        b"HTTP/1.0 502 Bad\r\n\r\nno such host",
        r"answered HTTP 502: 'no such host'$",
        502,
    ),
    "403-without-a-body": (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", r"answered HTTP 403$", 403),
    "200-and-more": (ESTABLISHED + b"hello", r"sent bytes before we said anything to the server$", None),
    "nothing": (b"", r"ended the connection without an answer$", None),
    "half-a-head": (b"HTTP/1.1 200", r"ended the connection without an answer$", None),
    "other-protocol": (b"\x05\xff", r"does not speak HTTP$", None),
    "http-2": (b"HTTP/2 200\r\n\r\n", r"does not speak HTTP$", None),
    "endless-line": (b"HTTP/1.1 200 " + b"x" * 70000, r"does not speak HTTP$", None),
}


class TestSocks:
    @pytest.mark.parametrize("secure", [False, True])
    async def test_a_call_goes_through(
        self, secure: bool, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        names: list[bytes] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly((await reader.readexactly(2))[1])  # RFC 1928 §3: methods of the client
            writer.write(b"\x05\x00")  # none needed
            assert await reader.readexactly(4) == b"\x05\x01\x00\x03"  # §4: connect to a name
            names.append(await reader.readexactly((await reader.readexactly(1))[0]))
            port = int.from_bytes(await reader.readexactly(2), "big")
            far_reader, far_writer = await asyncio.open_connection(names[0].decode(), port)
            writer.write(b"\x05\x00\x00\x01" + bytes(6))  # §6: done
            with suppress(OSError):  # one side of the tunnel went away
                await asyncio.gather(relay(reader, far_writer), relay(far_reader, writer))

        async with (
            listening(accepted) as port,
            serve(shout, ssl=server_context if secure else None) as server,
            connect(
                f"{'wss' if secure else 'ws'}://localhost:{server.port}/ws",
                ssl=client_context,
                proxy=f"socks5h://127.0.0.1:{port}",
            ) as client,
        ):
            assert (await client.send(MESSAGE)).data == b"HELLO"
        assert names == [b"localhost"]


class TestRefusals:
    @pytest.mark.parametrize(("answer", "text", "status"), SAYS.values(), ids=SAYS)
    async def test_name_the_proxy_and_what_it_said(
        self, answer: bytes, text: str, status: int | None
    ) -> None:
        async with a_proxy(answer) as proxy:
            client = Client("ws://127.0.0.1:9/ws", proxy=proxy.url(user="me:canary"))
            with pytest.raises(DialError, match=f"^the proxy {re.escape(proxy.url())} {text}") as got:
                await client.connect()
            assert got.value.status == status
            assert "canary" not in str(got.value)
            await client.close()

    @pytest.mark.parametrize("scheme", ["http", "socks5h"])
    async def test_nobody_listens(self, scheme: str) -> None:
        async with a_proxy() as proxy:
            url = proxy.url(scheme, user="me:canary")
        client = Client("ws://127.0.0.1:9/ws", proxy=url)
        shown = rf"^could not reach the proxy {scheme}://127\.0\.0\.1:{proxy.port}: .*(refused|failed)"
        with pytest.raises(DialError, match=shown) as got:
            await client.connect()
        assert "canary" not in str(got.value)
        await client.close()

    async def test_a_body_in_pieces_is_one(self) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in (b"HTTP/1.1 50", b"3 No\r\nContent-Length: 9\r\n\r\n", b"not ", b"today"):
                writer.write(piece)
                await asyncio.sleep(0.01)  # they may arrive as one all the same: nothing here depends on it
            await reader.read()

        async with listening(accepted) as port:
            client = Client("ws://127.0.0.1:9/ws", proxy=f"http://127.0.0.1:{port}")
            with pytest.raises(DialError, match=r"answered HTTP 503: 'not today'$") as got:
                await client.connect()
            assert got.value.status == 503
            await client.close()

    async def test_silence_takes_dial_timeout(self) -> None:
        async with a_proxy(b"", stays=True) as proxy:
            client = Client("ws://127.0.0.1:9/ws", proxy=proxy.url(), dial_timeout=0.1)
            shown = rf"^could not reach 127\.0\.0\.1:9, through the proxy {proxy.url()} within 0\.1 s$"
            with pytest.raises(DialTimeoutError, match=shown):
                await client.connect()
            await client.close()

    async def test_one_that_speaks_no_socks(self) -> None:
        async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with listening(accepted) as port:
            url = f"socks5h://127.0.0.1:{port}"
            client = Client("ws://127.0.0.1:9/ws", proxy=url)
            with pytest.raises(DialError, match=rf"^the proxy {url} did not connect us: "):
                await client.connect()
            await client.close()

    async def test_socks_without_python_socks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "python_socks", None)
        client = Client("ws://127.0.0.1:9/ws", proxy="socks5h://127.0.0.1:9")
        with pytest.raises(DialError, match=r"pip install 'sage-ws\[socks\]'$") as got:
            await client.connect()
        assert not can_heal(got.value)
        await client.close()


class TestEnvironment:
    @pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "ALL_PROXY", "ws_proxy"])
    async def test_is_asked_by_default(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async with a_proxy() as proxy, serve(shout) as server:
            monkeypatch.setenv(variable, proxy.url())
            async with connect(f"ws://127.0.0.1:{server.port}/ws"):
                assert len(proxy.heads) == 1
            async with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None):
                assert len(proxy.heads) == 1

    @pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
    async def test_exempts_hosts(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async with a_proxy() as proxy, serve(shout) as server:
            monkeypatch.setenv(variable, proxy.url())
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            async with connect(f"ws://127.0.0.1:{server.port}/ws"):
                assert proxy.heads == []

    async def test_one_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "me:canary@proxy:3128")
        client = Client("ws://127.0.0.1:9/ws")
        with pytest.raises(DialError, match=r"^the environment names a proxy that is none: a proxy's") as got:
            await client.connect()
        assert "canary" not in str(got.value)
        await client.close()
