"""From a URL to an open `Link`: DNS, proxy, TCP, TLS, the opening handshake, and one door for their errors.

Whatever goes wrong on the way, an OSError, an ssl.SSLError, an HTTP answer, leaves this file as a
DialError that says where it happened and keeps its cause.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from sage_ws.aio import opening, proxying
from sage_ws.aio.link import UNLIMITED, Link
from sage_ws.aio.refused import RefusedAnswer, reason_of
from sage_ws.errors import DialError, DialTimeoutError
from sage_ws.options import ClientSettings, Headers, HeadersFactory

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.extensions import ClientExtensionFactory
    from websockets.uri import WebSocketURI

L = TypeVar("L", bound=Link)
MakeLink: TypeAlias = Callable[[opening.Agreement, bytes], L]
"""Makes the link of a connection by what its opening handshake came to, and by its request."""

_NO_TLS = "what answers there speaks no TLS; a plain ws:// server?"
_NO_VERSION = "no TLS version that both allow"
_TLS_HINTS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_VERSION,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a client certificate; load one into ssl=",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no cipher that both allow, or the server asks for a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know who issued our certificate",
}
"""What OpenSSL's reasons mean to somebody who dials."""

_OF_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA")
"""Words of the alerts by which a server refuses our certificate, or that we have none."""

CANNOT_HEAL = frozenset({400, 401, 403, 404, 405, 407, 410, 426, 451})
"""Statuses that a later dial would get again: they are raised at once, always (docs/how-to/errors.md)."""


class Address:
    """Where a client dials: a checked ``ws://`` or ``wss://`` URL.

    Raises:
        ValueError: it is no such URL; the text says why, without user info.
    """

    __slots__ = ("_context", "_uri", "host", "port", "secure", "url")

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            told = "" if "@" in url else f": {error}"
            raise ValueError(f"url is malformed{told}") from None
        shown = url.partition("?")[0].rpartition("@")[2]  # a query may hold a token, user info a password
        if "@" in parts.netloc:
            raise ValueError("url must hold no user info: give credentials in headers=")
        if parts.scheme not in {"ws", "wss"}:
            raise ValueError(f"url must start with ws:// or wss://, not {shown!r}")
        if not parts.hostname:
            raise ValueError(f"url names no host: {shown!r}")
        if port == 0:
            raise ValueError(f"url names port 0, which nobody listens on: {shown!r}")
        if parts.fragment:
            raise ValueError(f"url must hold no fragment (RFC 6455 §3): {shown!r}")
        if any(character <= " " or character == "\x7f" for character in url):
            raise ValueError(f"url holds white space or a control character: {shown!r}")
        self.url = url
        self.secure = parts.scheme == "wss"
        self.host = parts.hostname
        self.port = port or (443 if self.secure else 80)
        self._context: ssl.SSLContext | None = None
        self._uri: WebSocketURI | None = None

    @property
    def uri(self) -> WebSocketURI:
        """What `websockets` makes of the URL."""
        from websockets.uri import parse_uri

        if self._uri is None:
            self._uri = parse_uri(self.url)
        return self._uri

    def tls(self, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """The TLS context to dial with: the caller's, or the default, made once; None for ``ws``."""
        if not self.secure:
            return None
        if context is None and self._context is None:
            self._context = ssl.create_default_context()
            # a platform's policy may be stricter, never laxer
            self._context.minimum_version = max(self._context.minimum_version, ssl.TLSVersion.TLSv1_2)
        return context or self._context

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def can_heal(error: DialError) -> bool:
    """Whether a later dial may succeed where this one failed."""
    cause = error.__cause__
    if isinstance(cause, (ssl.SSLCertVerificationError, ImportError)):
        return False
    if isinstance(cause, ssl.SSLError) and any(word in (cause.reason or "") for word in _OF_CERTIFICATES):
        return False
    return error.status not in CANNOT_HEAL


async def dial(address: Address, settings: ClientSettings, make_link: MakeLink[L]) -> L:
    """Open one connection.

    Args:
        address: where to.
        settings: the client's options; ``dial_timeout`` bounds everything here.
        make_link: makes the link that takes over once the opening handshake is done, of what it came to and
            its request.

    Raises:
        DialError: it could not be opened, see `can_heal`.
        DialTimeoutError: ``dial_timeout`` ran out.
    """
    proxy = proxying.proxy_for(address.url, settings.proxy)
    where = f"{address}, through the proxy {proxy}" if proxy else str(address)
    timer = asyncio.timeout(settings.dial_timeout)
    try:
        async with timer:
            return await _dial(address, proxy, settings, make_link)
    except TimeoutError as error:
        if timer.expired():
            raise DialTimeoutError(f"could not reach {where} within {settings.dial_timeout} s") from error
        raise DialError(f"could not reach {where}: {str(error) or 'timed out'}") from error
    except ssl.SSLCertVerificationError as error:
        raise DialError(f"the certificate of {where} does not pass: {error.verify_message}") from error
    except ssl.SSLError as error:
        hint = _TLS_HINTS.get(error.reason or "")
        shown = f"{error.reason}: {hint}" if hint else error.reason or error
        raise DialError(f"TLS with {where} failed: {shown}") from error
    except OSError as error:
        if isinstance(error, DialError):
            raise
        if address.secure and isinstance(error, (ConnectionResetError, ConnectionAbortedError)):
            # many servers drop the connection without the alert that would say why
            shown = str(error) or "the server ended the connection; perhaps it allows no TLS version of ours"
            raise DialError(f"TLS with {where} failed: {shown}") from error
        raise DialError(f"could not reach {where}: {reason_of(error)}") from error


async def _dial(
    address: Address, proxy: proxying.Proxy | None, settings: ClientSettings, make_link: MakeLink[L]
) -> L:
    from websockets.client import ClientProtocol
    from websockets.typing import Origin, Subprotocol

    pairs = await _headers(settings.headers)
    protocol = ClientProtocol(
        address.uri,
        origin=None if settings.origin is None else Origin(settings.origin),
        subprotocols=[Subprotocol(name) for name in opening.offered_subprotocols(settings.encoding)] or None,
        extensions=_offers(settings),
        logger=opening.QUIET,
    )

    loop = asyncio.get_running_loop()
    request = opening.encode_request(protocol, pairs)
    context = address.tls(settings.ssl)
    tls: dict[str, Any] = {}
    if context is not None:
        tls = {
            "ssl": context,
            "server_hostname": address.host,
            "ssl_handshake_timeout": UNLIMITED,  # dial_timeout bounds it
            "ssl_shutdown_timeout": settings.close_timeout or UNLIMITED,
        }
    # Made before the connection: a dial that is cancelled on its way there has one to abandon too.
    client_opening = ClientOpening(
        loop, protocol, request, lambda: make_link(_agreement(protocol, settings), request)
    )
    try:
        if proxy is None:
            await loop.create_connection(lambda: client_opening, address.host, address.port, **tls)
        else:
            await proxy.connect(protocol.uri, client_opening, tls)
        return await client_opening.opened
    except BaseException:
        client_opening.abandon()
        raise


def _offers(settings: ClientSettings) -> Sequence[ClientExtensionFactory] | None:
    if settings.compression is None:
        return None
    from sage_ws.aio.extensions import offers

    return offers(settings.compression)


def _agreement(protocol: ClientProtocol, settings: ClientSettings) -> opening.Agreement:
    subprotocol = None if protocol.subprotocol == opening.PLAIN else protocol.subprotocol
    if settings.compression is None:
        return opening.Agreement(subprotocol=subprotocol)
    from sage_ws.aio.extensions import agreed

    return opening.Agreement(agreed(protocol, settings.compression), subprotocol)


async def _headers(headers: Headers | HeadersFactory) -> list[tuple[str, str]]:
    """The header fields of one dial; a factory is asked anew each time, for a fresh token.

    Raises:
        DialError: the factory raised, or made what no header may be.
    """
    try:
        made = headers() if callable(headers) else headers
        if inspect.isawaitable(made):
            made = await made
        return opening.check_headers(made)
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        # not asked for by anybody, it comes from a task that the factory waited for: a failure too
        raise DialError(f"headers= failed: {type(error).__name__}: {error}") from error


class ClientOpening(asyncio.Protocol, Generic[L]):
    """The client's side of the opening handshake on a socket (RFC 6455 §4.1).

    Args:
        loop: the running loop.
        protocol: `websockets`' sans-I/O client, which made the request and judges the response.
        request: the request's bytes.
        make_link: makes what takes over after the 101.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: ClientProtocol,
        request: bytes,
        make_link: Callable[[], L],
    ) -> None:
        self.opened: asyncio.Future[L] = loop.create_future()
        self._protocol = protocol
        self._request = request
        self._make_link = make_link
        self._reader = opening.HeadReader()
        self._transport = cast("asyncio.Transport", None)
        self._refused: RefusedAnswer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP, and TLS where it is used, stand: ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """A piece of the response."""
        if self.opened.done():
            return
        try:
            if self._refused is not None:
                self._take_body(self._refused, data)
                return
            start = self._reader.start
            if len(start) < opening.START:
                opening.check_answer_start(start + data)
            head = self._reader.receive_data(data)
            if head is None:
                return
            status = opening.check_response(self._protocol, head, self._request)
        except opening.Refusal as error:
            self.opened.set_exception(DialError(f"the answer is no opening handshake: {error}"))
        except DialError as error:
            self.opened.set_exception(error)
        else:
            if status == 101:
                link = self._make_link()
                self.opened.set_result(link)
                link.start(self._transport, self._reader.rest)
            else:
                self._refused = RefusedAnswer(status, head, opening.secret_words(self._request))
                self._take_body(self._refused, self._reader.rest)

    def _take_body(self, refused: RefusedAnswer, data: bytes) -> None:
        if refused.receive_data(data):
            self._raise_refused(refused)

    def _raise_refused(self, refused: RefusedAnswer) -> None:
        self.opened.set_exception(DialError(f"the server {refused}", status=refused.status))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended before it was open."""
        if self.opened.done():
            return
        if self._refused is not None:
            self._raise_refused(self._refused)
            return
        self.opened.set_exception(self._lost(exc))

    def abandon(self) -> None:
        """Nobody waits for the opening any more."""
        if not self.opened.cancel() and not self.opened.cancelled():
            self.opened.exception()  # fetched here, or the loop reports it
        if self._transport is not None:
            self._transport.abort()

    def _lost(self, exc: Exception | None) -> Exception:
        if isinstance(exc, ssl.SSLError):  # TLS 1.3 refuses a client after its own handshake is done
            return exc
        text = "the connection ended during the opening handshake"
        if not self._reader.start:
            secure = self._transport.get_extra_info("sslcontext") is not None
            likely = (
                "it wants another client certificate than ours" if secure else "it speaks TLS: dial wss://"
            )
            text += f", before the server said anything; perhaps {likely}"
        error = DialError(text)
        error.__cause__ = exc or EOFError("the server ended the connection")
        return error
