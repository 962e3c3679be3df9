"""Runs handlers without a Task per message: a few long-lived worker Tasks share one queue of requests.

A Task costs more than a handler that never suspends. So a request goes into `ready`, and one worker,
a real Task, takes it and everything behind it, stepping each handler's coroutine in a context copy of
its own: `asyncio.current_task()`, `asyncio.timeout()`, TaskGroup and contextvars behave in a handler as
in any task, and no context variable leaks from one message to the next. The moment a handler suspends
its worker is spent until it resumes, so a spare starts if requests wait. A worker whose Task was cancelled
retires after its message, for its `cancelling()` count stays with it.

The workers belong to the server, not to a connection: an idle connection owns no Task, and one wake-up
serves every connection that was read in the same round of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from sage_ws._core import Dispatch
from sage_ws.aio.deadline import DEADLINE
from sage_ws.aio.hub import hub_of
from sage_ws.aio.streams import StreamEnded
from sage_ws.handler import INTERNAL_ERROR, failure, settle
from sage_ws.interceptors import CALL
from sage_ws.logs import logger_of
from sage_ws.message import Reply, Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws._core import Socket
    from sage_ws.aio.answering import Answering
    from sage_ws.aio.running import Running
    from sage_ws.handler import Handler

logger = logger_of("server")

IDLE_WORKERS = 64
"""Parked workers that are kept for the next burst; more of them retire."""


class Workers:
    """The pool of one server.

    Args:
        handler: what to call; its shape is known already.
        takes_call: whether it wants ``(message, call)``.
        limit: bytes that an async generator's joined parts may hold.
        loop: the loop that the workers' Tasks belong to.
        context: each message runs in a copy of it.
    """

    def __init__(
        self,
        handler: Handler,
        takes_call: bool,
        limit: int | None,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        context.run(DEADLINE.set, None)  # else that of the call under which this end happens to be opened
        context.run(CALL.set, None)
        self._dispatch = Dispatch(handler, takes_call, context)
        self._limit = limit
        self._loop = loop
        self._hub = hub_of(loop)
        self._call = self._summon  # one bound method for all sockets
        self._parked: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_starting = False

    def submit(self, link: Answering, messages: list[SecureMessage]) -> None:
        """Hand in requests; their handlers run when the batch at hand is worked through."""
        self._dispatch.submit(link, link.socket, messages)
        if not self._dispatch.summoned:
            self._dispatch.summoned = True
            self._hub.call_later(self._summon)

    def ready(self, link: Answering) -> list[str]:
        """The ids of a link's requests whose handlers have not taken their first step."""
        return self._dispatch.ready(link)

    def serve(self, socket: Socket, max_concurrency: int) -> None:
        """Have the native core hand in what comes over a direct socket."""
        socket.serve(self._dispatch, self._call, max_concurrency)

    def _summon(self) -> None:
        """Wake a worker for what is ready, or start one."""
        while self._parked:
            parked = self._parked.popleft()
            if not parked.done():
                self._hub.wake(parked)
                return
        self._is_starting = True
        try:
            task = self._loop.create_task(self._work(), name="sage_ws worker")
        finally:
            self._is_starting = False
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # else it went through the loop to whoever runs it
            logger.error("a worker failed", exc_info=error)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                await self._run_ready(task)
                self._rest()
                if task.cancelling() or len(self._parked) >= IDLE_WORKERS:
                    return
                parked = self._loop.create_future()
                self._parked.append(parked)
                await parked
        finally:
            # whatever ended this worker, KeyboardInterrupt in a handler included: the queue goes on
            self._rest()

    def _rest(self) -> None:
        """This worker takes nothing more: what is answered leaves, what is ready gets another worker."""
        self._dispatch.flush()
        self._dispatch.summoned = False
        if self._dispatch and not self._loop.is_closed():
            self._dispatch.summoned = True
            if self._is_starting:  # by an eager task factory: each worker would start the next within itself
                self._loop.call_soon(self._summon)
            else:
                self._summon()

    async def _run_ready(self, task: asyncio.Task[None]) -> None:
        """Serve requests until none is ready, or this worker's Task was cancelled.

        Handlers that do not suspend are answered by the core; here is what the others need.
        """
        while (stopped := self._dispatch.run(task)) is not None:
            link, message, context, outcome, started, awaited, error = stopped
            reply: Reply
            running: Running | None = None
            try:
                if error is not None:
                    raise error
                running = link.began(message, task, context)
                if not started:
                    sink = link.outgoing(message)
                    outcome, awaited = settle(outcome, self._limit, sink), _START
                reply = await self._suspended(context.run, outcome, awaited)
            except StreamEnded:
                reply = None
            except asyncio.CancelledError as cancelled:
                # not asked for by anybody, it comes from a task that the handler waited for: a failure too
                reply = Response.failure(INTERNAL_ERROR) if task.cancelling() else failure(message, cancelled)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                if running is not None:
                    link.over(message, running)
                link.answered()
                raise
            except BaseException as raised:  # noqa: BLE001 - a handler's: answered and logged by `failure`
                reply = failure(message, raised)
            if running is not None and not link.over(message, running):
                link.answered()  # its caller has given up
            elif not link.answer(message, reply):
                link.flush_soon()
            if task.cancelling():
                return

    @types.coroutine
    def _suspended(self, run: Callable[..., Any], coroutine: Any, awaited: Any) -> Generator[Any, Any, Any]:
        """Drive a handler's coroutine from its first suspension on, each step in the handler's context."""
        try:
            if awaited is _START:
                awaited = run(coroutine.send, None)
            self._rest()
            while True:
                try:
                    value = yield awaited
                except BaseException as error:  # noqa: BLE001 - cancellation is the handler's to see
                    awaited = run(coroutine.throw, error)
                else:
                    awaited = run(coroutine.send, value)
                self._dispatch.flush()
        except StopIteration as stop:
            return stop.value

    async def stop(self) -> None:
        """Cancel the handlers that still run, and all workers.

        A handler that ignores its cancellation is not waited for: its answer has nowhere to go.
        """
        self._dispatch.clear()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)


_START = object()
"""Stands for the first value that a coroutine yields, not asked for yet."""
