"""A client: one persistent connection, any number of calls in flight, each with its own answer.

Its life is drawn in `aio/state.py`. `Client.send` guarantees that a call ends exactly once: with the answer
to its message, or with an error that says whether the message may have left. An idle client costs one
timer.

What it has of connections stands in `aio/reaching.py`, what stands around a call in `aio/repeating.py`,
`aio/intercepting.py` and `aio/streaming.py`.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any, Self, Unpack

from sage_ws.aio.asking import check_message
from sage_ws.aio.calls import ClientLink
from sage_ws.aio.deadline import DEADLINE, Seen, within
from sage_ws.aio.intercepting import send_intercepted
from sage_ws.aio.link import wants_direct
from sage_ws.aio.opening import check_headers
from sage_ws.aio.reaching import Reaching
from sage_ws.aio.repeating import send_repeatedly, whole_time
from sage_ws.aio.state import State
from sage_ws.aio.streaming import stream_of
from sage_ws.errors import ClosedError, DialError, DialTimeoutError, QueueTimeoutError
from sage_ws.logs import logger_of
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, ClientOptions, ClientSettings, Seconds, Unset, check_timeout

logger = logger_of("client")


class Client(Reaching):
    """A `MessageTransport` over one WebSocket connection; belongs to the loop of its first use.

    No I/O happens at construction: the first `send` dials, or `connect`, or ``async with``.

    Args:
        url: ``ws://`` or ``wss://``, host, optional port and path.
        **options: see `ClientOptions`; an unknown one is a TypeError.

    Raises:
        TypeError: an option is unknown or of a wrong type.
        ValueError: the URL or an option makes no sense.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        settings = ClientSettings.parse(options, "Client")
        headers = settings.headers
        if not callable(headers):
            pairs = check_headers(headers)
            if not isinstance(headers, Collection):  # an iterator gives them once, and a client dials again
                settings = replace(settings, headers=pairs)
        wants_direct(settings)  # refuses what cannot be
        super().__init__(url, settings)
        self.url = url
        self._closing: asyncio.Task[None] | None = None

    # ── what it is ────────────────────────────────────────────────────────────────────

    def stats(self) -> Mapping[str, int | float]:
        """A snapshot of the client's counters.

        Returns:
            ``pending`` (calls awaiting an answer), ``queued`` (calls that wait to leave), ``sent``,
            ``answered``, ``late`` (answers nobody waits for any more), ``invalid`` (answers that could not
            be decoded), ``unknown`` (messages of a later version, of which something was ignored), ``failed``
            (calls ended by an error), ``cancelled`` (calls whose caller gave up), ``dials``, ``lost``
            (connections that ended though nobody closed them here), ``reconnects``, ``retries`` (messages
            sent again by ``idempotent``), ``bytes_in``, ``bytes_out``. Of requests that the server sends to
            ``handler``: ``served`` (answered), ``dropped`` (whose connection was gone), ``stopped`` (whose
            caller gave up), ``expired`` (past their deadline).
        """
        totals = dict(self._totals)
        for link in self._links:
            for name, count in link.counters().items():
                totals[name] += count
        return {
            "pending": self._pending,
            "queued": len(self._turns.line),
            **totals,
            **self._counts,
            "dropped": self.dropped,
            "stopped": self.stopped,
            "expired": self.expired,
        }

    def __repr__(self) -> str:
        return f"<sage_ws.Client {self._address} {self._state.name}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Collected with its loop, before it was closed; its connection says so too, and is closed then."""
        if self._state not in {State.IDLE, State.CLOSED} and self._pid == os.getpid():
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)

    # ── opening ───────────────────────────────────────────────────────────────────────

    async def connect(self) -> None:
        """Dial now instead of at the first `send`; does nothing where a connection is open.

        Raises:
            DialError: no connection came about.
            ClosedError: the client was closed.
        """
        self._check_usable()
        if self._link is None:
            try:
                async with asyncio.timeout_at(self._leave_by()):
                    await self._turn(front=True)
            except DialError as error:
                raise _again(error) from error.__cause__
            except ClosedError as error:
                raise ClosedError(str(error)) from None
            except TimeoutError:
                raise DialTimeoutError(
                    f"could not reach {self._address} within {self._settings.dial_timeout} s"
                ) from self._dial_error
            self._changed()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ── sending ───────────────────────────────────────────────────────────────────────

    async def send(
        self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET, idempotent: bool = False
    ) -> Response:
        """Send a message and wait for the answer to exactly this message.

        Args:
            message: what to send; its id must not be in flight already.
            timeout: seconds for everything, dialling included; None for no limit. Not given: ``dial_timeout``
                to leave, then ``read_timeout`` for the answer.
            idempotent: the message may run twice, or the server knows repeats by its ``dedupe``: after a loss
                of the connection it is sent again, with the same id, within its time. Without a ``timeout``
                that is ``dial_timeout`` and ``read_timeout`` together.

        Returns:
            The peer's answer, be it a success or not: see `Response.raise_for_error`.

        Raises:
            NotSentError: nothing left this process: DialError, QueueTimeoutError, ClosedError,
                DuplicateIdError, MessageTooBigError.
            MaybeDeliveredError: bytes left and no answer came: ConnectionLostError, ReadTimeoutError,
                WriteTimeoutError.
            DecodeError: the answer came and cannot be decoded.
            RuntimeError: the client belongs to another event loop.
        """
        if idempotent or self._settings.interceptors:
            return await self._send_around(message, timeout, idempotent)
        link, waiter = self._link, None
        if timeout is UNSET and (not Seen.any or DEADLINE.get() is None):
            try:
                waiter = self._ask(message)
            except Exception:
                self._refused(message)
                raise
        if waiter is None:
            return await self._send_slowly(message, timeout)
        try:
            return await waiter
        except BaseException as error:
            self._unanswered(message, error, link, waiter)
            raise

    async def _send_slowly(self, message: SecureMessage, timeout: Seconds | Unset) -> Response:
        """Send what something stands in the way of, or what has a time of its own."""
        link, deadline, remaining = await self._leave(message, timeout)
        try:
            waiter = link.put(message, deadline, remaining)
        except Exception:
            self._refused(message)
            raise
        try:
            return await waiter
        except BaseException as error:
            self._unanswered(message, error, link, waiter)
            raise

    def _unanswered(
        self,
        message: SecureMessage,
        error: BaseException,
        link: ClientLink | None,
        waiter: asyncio.Future[Response],
    ) -> None:
        """A call that left has ended by an error, or was cancelled."""
        if isinstance(error, Exception):
            self._counts["failed"] += 1
        elif waiter.cancelled() and link is not None:
            # else it was answered a moment ago, and the id may be another call's now
            link.forget(message.id)
            self._counts["cancelled"] += 1
            self._changed()

    async def _send_around(
        self, message: SecureMessage, timeout: Seconds | Unset, idempotent: bool
    ) -> Response:
        """Send with what stands around a call: interceptors first, and within them repeats."""
        check_timeout(timeout)
        check_message(message)
        send = self._send_repeatedly if idempotent else self._send_slowly
        if not self._settings.interceptors:
            return await send(message, timeout)
        return await send_intercepted(send, self._settings.interceptors, message, timeout)

    async def _send_repeatedly(self, message: SecureMessage, timeout: Seconds | Unset) -> Response:
        settings = self._settings
        return await send_repeatedly(
            lambda left: self._send_slowly(message, left),
            timeout,
            whole=whole_time(timeout, settings.dial_timeout, settings.read_timeout),
            clock=asyncio.get_running_loop().time,
            goes_on=self._sends_again,
        )

    def _sends_again(self) -> bool:
        """Whether a message whose connection was lost goes out on the next; the call has not failed then."""
        if self._is_ending or not self._settings.reconnect:
            return False
        self._counts["failed"] -= 1
        self._counts["retries"] += 1
        return True

    def _refused(self, message: SecureMessage) -> None:
        """A message could not be queued: its place is free again."""
        self._changed()
        check_message(message)
        self._counts["failed"] += 1

    async def _leave(
        self, message: SecureMessage, timeout: Seconds | Unset
    ) -> tuple[ClientLink, float, float]:
        """The slow way out: wait for a connection and a place on it.

        Returns:
            The link to send on, the loop time until which the answer is awaited, and the seconds that
            the peer is told of: infinity where the caller said nothing.
        """
        check_timeout(timeout)
        check_message(message)
        try:
            self._check_usable()
        except ClosedError as error:
            self._counts["failed"] += 1
            error.message_id = message.id
            raise
        assert self._loop is not None
        if Seen.any:
            settings = self._settings
            usual = whole_time(UNSET, settings.dial_timeout, settings.read_timeout)
            timeout = within(timeout, self._loop.time(), usual)
        if timeout is UNSET:
            leave_by = self._leave_by()
        else:
            leave_by = None if timeout is None else self._loop.time() + timeout
        front = False
        while (link := self._link) is None or front or self._turns.line or not self._has_room(link):
            try:
                async with asyncio.timeout_at(leave_by):
                    await self._turn(front=front)
            except DialError as error:
                self._counts["failed"] += 1
                raise _again(error, message.id) from error.__cause__
            except ClosedError as error:
                self._counts["failed"] += 1
                raise ClosedError(str(error), message_id=message.id) from None
            except asyncio.CancelledError:
                self._counts["cancelled"] += 1
                raise
            except TimeoutError:
                self._counts["failed"] += 1
                raise QueueTimeoutError(
                    "its time ran out before the message could leave", message_id=message.id
                ) from self._dial_error
            link = self._link
            if link is not None:
                break
            front = True  # lost between the grant and this step: first in the line for the next connection
        self._choose_way()
        if timeout is UNSET:
            return link, link.read_deadline(), inf
        if leave_by is None:
            return link, inf, inf
        remaining = leave_by - self._loop.time()
        if remaining <= 0:  # the deadline of the call that is being served has passed
            self._changed()
            self._counts["failed"] += 1
            raise QueueTimeoutError("its time was over before the message could leave", message_id=message.id)
        return link, leave_by, remaining

    def stream(
        self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET
    ) -> AbstractAsyncContextManager[AsyncIterator[Response]]:
        """Send a message and iterate over its answer's parts as they come.

        A handler that answers once is one part, and so is what a peer without streams, a plain SAGE one,
        joins its parts into. An error is the last part, an unsuccessful Response, behind those before it.
        Leaving the block early stops the handler at the far end; a consumer that is slow pauses it, and
        holds up no other call as long as the server's ``max_concurrency`` has places beside its streams.

        Args:
            message: what to send; its id must not be in flight already.
            timeout: seconds for all of it, dialling included; None for no limit. Not given: ``dial_timeout``
                to leave, then ``read_timeout`` for each part.

        Raises:
            The same as `send`, when the iteration starts or goes on.
        """
        return stream_of(self, message, timeout)

    async def ping(self) -> float:
        """Measure one round trip by a WebSocket ping (RFC 6455 §5.5.2), dialling if needed.

        Returns:
            Seconds from the ping to its pong.

        Raises:
            DialError: no connection came about.
            ConnectionError: the connection ended before the pong.
            TimeoutError: no pong came within ``read_timeout``.
        """
        await self.connect()
        link = self._link
        if link is None:
            raise ConnectionError("the connection was lost before the ping could leave")
        begun = perf_counter()
        async with asyncio.timeout(self._settings.read_timeout):
            return await link.ping(os.urandom(8)) - begun

    # ── losing and closing ────────────────────────────────────────────────────────────

    async def drain(self, *, timeout: Seconds = 30) -> None:
        """Refuse new sends, wait for the answers that are due, then close.

        Args:
            timeout: seconds to wait for answers; None for no limit.

        Raises:
            RuntimeError: the client belongs to another event loop.
        """
        check_timeout(timeout)
        if self._state is State.DRAINING:
            self._check_loop()
        elif self._state is not State.CLOSED:
            self._check_usable()
            self._move(State.DRAINING)
            if self._link is None:
                self._turns.fail(ClosedError("the client is draining"))
            if self._dialing is not None:
                self._dialing.cancel()
            if self._moving is not None:
                self._moving.cancel()
        try:
            async with asyncio.timeout(timeout):
                while self._turns.line or self._turns.granted or self._pending:
                    await self._changes.next()
        except TimeoutError:
            logger.warning("drain: calls were still unanswered after %s s", timeout)
        finally:
            await self.close()

    async def close(self) -> None:
        """End the client: idempotent, from any state, within ``close_timeout``.

        Calls that still wait end at once: with ConnectionLostError what left, with ClosedError what did not.
        In a forked child only the child's share in the connection is closed.

        Raises:
            RuntimeError: the client belongs to another event loop.
        """
        if self._pid != os.getpid():
            self._state = State.CLOSED
            for link in self._ending if self._link is None else {self._link, *self._ending}:
                link.abandon()
            return
        if self._is_gone and self._workers is None:
            return
        self._check_loop()
        if self._closing is None:
            self._move(State.CLOSED)
            self._turns.fail(ClosedError("the client was closed"))
            self._changed()
            if self._dialing is not None:
                self._dialing.cancel()
            if self._moving is not None:
                self._moving.cancel()
            if not (self._dialing or self._moving or self._link or self._ending or self._workers):
                return
            self._closing = asyncio.get_running_loop().create_task(self._finish(), name="sage_ws close")
        await asyncio.shield(self._closing)

    @property
    def _is_gone(self) -> bool:
        """Whether it is closed, and its sockets with it."""
        closing = self._closing
        return self._state is State.CLOSED and not self._ending and (closing is None or closing.done())

    async def _finish(self) -> None:
        for link in tuple(self._links):
            link.begin_close()
            link.give_up("the client was closed")
        dials = [task for task in (self._dialing, self._moving) if task is not None]
        if dials:
            await asyncio.wait(dials, timeout=self._settings.close_timeout)
        while self._ending:  # each within its own close_timeout
            await self._changes.next()
        workers, self._workers = self._workers, None
        if workers is not None:
            await workers.stop()

    async def wait_closed(self) -> None:
        """Wait until the client is closed, by `close`, by `drain`, or by a loss without ``reconnect``.

        Raises:
            RuntimeError: the client belongs to another event loop.
        """
        if self._is_gone:
            return
        self._check_loop()
        while self._state is not State.CLOSED or self._ending:
            await self._changes.next()
        if self._closing is not None:
            await asyncio.shield(self._closing)


def _again(error: DialError, message_id: str | None = None) -> DialError:
    """A dial's error for one of the calls that waited for it: each raises its own instance."""
    return type(error)(str(error), status=error.status, message_id=message_id)


def connect(url: str, **options: Unpack[ClientOptions]) -> Client:
    """Make a `Client`: ``async with connect(url) as client``, or ``client = await connect(url)``."""
    return Client(url, **options)
