"""The answering half of a connection: requests to the workers, answers back, with a bound on each.

The limit that guards each arrow: at most ``max_concurrency`` requests run; the rest wait here,
undispatched, up to ``max_queue_bytes``, beyond which reading pauses; while over `UNSENT_LIMIT` of
answers waits for the peer to read, nothing more is dispatched. Control frames and answers always pass; of
who does not read what its requests are refused by, nothing more is read.

A handler may ask back on the connection that its own request came by. It waits for the peer then, not for a
place, and so takes none; and reading must not pause, for the answer comes by the same socket: what would not
fit is answered `OVERLOADED` instead. It reads on for a stream too that waits for leave to send more, though
that one keeps its place.

Over 500 lines, a third of them docstrings: each limit is a state that the others look at.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sage_ws._core import Connection
from sage_ws._core.events import Cancel, Credit, Part
from sage_ws.aio.asking import Asking
from sage_ws.aio.call import LinkCall
from sage_ws.aio.deadline import DEADLINE, Seen
from sage_ws.aio.link import FLUSH_AT
from sage_ws.aio.running import Running
from sage_ws.aio.streams import Incoming, Outgoing
from sage_ws.aio.weight import weight_of
from sage_ws.errors import DecodeError, MessageTooBigError, peer_text
from sage_ws.handler import failure
from sage_ws.logs import logger_of
from sage_ws.message import Reply, Response, SecureMessage

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterable

    from sage_ws.aio.changes import Changes
    from sage_ws.aio.opening import Agreement
    from sage_ws.aio.workers import Workers
    from sage_ws.options import CommonSettings

logger = logger_of("server")

UNSENT_LIMIT = 1024 * 1024
"""Bytes of answers that may wait for a peer before its further requests wait too."""
OVERLOADED = "overloaded"
"""Answers a request that there is no room for while a handler of the same connection waits for its peer."""

TAKES_NONE = "this client takes no requests"
"""Answers a request to a client that has no handler."""


class Owner(Protocol):
    """Whose connection it is: a server, or a client with a handler."""

    dropped: int
    """Requests and answers that came to nothing."""
    stopped: int
    """Handlers that were cancelled because their caller gave up."""
    expired: int
    """Handlers that were cancelled, and requests that were not run, because their deadline had passed."""
    _changes: Changes

    @property
    def draining(self) -> bool:
        """Whether no further requests are taken."""
        ...

    def _link_finished(self, link: Any) -> None:
        """The last running request of a link was answered, during a drain or after the link's end."""


class Answering(Asking):
    """A link that serves requests.

    Args:
        role: which end of the connection it is.
        agreement: what the opening handshake came to.
        settings: the owner's options.
        loop: the running loop.
        owner: whose link this is.
        workers: run what comes in; None to refuse it.

    Attributes:
        subprotocol: how messages are encoded; None for plain SAGE JSON.
        is_leaving: its next requests go elsewhere.
    """

    __slots__ = (
        "_deadlines",
        "_handlers",
        "_outgoing",
        "_owner",
        "_refused",
        "_starved",
        "_unbegun",
        "_unheard",
        "_waiting",
        "_waiting_bytes",
        "_workers",
        "is_leaving",
        "subprotocol",
    )

    identity: str | None

    def __init__(
        self,
        role: Literal["client", "server"],
        agreement: Agreement,
        settings: CommonSettings,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        workers: Workers | None,
    ) -> None:
        connection = Connection(
            role,
            max_message_size=settings.max_message_size,
            deflate=agreement.deflate,
            subprotocol=agreement.subprotocol,
        )
        super().__init__(connection, settings, loop)
        self.subprotocol = agreement.subprotocol
        self.is_leaving = False
        self._owner = owner
        self._workers = workers
        self._waiting: OrderedDict[object, tuple[SecureMessage, int]] | None = None
        self._waiting_bytes = 0
        self._refused = self._unheard = self._starved = 0
        self._handlers: dict[str, Running] | None = None
        self._unbegun: dict[str, bool] | None = None
        self._deadlines: dict[str, float] | None = None
        self._outgoing: dict[str | Outgoing, Outgoing] | None = None

    def start(self, transport: asyncio.Transport, received: bytes, greeting: bytes = b"") -> None:
        """Take over; over a direct socket the native core hands requests to the workers by itself."""
        super().start(transport, received, greeting)
        if self.socket is not None and self._workers is not None:
            self._workers.serve(self.socket, self._settings.max_concurrency)

    # ── in ────────────────────────────────────────────────────────────────────────────

    def _take_requests(self, values: list[Any]) -> None:
        """Values of one read, which on most reads are requests that nothing stands in the way of."""
        connection = self.connection
        if (
            connection.watched
            or self._blocked
            or len(values) + connection.running > self._settings.max_concurrency
        ):
            self._sort(values)
            return
        for value in values:
            if type(value) is not SecureMessage:
                self._sort(values)
                return
        connection.running += len(values)
        assert self._workers is not None
        self._workers.submit(self, values)

    def _sort(self, values: Iterable[Any]) -> None:
        """Values that are not all requests to be dispatched at once."""
        for value in values:
            if type(value) is tuple:
                self._answered(*value)
            elif type(value) is SecureMessage:
                self._admit(value)
            else:
                self._event(value)

    def _admit(self, message: SecureMessage) -> None:
        if self._workers is None:
            self._refuse(message, TAKES_NONE)
        elif self._drops(message):
            self._owner.dropped += 1
        elif self._has_place() and not self._waiting and not (self._blocked and self.overfull()):
            self._dispatch(message)
        else:
            self._wait(message)

    def _dispatch(self, message: SecureMessage) -> None:
        assert self._workers is not None
        self.connection.running += 1
        if self._unbegun is not None:
            self._unbegun.setdefault(message.id, False)
        self._workers.submit(self, [message])

    def _drops(self, message: SecureMessage) -> bool:
        """Whether a request that comes now is not served any more."""
        raise NotImplementedError

    def _has_place(self) -> bool:
        """Whether another handler may start: those that wait for this very peer take no place."""
        connection = self.connection
        return connection.running < self._settings.max_concurrency + connection.pending

    def _refuse(self, message: SecureMessage, text: str) -> None:
        if self._ended_by is None:
            self.connection.send_response(message, Response.failure(text))
            self._refused += 1
            self.flush_soon()

    def _event(self, event: object) -> None:
        if isinstance(event, Part):
            self._part(event.waiter, event.response)
        elif isinstance(event, Cancel):
            self._cancel_handler(event.message_id)
        elif isinstance(event, Credit):
            outgoing = (self._outgoing or {}).get(event.message_id)
            if outgoing is not None:
                outgoing.more(event.count)
        else:
            super()._event(event)

    def _part(self, waiter: Any, part: Response) -> None:
        """A part of an answer that this end has asked for."""
        if isinstance(waiter, Incoming):
            if not waiter.part(part):
                waiter.refuse("the peer sent more parts than there was room for")
        elif not waiter.done():
            self.forget(part.message_id)
            waiter.set_exception(DecodeError("the peer answered in parts where it was asked for one answer"))

    def overfull(self) -> bool:
        """Whether so much waits for the peer that nothing more is dispatched, until `_unblocked`."""
        if not self._blocked and self.connection.buffered > UNSENT_LIMIT:
            self.flush()  # what a batch has collected is not refused yet: only the socket says so
        return self._blocked and self.unsent > UNSENT_LIMIT

    def _read_unheard(self) -> None:
        """Requests that are refused take no place: a peer that does not read why is not read either."""
        refused = self._refused + self.connection.counters()["invalid"]
        if refused != self._unheard and self._ended_by is None and self.overfull():
            self._unheard = refused
            self.pause_reading()

    def _wait(self, message: SecureMessage) -> None:
        """Keep a request that must not be dispatched yet."""
        weight = weight_of(message)
        is_full = self._waiting_bytes + weight > self._settings.max_queue_bytes
        if is_full and (self.connection.pending or self._starved):
            self._refuse(message, OVERLOADED)
            return
        if self._waiting is None:
            self._waiting = OrderedDict()
        self.watch_answers()
        terms = message._terms
        if terms is not None and terms[0] < inf:
            self._deadlines = self._deadlines if self._deadlines is not None else {}
            self._deadlines[message.id] = self._time() + terms[0]
        # by its id, for a cancel to find it; a second one of that id has no name of its own
        self._waiting[message.id if message.id not in self._waiting else object()] = message, weight
        self._waiting_bytes += weight
        if is_full:
            self.pause_reading()

    def _dispatch_waiting(self) -> None:
        """Requests that waited go on, as far as the limits allow now."""
        waiting = self._waiting
        while waiting and self._has_place() and not self.overfull():
            _, (message, weight) = waiting.popitem(last=False)
            self._waiting_bytes -= weight
            if self._deadlines and self._deadlines.get(message.id, inf) < self._time():
                del self._deadlines[message.id]
                self._owner.expired += 1
                continue
            self._dispatch(message)
        if not waiting and self._ended_by is None:
            self.connection.watched = self._is_watched() or self._unbegun is not None
        if not self._reading and self._waiting_bytes <= self._settings.max_queue_bytes:
            self.resume_reading()

    def watch_answers(self) -> None:
        """From here on each answer is given by `answer`, not by the core alone: there is more to do then."""
        self.connection.watched = True

    def _is_watched(self) -> bool:
        """Whether somebody else wants to hear of each answer."""
        return self._owner.draining

    def _unblocked(self) -> None:
        if self._waiting:
            self._dispatch_waiting()
        elif not self._reading:
            self.resume_reading()
        if self._outgoing:
            self._wake_streams()
        if self._owner.draining:
            self._owner._changes.tell()

    def _end_requests(self) -> None:
        """Nothing more is served: what never reached a handler is dropped; handlers that run go on."""
        self.watch_answers()
        if self._waiting:
            self._owner.dropped += len(self._waiting)
            self._waiting = self._deadlines = None
            self._waiting_bytes = 0
        if self._outgoing:
            self._wake_streams()
        self.resume_reading()  # nothing is kept any more, and only who reads sees the peer's end
        self._owner._changes.tell()

    # ── handlers that have not finished in their first step ───────────────────────────

    def entering(self, message: SecureMessage, context: contextvars.Context) -> None:
        """A request with a deadline is about to run: its context says so."""
        remaining, _ = message._terms or (0.0, 0)
        waited = self._deadlines.pop(message.id, None) if self._deadlines else None
        if remaining < inf:  # else it is told only how many parts there is room for
            Seen.any = True
            context.run(DEADLINE.set, self._time() + remaining if waited is None else waited)

    def call(self, message: SecureMessage, context: contextvars.Context) -> LinkCall:
        """Make the handler's view of one request."""
        return LinkCall(self, message, context.get(DEADLINE) if message._terms else None)

    def began(
        self, message: SecureMessage, task: asyncio.Task[None], context: contextvars.Context
    ) -> Running | None:
        """A handler waits for something: from here on it can be cancelled by its id."""
        if not self.connection.extended:
            return None
        running = Running(task, self._hub, context.get(DEADLINE) if message._terms else None)
        if self._handlers is None:
            self._handlers = {}
        self._handlers[message.id] = running
        if self._unbegun is not None and self._begun(message.id):
            self._stop(running)
        return running

    def over(self, message: SecureMessage, running: Running) -> bool:
        """A handler that `began` has ended; returns whether somebody still waits for its answer."""
        running.over()
        if self._handlers and self._handlers.get(message.id) is running:
            del self._handlers[message.id]
        if running.stopped == "expired":
            self._owner.expired += 1
        return running.stopped is None

    def _stop(self, running: Running) -> None:
        if running.stop("cancelled"):
            self._owner.stopped += 1

    def put(
        self, message: SecureMessage, deadline: float, remaining: float = inf
    ) -> asyncio.Future[Response]:
        """Ask; who waits for the peer takes no place, and needs what comes by this very socket."""
        waiter = super().put(message, deadline, remaining)
        self._make_way()
        return waiter

    def put_for_stream(self, message: SecureMessage, stream: Incoming, remaining: float, credit: int) -> None:
        """The same for an answer in parts."""
        super().put_for_stream(message, stream, remaining, credit)
        self._make_way()

    def _make_way(self) -> None:
        if self._waiting:
            self._dispatch_waiting()
        self.resume_reading()

    def _cancel_handler(self, message_id: str) -> None:
        """The peer does not wait for this any more."""
        waited = self._waiting.pop(message_id, None) if self._waiting else None
        if waited is not None:
            self._waiting_bytes -= waited[1]
            if self._deadlines:
                self._deadlines.pop(message_id, None)
            self._owner.stopped += 1
            return
        running = self._handlers.get(message_id) if self._handlers else None
        if running is not None and running.stopped is None:
            self._stop(running)
        elif self.connection.running > len(self._handlers or ()):
            self._cancel_unbegun(message_id)

    def _cancel_unbegun(self, message_id: str) -> None:
        """Stop a handler at its first step, if it is about to take that.

        Which those are is asked once, and followed until all of them have begun: a cancel may also come
        behind its answer, and must then neither be kept nor meet a later request.
        """
        unbegun = self._unbegun
        if unbegun is None:
            assert self._workers is not None
            unbegun = dict.fromkeys(self._workers.ready(self), False)
            if not unbegun:
                return
            self._unbegun = unbegun
            self.watch_answers()
        if message_id in unbegun:
            unbegun[message_id] = True

    def _begun(self, message_id: str) -> bool:
        """A request has left those that are about to begin; returns whether it was cancelled there."""
        assert self._unbegun is not None
        is_cancelled = self._unbegun.pop(message_id, False)
        if not self._unbegun:
            self._unbegun = None
            if not self._waiting and self._ended_by is None:
                self.connection.watched = self._is_watched()
        return is_cancelled

    # ── out ───────────────────────────────────────────────────────────────────────────

    @property
    def has_waiting(self) -> bool:
        """Whether requests wait here, undispatched."""
        return bool(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether answers are to be watched for the requests' sake."""
        return bool(self._waiting) or self._unbegun is not None

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
            except Exception as error:  # noqa: BLE001 - a reply of a wrong type: logged there
                buffered = self._answer_failure(message, failure(message, error))
        else:
            self._owner.dropped += 1
            buffered = 0
        if self._unbegun is not None:  # answered in its first step
            self._begun(message.id)
        self.answered()
        if buffered >= FLUSH_AT or not self.connection.running:
            self.flush()
            return True
        return False

    def _answer_failure(self, message: SecureMessage, response: Response) -> int:
        try:
            return self.connection.send_response(message, response)
        except MessageTooBigError:  # the peer's own id, escaped, leaves no room for an answer
            self._owner.dropped += 1
            return self.connection.buffered

    def answered(self) -> None:
        """A handler has ended: its place is free."""
        connection = self.connection
        connection.running -= 1
        if self._waiting:
            self._dispatch_waiting()
        if not connection.running and (self._owner.draining or self._gone or self.is_leaving):
            self._owner._link_finished(self)

    def outgoing(self, message: SecureMessage) -> Outgoing | None:
        """Where the parts of an answer go; None where the caller takes it whole."""
        terms = message._terms
        if terms is None or not terms[1]:
            return None
        if self._outgoing is None:
            self._outgoing = {}
        outgoing = Outgoing(self, message, terms[1])
        earlier = self._outgoing.get(message.id)
        if earlier is not None:  # two by one id: credit goes to the later, the end of the connection to both
            self._outgoing[earlier] = earlier
        self._outgoing[message.id] = outgoing
        return outgoing

    def starved(self, change: Literal[1, -1]) -> None:
        """A stream waits for the peer's leave to go on, or does so no more: it comes by this very socket."""
        self._starved += change
        if change > 0:
            self.resume_reading()

    def stream_ended(self, message_id: str, outgoing: Outgoing) -> None:
        """A handler's answer has no more parts."""
        if self._outgoing:
            key = message_id if self._outgoing.get(message_id) is outgoing else outgoing
            self._outgoing.pop(key, None)

    def is_stopped(self, message: SecureMessage) -> bool:
        """Whether the handler of this request was cancelled."""
        running = self._handlers.get(message.id) if self._handlers else None
        return running is not None and running.stopped is not None

    def send_part(self, message: SecureMessage, part: bytes) -> None:
        """Queue a part of an answer, which leaves with its batch.

        Raises:
            MessageTooBigError: over ``max_message_size``.
        """
        if self.connection.send_response(message, part, more=True) >= FLUSH_AT:
            self.flush()
        else:
            self.flush_soon()

    def _wake_streams(self) -> None:
        for outgoing in tuple((self._outgoing or {}).values()):
            outgoing.wake()
