"""From a handler of any shape to one Response: the last stop of a request, the first of its answer.

A handler is called with a message, or with a message and its `Call`; it is an ``async def``, a plain
``def`` or an async generator; it returns a Response, bytes (a success with that data) or None. Which
arguments it takes is looked up once, when the server is built. What it raises becomes an answer in one
place, `failure`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from sage_ws.errors import HandlerError, MessageTooBigError, peer_text
from sage_ws.logs import logger_of
from sage_ws.message import Reply, Response, SecureMessage
from sage_ws.transport import MessageTransport

logger = logger_of("handler")

INTERNAL_ERROR = "internal error"
"""What a peer is told of an exception that is not a HandlerError: nothing internal leaks."""


class UpgradeRequest(Protocol):
    """The opening handshake's request, as ``authorize`` and handlers see it (RFC 6455 §4.1)."""

    @property
    def path(self) -> str:
        """The request target: path and query, as sent."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields; names match in any case."""
        ...

    @property
    def remote_address(self) -> Any:
        """The peer's socket address: ``(host, port, …)`` for TCP, a string for a unix socket.

        ``(host, 0)`` where one of ``trusted_proxies`` told the caller's.
        """
        ...

    @property
    def origin(self) -> str | None:
        """The Origin header; None where there is none."""
        ...

    @property
    def peer_certificate(self) -> Mapping[str, Any] | None:
        """The certificate that the client proved to own, as `ssl.SSLSocket.getpeercert` shows it.

        None without TLS, and where the server's context asked for none or the client gave none: see
        `ssl.SSLContext.verify_mode`.
        """
        ...


@runtime_checkable
class Connection(MessageTransport, Protocol):
    """The server's end of one open connection; may ask too, where the subprotocol has such requests."""

    @property
    def request(self) -> UpgradeRequest:
        """The request that opened the connection."""
        ...

    @property
    def identity(self) -> str | None:
        """The proven identity that ``authorize`` returned; None without one. A DID is only a claim."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol; None for plain SAGE JSON."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to."""
        ...


class Call(Protocol):
    """One request being served."""

    @property
    def connection(self) -> Connection | None:
        """The connection it came by; None over a transport that has none (HTTP, memory)."""
        ...

    @property
    def identity(self) -> str | None:
        """The caller's proven identity; None without ``authorize``."""
        ...

    @property
    def deadline(self) -> float | None:
        """Loop time past which nobody waits for the answer; None where the peer told none."""
        ...


Outcome: TypeAlias = Awaitable[Reply] | AsyncIterator[bytes] | Reply
"""What calling a handler gives: a reply, or something to wait for it, or its parts."""
Handler: TypeAlias = Callable[[SecureMessage], Outcome] | Callable[[SecureMessage, Call], Outcome]
"""What serves a request: called with the message, or with the message and its `Call`."""


def takes_call(handler: Callable[..., Any]) -> bool:
    """Whether a handler wants ``(message, call)`` rather than ``(message)``.

    It does where it cannot be called without a second positional argument, or names one ``call``.

    Raises:
        TypeError: it is not callable, or takes neither one nor two positional arguments.
    """
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    try:
        signature = inspect.signature(handler)
    except ValueError:  # some builtins have none; they take the message alone
        return False
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    if len(positional) >= 2 and positional[1].name == "call":
        return True
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count == 2
    name = getattr(handler, "__qualname__", type(handler).__name__)
    raise TypeError(f"handler {name}{signature} must take (message) or (message, call)")


def validate(message_id: str, did: str, payload: bytes) -> str | None:
    """The validation text that answers a request, or None for a sound one (wire.md, "Messages").

    The core applies the same rules to what comes by WebSocket; this is for the other transports.
    """
    if not message_id:
        return "message ID is required"
    if not did:
        return "DID is required"
    return None if payload else "payload is required"


class Sink(Protocol):
    """Takes the parts of an answer, one after the other, as fast as their consumer does."""

    async def __call__(self, part: bytes) -> None:
        """Take one."""

    def close(self) -> None:
        """There are no more."""


async def settle(outcome: Outcome, limit: int | None = None, sink: Sink | None = None) -> Reply:
    """Wait for what a handler returned: an awaitable, or an async generator.

    Args:
        outcome: what calling the handler gave.
        limit: bytes that the joined parts may hold; None for no limit.
        sink: takes a generator's parts as they come; without one they are joined.

    Raises:
        MessageTooBigError: the parts hold more than ``limit``.
        TypeError: a part is not bytes.
    """
    if sink is not None and not isinstance(outcome, AsyncIterator):
        sink.close()
    if isinstance(outcome, AsyncIterator):
        async with aclosing(outcome) if isinstance(outcome, AsyncGenerator) else nullcontext():
            if sink is None:
                return await _joined(outcome, limit)
            try:
                async for part in outcome:
                    await sink(_checked(part))
            finally:
                sink.close()
        return None
    if inspect.isawaitable(outcome):
        return await outcome
    return outcome


async def _joined(parts: AsyncIterator[bytes], limit: int | None) -> bytes:
    joined = bytearray()
    async for part in parts:
        joined += _checked(part)
        if limit is not None and len(joined) > limit:
            raise MessageTooBigError(f"response is over max_message_size {limit}")
    return bytes(joined)


def _checked(part: object) -> bytes:
    if not isinstance(part, bytes):
        raise TypeError(f"a handler's parts must be bytes, not {type(part).__name__}")
    return part


def failure(message: SecureMessage, error: BaseException) -> Response:
    """Answer for a handler that raised: a HandlerError's text, or `INTERNAL_ERROR` and a log entry."""
    if isinstance(error, HandlerError):
        try:
            return Response.failure(str(error))
        except Exception as unfit:  # noqa: BLE001 - a text that UTF-8 cannot carry, or no text at all: logged
            error = unfit
    logger.error("handler failed for message %s", peer_text(message.id), exc_info=error)
    return Response.failure(INTERNAL_ERROR)


def complete(message: SecureMessage, reply: Reply) -> Response:
    """A handler's reply as the Response that answers this message: ids filled in where left empty.

    Raises:
        TypeError: the reply is neither a Response, nor bytes, nor None.
    """
    if isinstance(reply, Response):
        return Response(
            success=reply.success and not reply.error,
            message_id=reply.message_id or message.id,
            task_id=reply.task_id or message.task_id,
            data=reply.data,
            error=reply.error,
        )
    if reply is not None and not isinstance(reply, bytes):
        raise TypeError(f"a handler must return a Response, bytes or None, not {type(reply).__name__}")
    return Response(message_id=message.id, task_id=message.task_id, data=reply or b"")


class DetachedCall:
    """The `Call` of a transport without connections."""

    __slots__ = ("deadline", "identity")
    connection = None

    def __init__(self, identity: str | None = None, deadline: float | None = None) -> None:
        self.identity = identity
        self.deadline = deadline


class HandlerCaller:
    """Calls one handler, whatever its shape, in the task of its caller: for HTTP and in memory.

    Args:
        handler: any shape of `Handler`.
        limit: bytes that an async generator's joined parts may hold; None for no limit.

    Raises:
        TypeError: the handler's arguments fit neither shape.
    """

    def __init__(self, handler: Handler, *, limit: int | None = None) -> None:
        self._handler = cast("Callable[..., Outcome]", handler)
        self._takes_call = takes_call(handler)
        self._limit = limit

    async def __call__(self, message: SecureMessage, call: Call | None = None) -> Response:
        """Run the handler and answer; what it raises becomes a failure, but for what ends our own task."""
        try:
            arguments = (message, call or DetachedCall()) if self._takes_call else (message,)
            reply = await settle(self._handler(*arguments), self._limit)
            return complete(message, reply)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # not asked for by anybody, it comes from a task that the handler waited for
            return complete(message, failure(message, error))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a handler's: answered and logged by `failure`
            return complete(message, failure(message, error))
