"""The asking half of a connection: messages out with their waiters, answers back to exactly those.

Correlation itself is the core's; here an answer wakes its caller, and the end of the connection ends
every call with the error that says how far it came. A client always asks; a server does where the subprotocol
has requests in both directions.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, cast

from sage_ws.aio.link import FLUSH_AT, Link, Loss
from sage_ws.errors import ConnectionLostError, MaybeDeliveredError, ReadTimeoutError, WriteTimeoutError
from sage_ws.message import Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws.aio.streams import Incoming


class Asking(Link):
    """A link that sends requests."""

    __slots__ = ()

    def put(
        self, message: SecureMessage, deadline: float, remaining: float = inf
    ) -> asyncio.Future[Response]:
        """Queue a message; alone in flight it leaves at once, else with its batch.

        Args:
            message: the request.
            deadline: loop time at which the call ends without an answer.
            remaining: seconds that the peer is told it has; infinity to tell it nothing.

        Returns:
            The future of its answer.

        Raises:
            DuplicateIdError, MessageTooBigError, ClosedError: refused; nothing was queued.
        """
        if deadline < self._due:
            self.arm(deadline)
        if self.socket is not None:
            return cast("asyncio.Future[Response]", self.socket.send(message, deadline, remaining))
        waiter: asyncio.Future[Response] = self._loop.create_future()
        connection = self.connection
        buffered = connection.send_message(message, waiter, deadline, remaining)
        if buffered >= FLUSH_AT or connection.pending == 1:
            self.flush()
        elif not self._batch_flush:
            self.flush_soon()
        return waiter

    def put_for_stream(self, message: SecureMessage, stream: Incoming, remaining: float, credit: int) -> None:
        """Queue a message whose answer may come in parts; ``stream`` gets them.

        Raises:
            DuplicateIdError, MessageTooBigError, ClosedError: refused; nothing was queued.
        """
        self.connection.send_message(message, stream, inf, remaining, credit)
        self.flush_soon()

    def forget(self, message_id: str) -> None:
        """The caller gave up: its answer will count as late, and the peer may stop working on it."""
        if self.connection.forget(message_id):
            self._cancel(message_id)

    def _cancel(self, message_id: str) -> None:
        if self.connection.extended:
            self.connection.send_cancel(message_id)
            self.flush_soon()

    def grant(self, message_id: str, parts: int) -> None:
        """Let the peer send so many parts more of a stream."""
        self.connection.send_credit(message_id, parts)
        self.flush_soon()

    def _answered(self, waiter: Any, answer: Any) -> None:
        """An answer has come, or what cannot be decoded in its place."""
        if waiter.done():  # cancelled a moment ago
            if type(answer) is Response:
                self.connection.miss()
        elif type(answer) is Response:
            waiter.set_result(answer)
        else:
            waiter.set_exception(answer)

    def _watch_calls(self, now: float) -> float:
        connection = self.connection
        if connection.earliest <= now:
            for waiter, message_id in connection.expire(now):
                self._cancel(message_id)
                if not waiter.done():
                    waiter.set_exception(ReadTimeoutError("no answer came in time", message_id=message_id))
            self._calls_ended()
        # deadlines that lie close together share a scan: one every 5 ms at most
        return max(connection.earliest, now + 0.005)

    def _calls_ended(self) -> None:
        """Calls have ended without an answer: there is room for others."""

    def _end_calls(self, loss: Loss) -> None:
        """No more answers will come."""
        for waiter, message_id in self.connection.abandon():
            if not waiter.done():
                waiter.set_exception(_error_of(loss, message_id))


def check_message(message: object) -> None:
    """Refuse what is no message before anything is done with it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(message, SecureMessage):
        raise TypeError(f"message must be a SecureMessage, not {type(message).__name__}") from None


def _error_of(loss: Loss, message_id: str) -> MaybeDeliveredError:
    if loss.stalled:
        return WriteTimeoutError(loss.text, message_id=message_id)
    return ConnectionLostError(loss.text, code=loss.code, reason=loss.reason, message_id=message_id)
