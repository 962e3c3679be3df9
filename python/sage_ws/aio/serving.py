"""The server's end of one connection: it answers, and asks where the subprotocol allows that."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from sage_ws.aio.answering import Answering
from sage_ws.aio.asking import check_message
from sage_ws.aio.deadline import Seen, within
from sage_ws.aio.head import shown_address
from sage_ws.aio.intercepting import send_intercepted
from sage_ws.aio.link import Loss
from sage_ws.aio.opening import Agreement
from sage_ws.aio.turns import Turns
from sage_ws.errors import ClosedError, NotSentError, QueueTimeoutError
from sage_ws.handler import UpgradeRequest
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, Seconds, ServerSettings, Unset, check_timeout

if TYPE_CHECKING:
    from sage_ws.aio.server import Server
    from sage_ws.aio.workers import Workers


class ServerLink(Answering):
    """An accepted connection; what a handler knows as ``call.connection``.

    Args:
        server: whose connection this is.
        workers: run the handlers.
        request: the opening handshake's request.
        identity: what ``authorize`` returned.
        agreement: what the opening handshake came to.
    """

    __slots__ = (
        "__weakref__",
        "_server",
        "_turns",
        "identity",
        "request",
        "settings",
    )

    def __init__(
        self,
        server: Server,
        workers: Workers,
        settings: ServerSettings,
        loop: asyncio.AbstractEventLoop,
        request: UpgradeRequest,
        identity: str | None,
        agreement: Agreement,
    ) -> None:
        super().__init__("server", agreement, settings, loop, server, workers)
        self.settings = settings
        self.request = request
        self.identity = identity
        self._server = server
        self._turns: Turns | None = None

    def _peer_name(self) -> str:
        return shown_address(self.request.remote_address)

    # ── in ────────────────────────────────────────────────────────────────────────────

    def _take(self, values: list[Any] | None) -> None:
        if values:
            self._take_requests(values)
        if self._turns is not None:
            self._let_in()

    def _drops(self, message: SecureMessage) -> bool:
        # A peer that was told to leave stops sending when it hears of it: what it sent before that is served.
        return self._server.draining and not self.is_leaving

    def _closes_first(self) -> bool:
        return True

    def _ended(self, loss: Loss) -> None:
        self._end_calls(loss)
        self._end_requests()
        if self._turns is not None:
            self._turns.fail(ClosedError("the connection has ended"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: the server forgets the connection."""
        super().connection_lost(exc)
        self._server._link_lost(self)

    def _watch_silence(self, now: float) -> float:
        timeout = self.settings.read_timeout
        if timeout is None or not self._reading:
            return inf
        due = self._heard() + timeout
        if now >= due:
            self.fail(1011, "read timeout")
        return due

    # ── out ───────────────────────────────────────────────────────────────────────────

    def leave(self) -> None:
        """Tell the peer to open its next connection elsewhere; what it has sent by then is served."""
        if self.connection.extended and not self.closed:
            self.is_leaving = True
            self.connection.send_goaway()
            self.flush()

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Ask the peer: needs a subprotocol with requests in both directions.

        Args:
            message: what to ask; its id must not be in flight already.
            timeout: seconds for everything; None for no limit. Not given: ``read_timeout``.

        Raises:
            ClosedError: the connection has ended.
            NotSentError: the peer speaks plain SAGE, where only the client asks (see wire.md).
            MaybeDeliveredError, DecodeError: see `Client.send`.
        """
        check_timeout(timeout)
        check_message(message)
        if self.closed or not self.is_of_this_process:
            raise ClosedError("the connection has ended", message_id=message.id)
        if not self.connection.extended:
            raise NotSentError(
                "the peer speaks plain SAGE: requests go from client to server only", message_id=message.id
            )
        now = self._time()
        told = within(timeout, now, self.settings.read_timeout) if Seen.any else timeout
        limit = self.settings.read_timeout if told is UNSET else told
        deadline = inf if limit is None else now + limit
        if self._turns is not None or not self._has_room():
            await self._turn(message, deadline)
            now = self._time()
        if deadline <= now:
            self._let_in()
            raise QueueTimeoutError("its time was over before the message could leave", message_id=message.id)
        try:
            waiter = self.put(message, deadline, inf if told is UNSET else deadline - now)
        except NotSentError:
            self._let_in()
            raise
        self._server.asked += 1
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self.forget(message.id)
            raise

    # ── who waits to ask ──────────────────────────────────────────────────────────────

    def _has_room(self) -> bool:
        granted = 0 if self._turns is None else self._turns.granted
        return not self._blocked and self.connection.pending + granted < self.settings.max_pending

    async def _turn(self, message: SecureMessage, deadline: float) -> None:
        """Wait in line until the peer takes bytes, and has answered enough of what it was asked."""
        if self._turns is None:
            self._turns = Turns()
        if deadline <= self._time() or (self._has_room() and not self._turns.line):
            return
        self.watch_answers()
        try:
            async with asyncio.timeout_at(None if deadline == inf else deadline):
                await self._turns.wait()
        except TimeoutError:
            self._let_in()
            raise QueueTimeoutError(
                "its time ran out before the message could leave", message_id=message.id
            ) from None
        except asyncio.CancelledError:
            self._let_in()
            raise
        except ClosedError as error:
            raise ClosedError(str(error), message_id=message.id) from None
        if self._ended_by is not None:
            raise ClosedError("the connection has ended", message_id=message.id)

    def _let_in(self) -> None:
        """Grant places to those who wait, in order."""
        turns = self._turns
        if turns is None or self._ended_by is not None:
            return
        while turns.line and self._has_room():
            turns.grant()
        if not turns.line:
            self.connection.watched = self._is_watched() or self.is_busy

    def _is_watched(self) -> bool:
        return super()._is_watched() or (self._turns is not None and bool(self._turns.line))

    def forget(self, message_id: str) -> None:
        """The caller gave up: another may ask."""
        super().forget(message_id)
        self._let_in()

    def _calls_ended(self) -> None:
        self._let_in()

    def _unblocked(self) -> None:
        super()._unblocked()
        self._let_in()

    async def close(self) -> None:
        """Close the connection with 1000, after `close_timeout` at most.

        In a forked child only the child's share in it.
        """
        if not self.is_of_this_process:
            self.abandon()
            return
        self.begin_close()
        await self.wait_closed()


class InterceptedLink(ServerLink):
    """A connection whose server asks through ``push_interceptors``."""

    __slots__ = ()

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Ask the peer: see `ServerLink.send`."""
        check_timeout(timeout)
        check_message(message)
        return await send_intercepted(self.send_within, self.settings.push_interceptors, message, timeout)

    async def send_within(self, message: SecureMessage, timeout: Seconds | Unset) -> Response:
        """Ask from within the interceptors."""
        return await super().send(message, timeout=timeout)
