"""A handler that keeps what it was asked and replies as told; the thread it serves in may be any."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sage_ws.handler import takes_call
from sage_ws.message import Reply, Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws.handler import Call, Handler, Outcome

Scripted: TypeAlias = Reply | BaseException
"""One reply told beforehand; an exception is raised, as a handler would raise it."""


class RecordingHandler:
    """A handler of any server or `MemoryTransport` that records its messages.

    Args:
        reply: what to answer: one reply or exception for all messages, an iterable of them for one message
            each, or a handler of any shape. None, as from a handler, is a success without data.
    """

    def __init__(self, reply: Scripted | Iterable[Scripted] | Handler = None) -> None:
        self._lock = threading.Condition()
        self._messages: list[SecureMessage] = []
        self._calls: list[Call] = []
        self._watchers: set[Callable[[], object]] = set()
        self._handler: Callable[..., Outcome] | None = None
        self._script: Iterator[Scripted] | None = None
        self._constant: Scripted = None
        if reply is None or isinstance(reply, (bytes, Response, BaseException)):
            self._constant = reply
        elif callable(reply):
            self._handler = reply
            self._takes_call = takes_call(reply)
        else:
            self._script = iter(reply)

    @property
    def messages(self) -> list[SecureMessage]:
        """A copy of what has arrived, in order of arrival."""
        with self._lock:
            return list(self._messages)

    @property
    def calls(self) -> list[Call]:
        """The `Call` of each message, in the same order."""
        with self._lock:
            return list(self._calls)

    def __call__(self, message: SecureMessage, call: Call) -> Outcome:
        """Serve one message: record it, then reply."""
        with self._lock:
            self._messages.append(message)
            self._calls.append(call)
            scripted = self._constant if self._script is None else self._next()
            self._lock.notify_all()
            for arrived in self._watchers:
                arrived()
        if self._handler is not None:
            arguments: tuple[Any, ...] = (message, call) if self._takes_call else (message,)
            return self._handler(*arguments)
        if isinstance(scripted, BaseException):
            raise scripted
        return scripted

    def _next(self) -> Scripted:
        nothing = AssertionError(f"no reply was told for message {len(self._messages)}")
        return next(cast("Iterator[Scripted]", self._script), nothing)

    def wait(self, count: int = 1, *, timeout: float = 5.0) -> list[SecureMessage]:
        """Block until ``count`` messages have arrived in all; for a test without an event loop.

        Returns:
            All messages so far.

        Raises:
            TimeoutError: fewer came within ``timeout`` seconds.
        """
        with self._lock:
            if self._lock.wait_for(lambda: len(self._messages) >= count, timeout):
                return list(self._messages)
            raise self._too_few(count, timeout)

    async def wait_async(self, count: int = 1, *, timeout: float = 5.0) -> list[SecureMessage]:
        """The same for a coroutine: waits without blocking its loop."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def arrived() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._watchers.add(arrived)
        try:
            async with asyncio.timeout(timeout):
                while len(self.messages) < count:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise self._too_few(count, timeout) from None
        finally:
            with self._lock:
                self._watchers.discard(arrived)
        return self.messages

    def _too_few(self, count: int, timeout: float) -> TimeoutError:
        return TimeoutError(f"{len(self._messages)} of {count} messages arrived within {timeout:g} s")
