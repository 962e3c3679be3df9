"""The client's end of one connection: messages out with their waiters, answers back to exactly those.

Correlation itself is the core's; here an answer wakes its caller, and the end of the connection ends
every call with the error that says how far it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sage_ws._core import Connection as CoreConnection
from sage_ws.aio.link import FLUSH_AT, Link, Loss
from sage_ws.errors import ConnectionLostError, MaybeDeliveredError, ReadTimeoutError, WriteTimeoutError
from sage_ws.message import Response, SecureMessage
from sage_ws.options import ClientSettings

if TYPE_CHECKING:
    from sage_ws.aio.client import Client

Ask: TypeAlias = Callable[[SecureMessage], "asyncio.Future[Response] | None"]
"""Sends a message that nothing stands in the way of; None where it does not."""


class ClientLink(Link):
    """An open connection of a client.

    Args:
        client: told of room, and of the end.
        settings: the client's options.
        loop: the running loop.
    """

    __slots__ = ("_client", "_read_timeout", "asking")

    def __init__(self, client: Client, settings: ClientSettings, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(CoreConnection("client", max_message_size=settings.max_message_size), settings, loop)
        self._client = client
        self.asking: Ask = self._ask
        self._read_timeout = inf if settings.read_timeout is None else settings.read_timeout

    def start(self, transport: asyncio.Transport, received: bytes, greeting: bytes = b"") -> None:
        """Take over; over a direct socket the native core takes a message by itself."""
        super().start(transport, received, greeting)
        if self.socket is not None:
            self.socket.limit(self._client._settings.max_pending, self._read_timeout)
            self.asking = self.socket.ask if self._settings.busy_poll is None else self._ask_awake

    def _ask_awake(self, message: SecureMessage) -> asyncio.Future[Response] | None:
        """With ``busy_poll``: the answer shall not find the process asleep."""
        assert self.socket is not None
        self.stay_awake()
        return cast("asyncio.Future[Response] | None", self.socket.ask(message))

    def _ask(self, message: SecureMessage) -> asyncio.Future[Response] | None:
        """The same over the loop's transport."""
        if (
            self._blocked
            or self.connection.pending >= self._client._settings.max_pending
            or self._loop is not asyncio.get_running_loop()
            or type(message) is not SecureMessage
        ):
            return None
        return self.send(message, self.read_deadline())

    def read_deadline(self) -> float:
        """Loop time until which an answer to a message that leaves now is awaited."""
        return self._time() + self._read_timeout

    def send(self, message: SecureMessage, deadline: float) -> asyncio.Future[Response]:
        """Queue a message; alone in flight it leaves at once, else with its batch.

        Returns:
            The future of its answer.

        Raises:
            DuplicateIdError, MessageTooBigError, ClosedError: refused; nothing was queued.
        """
        if deadline < self._due:
            self.arm(deadline)
        if self.socket is not None:
            return cast("asyncio.Future[Response]", self.socket.send(message, deadline))
        waiter: asyncio.Future[Response] = self._loop.create_future()
        connection = self.connection
        buffered = connection.send_message(message, waiter, deadline)
        if buffered >= FLUSH_AT or connection.pending == 1:
            self.flush()
        elif not self._batch_flush:
            self.flush_soon()
        return waiter

    def _take(self, values: list[Any] | None) -> None:
        for value in values or ():
            if type(value) is tuple:
                waiter, answer = value
                if waiter.done():  # cancelled a moment ago
                    if type(answer) is Response:
                        self.connection.miss()
                    continue
                if type(answer) is Response:
                    waiter.set_result(answer)
                else:
                    waiter.set_exception(answer)
            else:
                self._event(value)
        self._client._answers_came()

    def _watch_calls(self, now: float) -> float:
        connection = self.connection
        if connection.earliest <= now:
            for waiter, message_id in connection.expire(now):
                if not waiter.done():
                    waiter.set_exception(ReadTimeoutError("no answer came in time", message_id=message_id))
            self._client._answers_came()
        # deadlines that lie close together share a scan: one every 5 ms at most
        return max(connection.earliest, now + 0.005)

    def _unblocked(self) -> None:
        self._client._answers_came()

    def _peer_name(self) -> str:
        return str(self._client._address)

    def _closes_first(self) -> bool:
        return False

    def give_up(self, text: str) -> None:
        """End the calls that wait, now; the connection itself may take its time to close."""
        self._end(Loss(text))

    def _ended(self, loss: Loss) -> None:
        for waiter, message_id in self.connection.abandon():
            if not waiter.done():
                waiter.set_exception(_error_of(loss, message_id))
        self._client._link_ended(self, loss)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: the client lets go of the link."""
        super().connection_lost(exc)
        self._client._link_gone(self)

    def counters(self) -> dict[str, int]:
        """What passed over this link, under the names of `Client.stats`."""
        counts = self.connection.counters()
        return {
            "sent": counts["sent"],
            "answered": counts["received"],
            "late": counts["late"],
            "invalid": counts["invalid"],
            "bytes_in": self.connection.bytes_in,
            "bytes_out": self.connection.bytes_out,
        }


def _error_of(loss: Loss, message_id: str) -> MaybeDeliveredError:
    if loss.stalled:
        return WriteTimeoutError(loss.text, message_id=message_id)
    return ConnectionLostError(loss.text, code=loss.code, reason=loss.reason, message_id=message_id)
