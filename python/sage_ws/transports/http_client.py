"""The client end of SAGE over HTTP: a message leaves as a POST, its response is the answer to it.

Where a WebSocket client tells *never sent* from *maybe delivered* by its own buffers, here aiohttp does the
sending: ``_Progress`` notes, by its tracing signals, how far a request came, and every failure is
judged by that.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import re
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp

from sage_ws._core import decode_response
from sage_ws.aio.intercepting import send_intercepted
from sage_ws.errors import (
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DialError,
    DialTimeoutError,
    QueueTimeoutError,
    ReadTimeoutError,
    TransportError,
    peer_text,
)
from sage_ws.message import Response, SecureMessage, encode_within
from sage_ws.options import (
    UNSET,
    ClientSettings,
    Headers,
    HeadersFactory,
    Interceptor,
    Seconds,
    ServerSettings,
    Unset,
    check_timeout,
)
from sage_ws.transports.http_headers import headers_of

if TYPE_CHECKING:
    import ssl as _ssl

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for a whole call, as in SAGE's Go client."""

CLOSED: Final = "the transport is closed"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2, token
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_AT_ONCE: Final = 65536
"""Bytes written in one go; a longer body goes in pieces, so that the loop can do other work in between."""


class HTTPTransport:
    """A ``MessageTransport`` over HTTP; one connection per message in flight, kept for the next.

    It belongs to the event loop of its first ``send``. Redirects are not followed: the message
    was signed for one peer.

    Args:
        url: the base, ``http://…`` or ``https://…``; messages go to ``{url}/messages``.
        timeout: seconds for a call, from ``send`` to its response.
        dial_timeout: of these, for a free connection, DNS, TCP and TLS.
        max_message_size: bytes of JSON, in and out.
        max_connections: at once; further sends wait for one of them.
        headers: added to each request, such as ``Authorization``; a function is called for each request.
        proxy: ``True`` reads the environment, ``None`` uses none.
        ssl: the context for ``https``; the system's by default.
        interceptors: as for ``Client``: functions around every `send`, the first outermost.

    Raises:
        TypeError: an option is of a wrong type.
        ValueError: the URL is not an absolute http(s) one, or an option is senseless.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: Seconds = DEFAULT_TIMEOUT,
        dial_timeout: Seconds = 30.0,
        max_message_size: int | None = 16 * 1024 * 1024,
        max_connections: int | None = 100,
        headers: Headers | HeadersFactory = (),
        proxy: Literal[True] | None = True,
        ssl: _ssl.SSLContext | None = None,
        interceptors: Collection[Interceptor] = (),
    ) -> None:
        check_timeout(timeout)
        ServerSettings.parse({"max_connections": max_connections}, "HTTPTransport")
        ClientSettings.parse(
            {
                "dial_timeout": dial_timeout,
                "max_message_size": max_message_size,
                "headers": headers,
                "proxy": proxy,
                "ssl": ssl,
                "interceptors": interceptors,
            },
            "HTTPTransport",
        )
        self.url = url
        self._endpoint = _endpoint(url)
        self._peer = urlsplit(url).netloc
        self._timeout = timeout
        self._dial_timeout = dial_timeout
        self._max_message_size = max_message_size
        self._max_connections = max_connections
        self._headers = headers
        if not callable(headers):
            pairs = _checked(headers)
            if not isinstance(headers, Collection):  # an iterator gives them once only
                self._headers = pairs
        self._proxy = proxy
        self._ssl = ssl
        self._interceptors = interceptors
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._closed = False

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Send ``message`` and wait for its response.

        Any status but 200 is a response too, as in Go: ``success`` is false and the text
        ``HTTP <status>: <body>``.

        Raises:
            DialError: no connection; ``DialTimeoutError`` when its time ran out.
            QueueTimeoutError: no connection came free in time.
            MessageTooBigError, ClosedError: refused here.
            ConnectionLostError, ReadTimeoutError: it left, and no whole response came.
            DecodeError: the response cannot be read.
        """
        check_timeout(timeout)
        if self._interceptors:
            return await send_intercepted(self._send, self._interceptors, message, timeout)
        return await self._send(message, timeout)

    async def close(self) -> None:
        """Close every connection; calls in flight end with ConnectionLostError."""
        self._closed = True
        if self._session is not None and self._process == os.getpid():
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _send(self, message: SecureMessage, timeout: Seconds | Unset) -> Response:
        session = self._session_of_this_loop(message)
        body = encode_within(message, self._max_message_size)
        progress = _Progress(message.id, self._peer)
        try:
            async with asyncio.timeout(self._timeout if timeout is UNSET else timeout):
                status, answer = await self._post(session, message, body, progress)
        except TransportError:
            raise
        except TimeoutError as error:
            raise progress.timed_out() from error
        except aiohttp.ClientResponseError as error:
            raise DecodeError(f"not HTTP: {peer_text(error.message)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise (progress.closed() if self._closed else progress.failed(error)) from error
        except asyncio.CancelledError as error:
            # aiohttp cancels who waits for a connection when close() takes the session away.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise progress.closed() from error
        if status != 200:
            text = answer.decode("utf-8", "replace")
            return Response(False, message.id, message.task_id, b"", f"HTTP {status}: {text}")
        success, message_id, task_id, data, text = decode_response(answer)
        return Response(
            success and not text, message_id or message.id, task_id or message.task_id, data, text
        )

    async def _post(
        self, session: aiohttp.ClientSession, message: SecureMessage, body: bytes, progress: _Progress
    ) -> tuple[int, bytes]:
        async with session.post(
            self._endpoint,
            data=body if len(body) <= _AT_ONCE else io.BytesIO(body),
            headers=[
                ("Content-Type", "application/json"),
                ("Accept-Encoding", "identity"),  # compressed, a small answer could grow without bound here
                *headers_of(message),
                *await _resolved(self._headers, message.id),
            ],
            allow_redirects=False,
            trace_request_ctx=progress,
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if self._max_message_size is not None and len(received) > self._max_message_size:
                    response.close()  # not read to its end, the connection cannot be used again
                    reason = f"message over {self._max_message_size} bytes"
                    raise ConnectionLostError(
                        f"connection cut: {reason}", reason=reason, message_id=message.id
                    )
            return response.status, bytes(received)

    def _session_of_this_loop(self, message: SecureMessage) -> aiohttp.ClientSession:
        if self._closed or self._process != os.getpid():
            why = (
                CLOSED
                if self._closed
                else "this transport was made before a fork; make a new one in the child"
            )
            raise ClosedError(why, message_id=message.id)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this transport belongs to another event loop; make one for each loop")
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_queued_start.append(_note("queued"))
            trace.on_connection_queued_end.append(_note("dialling"))
            trace.on_request_headers_sent.append(_note("sent"))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections or 0, ssl=self._ssl or True),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._dial_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._proxy is not None,
                auto_decompress=False,
                trace_configs=[trace],
            )
        return self._session


class _Progress:
    """How far one request came, and so what its failure means."""

    def __init__(self, message_id: str, peer: str) -> None:
        self.message_id = message_id
        self.peer = peer
        self.stage: Literal["dialling", "queued", "sent"] = "dialling"

    def timed_out(self) -> TransportError:
        if self.stage == "sent":
            return ReadTimeoutError("no answer came in time", message_id=self.message_id)
        if self.stage == "queued":
            return QueueTimeoutError("no connection came free in time", message_id=self.message_id)
        return DialTimeoutError(f"could not reach {self.peer} in time", message_id=self.message_id)

    def failed(self, error: BaseException) -> TransportError:
        # The cause is the system's own word; aiohttp's text around it says the address once more.
        text = str(error.__cause__) if isinstance(error, aiohttp.ClientConnectorError) else str(error)
        if self.stage == "sent":
            return ConnectionLostError(
                f"the connection was lost: {peer_text(text)}", message_id=self.message_id
            )
        return DialError(f"could not reach {self.peer}: {text}", message_id=self.message_id)

    def closed(self) -> TransportError:
        """By our own ``close``."""
        if self.stage == "sent":
            return ConnectionLostError("the connection was closed here", message_id=self.message_id)
        return ClosedError(CLOSED, message_id=self.message_id)


def _note(stage: Literal["dialling", "queued", "sent"]) -> Any:
    """A tracing signal that moves the request's ``_Progress`` on."""

    async def signal(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.stage = stage

    return signal


def _endpoint(url: str) -> str:
    """``{base}/messages``, once the base is known to be one."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError("url must be absolute, http://… or https://…")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("url must be a base without user, query and fragment")
    return url.rstrip("/") + "/messages"


def _checked(headers: Headers) -> list[tuple[str, str]]:
    """Header fields as pairs, none of which can forge another.

    Raises:
        TypeError: a name or a value is no str.
        ValueError: it holds what no header may.
    """
    pairs: list[Any] = []  # what a caller gave, whatever its annotation says
    pairs.extend(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must be pairs of str")
        if not _NAME.fullmatch(name):
            raise ValueError(f"header name {name!r} is not a token (RFC 9110 §5.1)")
        if _CONTROL.search(value):
            raise ValueError(f"header {name} holds a control character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"header {name} holds half of a surrogate pair") from None
    return pairs


async def _resolved(headers: Headers | HeadersFactory, message_id: str) -> list[tuple[str, str]]:
    try:
        made = headers() if callable(headers) else headers
        return _checked(await made if inspect.isawaitable(made) else made)
    except Exception as error:
        text = f"headers= failed: {type(error).__name__}: {error}"
        raise DialError(text, message_id=message_id) from error
