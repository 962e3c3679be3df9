"""Requests that are ready, and their handlers' first steps.

A handler that does not suspend is run from its call to its answer here, in a context of its own and within
the task that called `Dispatch.run`. All others are handed to that task where they stand, and it goes on with
them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from types import CoroutineType
from typing import Any

from sage_ws._core._pure.value import Response, SecureMessage


class Dispatch:
    """Requests that wait for a worker, and the way from each to its answer.

    Args:
        handler: what serves them.
        takes_call: whether it wants `(message, call)`.
        context: each request runs in a copy of it.
    """

    summoned: bool = False  # a worker was called for what is ready

    def __init__(self, handler: Callable[..., Any], takes_call: bool, context: Context) -> None:
        self._handler = handler
        self._takes_call = takes_call
        self._context = context
        self._ready: deque[tuple[Any, SecureMessage]] = deque()
        self._unflushed: dict[Any, None] = {}

    def submit(self, link: Any, socket: Any, messages: list[Any]) -> None:
        """Requests come in.

        Args:
            link: where they came from.
            socket: its direct socket, if it has one.
            messages: the requests.
        """
        for message in messages:
            self._ready.append((link, message))

    def __len__(self) -> int:
        """Requests that no worker has taken."""
        return len(self._ready)

    def ready(self, link: Any) -> list[str]:
        """The ids of those that came from this link, in their order."""
        return [message.id for origin, message in self._ready if origin is link]

    def clear(self) -> None:
        """Forget them."""
        self._ready.clear()

    def run(
        self, task: Any
    ) -> tuple[Any, SecureMessage, Context, Any, bool, Any, BaseException | None] | None:
        """Serve until no request is ready, a handler needs more than its first step, or `task` is cancelled.

        Args:
            task: the task that calls this.

        Returns:
            None, or `(link, message, context, outcome, started, awaited, error)` of the request whose handler
            is not done: `error` if it raised; else what its call gave, whether that is a coroutine which was
            started, and what it waits for then. Its link awaits an answer.
        """
        ready, handler, unflushed, cancelling = self._ready, self._handler, self._unflushed, task.cancelling
        while ready:
            link, message = ready.popleft()
            context = self._context.copy()
            run = context.run
            reply: Any
            if message._terms is not None:
                link.entering(message, context)
            try:
                if self._takes_call:
                    outcome = run(handler, message, link.call(message, context))
                else:
                    outcome = run(handler, message)
                if type(outcome) is CoroutineType:
                    try:
                        awaited = run(outcome.send, None)
                    except StopIteration as stop:
                        reply = stop.value
                    else:
                        return link, message, context, outcome, True, awaited, None
                elif outcome is None or isinstance(outcome, (bytes, Response)):
                    reply = outcome
                else:
                    return link, message, context, outcome, False, None, None
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                link.answered()
                raise
            except BaseException as error:  # noqa: BLE001 - a handler's: whoever goes on with it answers and logs
                return link, message, context, None, False, None, error
            if link.answer(message, reply):
                unflushed.pop(link, None)
            else:
                unflushed[link] = None
            if cancelling():
                return None
        return None

    def flush(self) -> None:
        """The rest of a batch leaves."""
        unflushed, self._unflushed = self._unflushed, {}
        for link in unflushed:
            link.flush()
