"""The way to a server through a proxy: which one, and a tunnel through it by HTTP CONNECT or SOCKS.

`websockets` reads the environment, `python-socks` (the extra ``socks``) speaks SOCKS, the loop TLS. Every
error names the proxy by scheme, host and port: user and password of its URL stand in none.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

from sage_ws.aio import opening
from sage_ws.aio.link import UNLIMITED
from sage_ws.aio.refused import RefusedAnswer, reason_of
from sage_ws.errors import DialError, peer_text
from sage_ws.options import split_proxy

if TYPE_CHECKING:
    from websockets.uri import WebSocketURI

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_PORTS = {"http": 80, "https": 443}
_SOCKS_PORT = 1080


class Proxy:
    """A proxy to dial through.

    Args:
        url: checked, as `split_proxy` does.

    Attributes:
        credentials: user and password, None without; no text shows them.
    """

    __slots__ = ("credentials", "host", "port", "scheme")

    def __init__(self, url: str) -> None:
        parts = split_proxy(url)
        self.scheme = parts.scheme
        self.host = cast("str", parts.hostname)
        self.port = parts.port or _PORTS.get(parts.scheme, _SOCKS_PORT)
        self.credentials = (
            None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    async def connect(self, uri: WebSocketURI, protocol: asyncio.Protocol, tls: dict[str, Any]) -> None:
        """Connect a protocol to a server, as the loop's ``create_connection`` does without a proxy.

        Args:
            uri: the server's.
            protocol: gets `connection_made` once TCP, and TLS where it is used, stand.
            tls: arguments for the loop that say how TLS with the server is made; none for no TLS.

        Raises:
            DialError: the proxy is out of reach, or refused.
            OSError: what happened with the server behind it; ssl.SSLError among them.
        """
        if self.scheme.startswith("socks"):
            await self._connect_by_socks(uri, protocol, tls)
        else:
            await self._connect_by_http(uri, protocol, tls)

    def _unreachable(self, error: OSError) -> DialError:
        return DialError(f"could not reach the proxy {self}: {reason_of(error)}")

    # ── HTTP ──────────────────────────────────────────────────────────────────────────
    async def _connect_by_http(
        self, uri: WebSocketURI, protocol: asyncio.Protocol, tls: dict[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        tunnel = _Tunnel(loop, self, self._connect_request(uri))
        # Of its own: the caller's context may hold a certificate that is for the server alone.
        context = ssl.create_default_context() if self.scheme == "https" else None
        try:
            await loop.create_connection(lambda: tunnel, self.host, self.port, ssl=context)
        except OSError as error:
            raise self._unreachable(error) from error
        transport = await tunnel.opened_transport()
        try:
            if tls:
                settings = dict(tls)
                begun = await loop.start_tls(transport, tunnel, settings.pop("ssl"), **settings)
                transport = cast("asyncio.Transport", begun)
            if transport.is_closing():
                raise DialError(f"the proxy {self} ended the connection as soon as it was made")
        except BaseException:
            transport.abort()
            raise
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _connect_request(self, uri: WebSocketURI) -> bytes:
        from websockets.headers import build_authorization_basic, build_host

        target = build_host(uri.host, uri.port, uri.secure, always_include_port=True)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: sage-ws"]
        if self.credentials is not None:
            lines.append(f"Proxy-Authorization: {build_authorization_basic(*self.credentials)}")
        return "\r\n".join([*lines, "", ""]).encode()

    # ── SOCKS ─────────────────────────────────────────────────────────────────────────
    async def _connect_by_socks(
        self, uri: WebSocketURI, protocol: asyncio.Protocol, tls: dict[str, Any]
    ) -> None:
        try:
            from python_socks import ProxyConnectionError, ProxyError, ProxyType
            from python_socks.async_.asyncio import Proxy as SocksProxy
        except ImportError as error:
            raise DialError(
                f"the proxy {self} needs python-socks, which is not installed: pip install 'sage-ws[socks]'"
            ) from error
        user, password = self.credentials or (None, None)
        proxy = SocksProxy(
            ProxyType.SOCKS4 if self.scheme.startswith("socks4") else ProxyType.SOCKS5,
            self.host,
            self.port,
            user,
            password,
            rdns=self.scheme in {"socks5h", "socks4a"},
        )
        try:
            socket = await proxy.connect(uri.host, uri.port, timeout=UNLIMITED)
        except ProxyConnectionError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise self._unreachable(cause) from error
        except ProxyError as error:
            raise DialError(f"the proxy {self} did not connect us: {peer_text(str(error))}") from error
        try:
            await asyncio.get_running_loop().create_connection(lambda: protocol, sock=socket, **tls)
        except BaseException:
            socket.close()
            raise


class _Tunnel(asyncio.Protocol):
    """The client's side of an HTTP CONNECT (RFC 9110 §9.3.6).

    Args:
        loop: the running loop.
        proxy: asked for the tunnel, for errors' texts.
        request: the request's bytes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy, request: bytes) -> None:
        self._opened: asyncio.Future[None] = loop.create_future()
        self._proxy = proxy
        self._request = request
        self._reader = opening.HeadReader()
        self._transport = cast("asyncio.Transport", None)
        self._refused: RefusedAnswer | None = None

    async def opened_transport(self) -> asyncio.Transport:
        """The transport that leads to the server, once the proxy has said so.

        Raises:
            DialError: it refused, or does not speak HTTP.
        """
        try:
            await self._opened
        except BaseException:
            self._transport.abort()
            raise
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy is there: ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._opened.done():
            return
        if self._refused is not None:
            self._take_body(self._refused, data)
            return
        start = (self._reader.start + data)[: opening.START]
        try:
            head = self._reader.receive_data(data)
        except opening.Refusal:
            head = b""
        if head is None:
            if not b"HTTP/".startswith(start):
                self._fail("does not speak HTTP")
        elif (matched := _STATUS_LINE.match(head)) is not None:
            self._take_head(int(matched[1]), head)
        else:
            self._fail("does not speak HTTP")

    def _take_head(self, status: int, head: bytes) -> None:
        if not 200 <= status < 300:
            secrets = [*opening.secret_words(self._request), *(self._proxy.credentials or ())]
            self._refused = RefusedAnswer(status, head, secrets)
            self._take_body(self._refused, self._reader.rest)
        elif self._reader.rest:
            self._fail("sent bytes before we said anything to the server")
        else:
            self._opened.set_result(None)

    def _take_body(self, refused: RefusedAnswer, data: bytes) -> None:
        if refused.receive_data(data):
            self._raise_refused(refused)

    def _raise_refused(self, refused: RefusedAnswer) -> None:
        self._fail(str(refused), refused.status)

    def _fail(self, text: str, status: int | None = None) -> None:
        self._opened.set_exception(DialError(f"the proxy {self._proxy} {text}", status=status))

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy let go of us."""
        if self._opened.done():
            return
        if self._refused is not None:
            self._raise_refused(self._refused)
        else:
            self._fail("ended the connection without an answer")


def proxy_for(url: str, option: str | Literal[True] | None) -> Proxy | None:
    """The proxy that a dial goes through.

    Args:
        url: the server's.
        option: ``proxy=`` of the client: True asks the environment.

    Raises:
        DialError: the environment names one that is none.
    """
    if option is None:
        return None
    found = _from_environment(url) if option is True else option
    try:
        return Proxy(found) if found else None
    except ValueError as error:
        raise DialError(f"the environment names a proxy that is none: {error}") from None


def _from_environment(url: str) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    named = getproxies()
    if not named:  # nearly always: what follows asks again, several times
        return None

    from websockets.uri import parse_uri

    try:
        from websockets.proxy import get_proxy
    except ImportError:  # websockets 15 has it there
        from websockets.uri import get_proxy  # type: ignore[attr-defined,no-redef]

    uri = parse_uri(url)
    found: str | None = get_proxy(uri)
    if found is None and not proxy_bypass(f"{uri.host}:{uri.port}"):
        found = named.get("all")
    return found
