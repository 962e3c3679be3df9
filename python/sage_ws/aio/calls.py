"""The client's end of one connection: as a client asks, and as it answers where it has a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sage_ws._core.events import GoAway
from sage_ws.aio.answering import Answering
from sage_ws.aio.asking import Asking
from sage_ws.aio.link import Loss
from sage_ws.aio.opening import Agreement, secret_words, told_text
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, ClientSettings, Seconds, Unset

if TYPE_CHECKING:
    from sage_ws.aio.reaching import Reaching
    from sage_ws.aio.workers import Workers

Ask: TypeAlias = Callable[[SecureMessage], "asyncio.Future[Response] | None"]
"""Sends a message that nothing stands in the way of; None where it does not."""


class ClientLink(Answering):
    """An open connection of a client.

    Args:
        client: told of room, and of the end.
        settings: the client's options.
        loop: the running loop.
        workers: run the client's handler; None where it has none.
        agreement: what the opening handshake came to.
        request: its request.
    """

    __slots__ = ("_client", "_read_timeout", "_request", "asking")

    identity = None
    request = None

    def __init__(
        self,
        client: Reaching,
        settings: ClientSettings,
        loop: asyncio.AbstractEventLoop,
        workers: Workers | None,
        agreement: Agreement,
        request: bytes,
    ) -> None:
        super().__init__("client", agreement, settings, loop, client, workers)
        self._client = client
        self._request = request
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
        return Asking.put(self, message, self.read_deadline())  # nothing waits here that it could set going

    def _peer_name(self) -> str:
        return str(self._client._address)

    def peers_text(self, text: str) -> str:
        """As at the other end, and without what the opening handshake has told the server in confidence."""
        return told_text(text, secret_words(self._request))

    def read_deadline(self) -> float:
        """Loop time until which an answer to a message that leaves now is awaited."""
        return self._time() + self._read_timeout

    @property
    def read_timeout(self) -> float:
        """Seconds for which an answer is awaited where its caller says nothing; infinity for no limit."""
        return self._read_timeout

    def _take(self, values: list[Any] | None) -> None:
        self._sort(values or ())
        if self.is_leaving:
            self._client._part_with(self)
        self._client._answers_came()

    def _event(self, event: object) -> None:
        if isinstance(event, GoAway):
            self._client._told_to_leave(self, event.reason)
        else:
            super()._event(event)

    def _drops(self, message: SecureMessage) -> bool:
        return False  # who drains waits for its own answers, and the server for these

    def _is_watched(self) -> bool:
        return self.is_leaving or self._client._watches_answers()

    def forget(self, message_id: str) -> None:
        """The caller gave up; a connection that was left ends with its last call."""
        super().forget(message_id)
        if self.is_leaving:
            self._client._part_with(self)

    def _calls_ended(self) -> None:
        if self.is_leaving:
            self._client._part_with(self)
        self._client._answers_came()

    def _wait(self, message: SecureMessage) -> None:
        super()._wait(message)
        self._client._choose_way()  # what is asked now makes room here, or has reading go on: see `put`

    def _dispatch_waiting(self) -> None:
        super()._dispatch_waiting()
        if not self.has_waiting:
            self._client._choose_way()

    def _unblocked(self) -> None:
        super()._unblocked()
        self._client._answers_came()

    def _closes_first(self) -> bool:
        return False

    def give_up(self, text: str) -> None:
        """End the calls that wait, now; the connection itself may take its time to close."""
        self._end(Loss(text))

    def _ended(self, loss: Loss) -> None:
        self._end_calls(loss)
        self._end_requests()
        self._client._link_ended(self, loss)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: the client lets go of the link."""
        super().connection_lost(exc)
        self._client._link_gone(self)

    # ── what a client's handler knows as ``call.connection`` ──────────────────────────

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Ask the server back: what `Client.send` does."""
        return await self._client.send(message, timeout=timeout)

    async def close(self) -> None:
        """Close the connection with 1000, after `close_timeout` at most; the client may dial again."""
        self._client._closed_by_handler(self)
        self.begin_close()
        await self.wait_closed()

    def counters(self) -> dict[str, int]:
        """What passed over this link, under the names of `Client.stats`."""
        counts = self.connection.counters()
        return {
            "sent": counts["sent"],
            "answered": counts["received"],
            "late": counts["late"],
            "invalid": counts["invalid"],
            "unknown": counts["unknown"],
            "served": self.connection.counters_back()["sent"],
            "bytes_in": self.connection.bytes_in,
            "bytes_out": self.connection.bytes_out,
        }
