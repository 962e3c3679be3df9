"""Functions around every call, at either end: each gets the message and what comes next, and answers.

::

    async def timed(message, next):
        begun = perf_counter()
        try:
            return await next(message)
        finally:
            seconds.observe(perf_counter() - begun)

The first is the outermost. Around a handler they see what it raises, before that becomes an answer. At both
ends ``interceptors`` stand around what clients ask, ``push_interceptors`` around what servers ask.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from sage_ws.handler import complete, settle, takes_call
from sage_ws.message import Response, SecureMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sage_ws.handler import Call, Handler, Outcome, Sink
    from sage_ws.options import Interceptor, Next

CALL: ContextVar[Call | None] = ContextVar("sage_ws_call", default=None)
"""What interceptors stand around; see `current_call`."""


def current_call() -> Call | None:
    """The `Call` that is served; None outside of interceptors around a handler, and of what runs in them."""
    return CALL.get()


def chained(interceptors: Collection[Interceptor], innermost: Next) -> Next:
    """All of them around ``innermost``, the first outermost."""
    for interceptor in reversed(tuple(interceptors)):
        innermost = _around(interceptor, innermost)
    return innermost


def _around(interceptor: Interceptor, following: Next) -> Next:
    async def through(message: SecureMessage) -> Response:
        response = await interceptor(message, following)
        if not isinstance(response, Response):
            name = getattr(interceptor, "__qualname__", type(interceptor).__name__)
            raise TypeError(f"interceptor {name} must return a Response, not {type(response).__name__}")
        return response

    return through


class Intercepted:
    """A handler with interceptors around it, itself a `Handler` of ``(message, call)``.

    Args:
        handler: of any shape.
        interceptors: the first is the outermost.
        limit: bytes that an async generator's joined parts may hold; None for no limit.
    """

    def __init__(self, handler: Handler, interceptors: Collection[Interceptor], limit: int | None) -> None:
        self._handler = cast("Callable[..., Outcome]", handler)
        self._takes_call = takes_call(handler)
        self._limit = limit
        self._chain = chained(interceptors, self._serve)

    async def __call__(self, message: SecureMessage, call: Call) -> Response:
        """Serve a request; what the handler or an interceptor raises is raised here."""
        CALL.set(call)
        try:
            return await self._chain(message)
        finally:
            sink: Sink | None = getattr(call, "parts", None)  # of a connection's calls
            if sink is not None:
                sink.close()

    async def _serve(self, message: SecureMessage) -> Response:
        call = CALL.get()
        arguments = (message, call) if self._takes_call else (message,)
        outcome = self._handler(*arguments)
        sink: Sink | None = getattr(call, "parts", None)
        kept = None if sink is None else _Kept(sink)
        return complete(message, await settle(outcome, self._limit, kept))


class _Kept:
    """A sink that stays open for the next run of the handler: they share the room that there is."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    async def __call__(self, part: bytes) -> None:
        await self._sink(part)

    def close(self) -> None:
        """`Intercepted` does that, at its end."""
