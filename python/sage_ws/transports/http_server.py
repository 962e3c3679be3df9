"""The server end of SAGE over HTTP: an aiohttp application around a handler.

A request passes, in this order: method (405), Origin (403), ``authorize`` (its status), size (413), decoding,
headers against body (400), validation, handler. From decoding on every answer but that 400 is a 200, as
SAGE's Go server gives them: what went wrong stands in the body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from sage_ws._core import decode_message, encode_response
from sage_ws.aio.forwarded import remote_address
from sage_ws.aio.once import Once
from sage_ws.errors import DecodeError, RefusedError, peer_text
from sage_ws.handler import INTERNAL_ERROR, DetachedCall, HandlerCaller, validate
from sage_ws.interceptors import Intercepted
from sage_ws.logs import logger_of
from sage_ws.message import Response, SecureMessage
from sage_ws.options import ServerSettings
from sage_ws.transports.http_headers import contradicting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sage_ws.handler import Handler
    from sage_ws.options import Authorize, Dedupe, Interceptor

logger = logger_of("http")

# A Go client sends a header per metadata entry, however long; past these limits aiohttp answers 400.
_HEADER_LIMITS: Final = {"max_line_size": 65536, "max_field_size": 65536, "max_headers": 1024}


def http_app(
    handler: Handler,
    *,
    path: str = "/messages",
    max_message_size: int | None = 16 * 1024 * 1024,
    origins: Collection[str | None] | None = None,
    authorize: Authorize | None = None,
    trusted_proxies: Collection[str] = (),
    interceptors: Collection[Interceptor] = (),
    dedupe: Dedupe | None = None,
) -> web.Application:
    """An aiohttp application that answers SAGE messages by ``handler``.

    Run it by ``aiohttp.web.run_app(app)``, or put it below another one by ``add_subapp``.

    Args:
        handler: any shape that a ``Server`` takes; its ``call.connection`` is None.
        path: where messages are posted to.
        max_message_size: bytes of JSON, in and out.
        origins: as for ``Server``: not given, a browser's Origin must match Host.
        authorize: as for ``Server``: returns the peer's identity, or raises RefusedError.
        trusted_proxies: as for ``Server``: whose `X-Forwarded-For` tells ``authorize`` who calls.
        interceptors: as for ``Server``: functions around every call of the handler, the first outermost.
        dedupe: as for ``Server``, which may share the store: a message runs once, whichever way it comes.

    Raises:
        TypeError, ValueError: the handler or an option cannot be used.
    """
    settings = ServerSettings.parse(
        {
            "max_message_size": max_message_size,
            "origins": origins,
            "authorize": authorize,
            "trusted_proxies": trusted_proxies,
            "interceptors": interceptors,
            "dedupe": dedupe,
        },
        "http_app",
    )
    # A body that is compressed could grow without bound: it is not unpacked, and so not JSON.
    app = web.Application(handler_args={"auto_decompress": False, **_HEADER_LIMITS})
    app.router.add_post(path, _Endpoint(handler, settings).answer)
    if dedupe is not None:
        app.cleanup_ctx.append(partial(_with_store, dedupe))
    return app


async def _with_store(store: Dedupe, _: web.Application) -> AsyncIterator[None]:
    await store.open()
    yield
    await store.close()


@dataclass(frozen=True)
class _Request:
    """What ``authorize`` sees of a request; an ``UpgradeRequest`` in all but the upgrade."""

    path: str
    headers: Mapping[str, str]
    remote_address: Any
    origin: str | None
    peer_certificate: Mapping[str, Any] | None


class _Endpoint:
    """From one POST to its answer."""

    def __init__(self, handler: Handler, settings: ServerSettings) -> None:
        if settings.dedupe is not None:
            handler = Once(handler, settings.dedupe, settings.max_message_size)
        if settings.interceptors:
            handler = Intercepted(handler, settings.interceptors, settings.max_message_size)
        self._call_handler = HandlerCaller(handler, limit=settings.max_message_size)
        self._limit = settings.max_message_size
        self._origins = settings.origins
        self._authorize = settings.authorize
        self._trusted = settings.trusted_proxies

    async def answer(self, request: web.Request) -> web.Response:
        try:
            identity = await self._admit(request)
        except RefusedError as error:
            return web.Response(status=error.status, text=str(error))
        body = await self._body(request)
        if body is None:
            return web.Response(status=413, text=f"message over {self._limit} bytes")
        try:
            fields = decode_message(body)
        except DecodeError as error:
            return _json(Response.failure(str(error)))
        message_id, context_id, task_id, payload, did, signature, metadata, role = fields
        header = contradicting(
            request.headers.items(),
            message_id=message_id,
            did=did,
            context_id=context_id,
            task_id=task_id,
            metadata=metadata,
        )
        if header is not None:
            return web.Response(status=400, text=f"header {peer_text(header)} contradicts the body")
        refusal = validate(message_id, did, payload)
        if refusal is not None:
            # Without an id of the message the answer carries none of its others either.
            return _json(Response(False, message_id, task_id if message_id else "", b"", refusal))
        message = SecureMessage(payload, did, message_id, signature, context_id, task_id, metadata, role)
        return self._bounded(await self._call_handler(message, DetachedCall(identity)), message)

    async def _admit(self, request: web.Request) -> str | None:
        """Judge Origin, then ``authorize``; returns the proven identity."""
        origin = request.headers.get("Origin")
        if self._origins is not None:
            allowed = origin in self._origins
        else:
            allowed = origin is None or origin.partition("://")[2].lower() == request.host.lower()
        if not allowed:
            raise RefusedError(403, "origin not allowed")
        if self._authorize is None:
            return None
        told = request.get_extra_info
        forwarded = request.headers.getall("X-Forwarded-For", ())
        remote = remote_address(told("peername"), forwarded, self._trusted)
        received = _Request(request.path_qs, request.headers, remote, origin, told("peercert") or None)
        try:
            return await self._authorize(received)
        except RefusedError:
            raise
        except Exception:
            logger.exception("authorize failed")
            raise RefusedError(500, INTERNAL_ERROR) from None

    async def _body(self, request: web.Request) -> bytes | None:
        """The whole body; None as soon as it is known to be over the limit."""
        limit = self._limit
        if limit is not None and (request.content_length or 0) > limit:
            return None
        received = bytearray()
        async for chunk in request.content.iter_any():
            received += chunk
            if limit is not None and len(received) > limit:
                return None
        return bytes(received)

    def _bounded(self, response: Response, message: SecureMessage) -> web.Response:
        """The answer; one that is longer than a message may be is replaced by a failure that says so."""
        answer = _json(response)
        size = answer.content_length or 0
        if self._limit is None or size <= self._limit:
            return answer
        text = f"response of {size} bytes is over max_message_size {self._limit}"
        logger.warning("answer to message %s refused: %s", peer_text(message.id), text)
        return _json(Response(False, message.id, message.task_id, b"", text))


def _json(response: Response) -> web.Response:
    body = encode_response(
        response.success, response.message_id, response.task_id, response.data, response.error
    )
    return web.Response(body=body, content_type="application/json")
