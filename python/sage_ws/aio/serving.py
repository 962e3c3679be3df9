"""The server's end of one connection: requests to the workers, answers back, with a bound on each.

The limit that guards each arrow: at most ``max_concurrency`` requests run; the rest wait here,
undispatched, up to ``max_queue_bytes``, beyond which reading pauses; while over `UNSENT_LIMIT` of
answers waits for the peer to read, nothing more is dispatched. Control frames and answers always pass.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from sage_ws._core import Connection as CoreConnection
from sage_ws.aio.head import shown_address
from sage_ws.aio.link import FLUSH_AT, Link, Loss
from sage_ws.errors import ClosedError, MessageTooBigError, NotSentError, peer_text
from sage_ws.handler import UpgradeRequest, failure
from sage_ws.logs import logger_of
from sage_ws.message import Reply, Response, SecureMessage
from sage_ws.options import UNSET, Seconds, ServerSettings, Unset, check_timeout

if TYPE_CHECKING:
    from sage_ws.aio.server import Server
    from sage_ws.aio.workers import Workers

logger = logger_of("server")

UNSENT_LIMIT = 1024 * 1024
"""Bytes of answers that may wait for a peer before its further requests wait too."""
MESSAGE_OVERHEAD = 512
"""Bytes that a waiting message is counted for beside its payload at least: objects, and short strings."""


def _weight(message: SecureMessage) -> int:
    """Bytes that a waiting message is counted for; whatever a peer can make large counts."""
    beside = len(message.signature) + len(message.id) + len(message.did)
    beside += len(message.context_id) + len(message.task_id) + len(message.role)
    for key, value in message.metadata.items():
        beside += MESSAGE_OVERHEAD // 4 + len(key) + len(value)
    return len(message.payload) + max(beside, MESSAGE_OVERHEAD)


class ServerCall:
    """One request being served over a connection."""

    __slots__ = ("connection", "deadline")

    def __init__(self, connection: ServerLink) -> None:
        self.connection = connection
        self.deadline: float | None = None

    @property
    def identity(self) -> str | None:
        """The caller's proven identity; None without ``authorize``."""
        return self.connection.identity


class ServerLink(Link):
    """An accepted connection; what a handler knows as ``call.connection``.

    Args:
        server: whose connection this is.
        workers: run the handlers.
        request: the opening handshake's request.
        identity: what ``authorize`` returned.
    """

    __slots__ = (
        "__weakref__",
        "_server",
        "_waiting",
        "_waiting_bytes",
        "_workers",
        "identity",
        "request",
        "settings",
        "subprotocol",
    )

    def __init__(
        self,
        server: Server,
        workers: Workers,
        settings: ServerSettings,
        loop: asyncio.AbstractEventLoop,
        request: UpgradeRequest,
        identity: str | None,
    ) -> None:
        super().__init__(CoreConnection("server", max_message_size=settings.max_message_size), settings, loop)
        self.settings = settings
        self.request = request
        self.identity = identity
        self.subprotocol: str | None = None
        self._server = server
        self._workers = workers
        self._waiting: deque[tuple[SecureMessage, int]] | None = None
        self._waiting_bytes = 0

    def start(self, transport: asyncio.Transport, received: bytes, greeting: bytes = b"") -> None:
        """Take over; over a direct socket the native core hands requests to the workers by itself."""
        super().start(transport, received, greeting)
        if self.socket is not None:
            self._workers.serve(self.socket, self.settings.max_concurrency)

    # ── in ────────────────────────────────────────────────────────────────────────────

    def _take(self, values: list[Any] | None) -> None:
        if not values:
            return
        connection = self.connection
        if (
            connection.watched
            or self._blocked
            or len(values) + connection.running > self.settings.max_concurrency
        ):
            self._sort(values)
            return
        for value in values:
            if type(value) is not SecureMessage:
                self._sort(values)
                return
        connection.running += len(values)
        self._workers.submit(self, values)

    def _sort(self, values: list[Any]) -> None:
        """Values that are not all requests to be dispatched at once."""
        connection, limit = self.connection, self.settings.max_concurrency
        for value in values:
            if type(value) is not SecureMessage:
                self._event(value)
            elif self._server.draining:
                self._server.dropped += 1
            elif (
                connection.running < limit and not self._waiting and not (self._blocked and self._overfull())
            ):
                connection.running += 1
                self._workers.submit(self, [value])
            else:
                self._wait(value)

    def watch_answers(self) -> None:
        """From here on each answer is given by `answer`, not by the core alone: there is more to do then."""
        self.connection.watched = True

    def _overfull(self) -> bool:
        """Whether so much waits for the peer that nothing more is dispatched, until `_unblocked`."""
        if not self._blocked and self.connection.buffered > UNSENT_LIMIT:
            self.flush()  # what a batch has collected is not refused yet: only the socket says so
        return self._blocked and self.unsent > UNSENT_LIMIT

    def _wait(self, message: SecureMessage) -> None:
        """Keep a request that must not be dispatched yet."""
        if self._waiting is None:
            self._waiting = deque()
        self.watch_answers()
        weight = _weight(message)
        self._waiting.append((message, weight))
        self._waiting_bytes += weight
        if self._waiting_bytes > self.settings.max_queue_bytes:
            self.pause_reading()

    def _dispatch_waiting(self) -> None:
        """Requests that waited go on, as far as the limits allow now."""
        waiting = self._waiting
        connection = self.connection
        while waiting and connection.running < self.settings.max_concurrency and not self._overfull():
            message, weight = waiting.popleft()
            self._waiting_bytes -= weight
            connection.running += 1
            self._workers.submit(self, [message])
        if not waiting and self._ended_by is None:
            connection.watched = self._server.draining
        if not self._reading and self._waiting_bytes <= self.settings.max_queue_bytes:
            self.resume_reading()

    def _unblocked(self) -> None:
        if self._waiting:
            self._dispatch_waiting()
        if self._server.draining:
            self._server._changes.tell()

    def _peer_name(self) -> str:
        return shown_address(self.request.remote_address)

    def _closes_first(self) -> bool:
        return True

    def _ended(self, loss: Loss) -> None:
        self.watch_answers()
        # requests that never reached a handler are dropped; handlers that run go on (API.md)
        if self._waiting:
            self._server.dropped += len(self._waiting)
            self._waiting = None
            self._waiting_bytes = 0
        self.resume_reading()  # nothing is kept any more, and only who reads sees the peer's end
        self._server._changes.tell()

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

    def call(self) -> ServerCall:
        """Make the handler's view of one request."""
        return ServerCall(self)

    @property
    def unfinished(self) -> int:
        """Requests accepted and not answered yet."""
        return self.connection.running + (len(self._waiting) if self._waiting else 0)

    def answer(self, message: SecureMessage, reply: Reply) -> bool:
        """Queue the answer to a request, and write it if the batch is full or done.

        Returns:
            Whether everything queued was handed to the socket; else the worker flushes when it rests.
        """
        if self._ended_by is None:
            try:
                buffered = self.connection.send_response(message, reply)
            except MessageTooBigError as error:
                logger.warning("answer to message %s refused: %s", peer_text(message.id), error)
                buffered = self._answer_failure(message, Response.failure(str(error)))
            except Exception as error:  # noqa: BLE001 - a reply of a wrong type: the handler's fault, logged there
                buffered = self._answer_failure(message, failure(message, error))
        else:
            self._server.dropped += 1
            buffered = 0
        self.answered()
        if buffered >= FLUSH_AT or not self.connection.running:
            self.flush()
            return True
        return False

    def _answer_failure(self, message: SecureMessage, response: Response) -> int:
        try:
            return self.connection.send_response(message, response)
        except MessageTooBigError:  # the peer's own id, escaped, leaves no room for an answer
            self._server.dropped += 1
            return self.connection.buffered

    def answered(self) -> None:
        """A handler has ended: its place is free."""
        self.connection.running -= 1
        if self._waiting:
            self._dispatch_waiting()
        if not self.connection.running and (self._server.draining or self._gone):
            self._server._link_finished(self)

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Ask the peer: needs a subprotocol with requests in both directions.

        Raises:
            ClosedError: the connection has ended.
            NotSentError: the peer speaks plain SAGE, where only the client asks (WIRE.md, "Subprotocols").
        """
        check_timeout(timeout)
        if self.closed:
            raise ClosedError("the connection has ended", message_id=message.id)
        raise NotSentError(
            "the peer speaks plain SAGE: requests go from client to server only", message_id=message.id
        )

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._ended_by is not None or self.connection.closing

    async def close(self) -> None:
        """Close the connection with 1000, after `close_timeout` at most.

        In a forked child only the child's share in it.
        """
        if not self.is_of_this_process:
            self.abandon()
            return
        self.begin_close()
        await self.wait_closed()
