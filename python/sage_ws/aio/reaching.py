"""A client's way to its server: dialled, lost, dialled again, moved; and who has a place on it.

There is one open connection at a time, and beside it those that are about to end. Who wants to send gets a
place on the open one (`aio/turns.py`), or waits for it. The life of it all is drawn in `aio/state.py`.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import copy_context
from math import isnan

from sage_ws.aio.calls import Ask, ClientLink
from sage_ws.aio.changes import Changes
from sage_ws.aio.dialing import Address, can_heal, dial
from sage_ws.aio.link import Loss
from sage_ws.aio.opening import Agreement
from sage_ws.aio.state import State, moved
from sage_ws.aio.turns import Turns
from sage_ws.aio.workers import Workers
from sage_ws.errors import ClosedError, DialError
from sage_ws.handler import takes_call
from sage_ws.interceptors import Intercepted
from sage_ws.logs import logger_of
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, ClientSettings, Seconds, Unset

logger = logger_of("client")

PROVEN = 5.0
"""Seconds that a connection lives, or one answer, until its loss starts the backoff anew: a peer that accepts
and hangs up must not be dialled again without end at the shortest wait."""
DIALS_TO_MOVE = 2
"""Dials that fail until a connection whose server is going away is left without another."""
FIRST_DIAL_GRACE = 1.0
"""Seconds by which a send outlives its first dial, which bounds itself and says more when it fails."""
_OPEN = State.OPEN


class Reaching:
    """What a `Client` has of connections.

    Args:
        url: where to.
        settings: the client's options.

    Attributes:
        dropped: requests of the server whose connection was gone before they were answered.
        stopped: handlers of such requests whose caller gave up.
        expired: those past their deadline.
    """

    _state = State.IDLE  # where __init__ raised there is nothing to close

    def __init__(self, url: str, settings: ClientSettings) -> None:
        self._settings = settings
        self._address = Address(url)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: ClientLink | None = None
        self._ending: set[ClientLink] = set()
        self._dialing: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._dial_error: DialError | None = None
        self._was_connected = False
        self._attempt = 0
        self._opened_at = 0.0
        self._turns = Turns()
        self._ask: Ask = _no_way
        self._changes = Changes()
        handler = settings.handler
        if handler is not None and settings.push_interceptors:
            handler = Intercepted(handler, settings.push_interceptors, settings.max_message_size)
        self._handler = handler
        self._takes_call = handler is not None and takes_call(handler)
        self._workers: Workers | None = None
        self._totals: dict[str, int] = dict.fromkeys(
            ("sent", "answered", "late", "invalid", "unknown", "served", "bytes_in", "bytes_out"), 0
        )
        self._counts: dict[str, int] = dict.fromkeys(
            ("failed", "cancelled", "dials", "lost", "reconnects", "retries"), 0
        )
        self.dropped = self.stopped = self.expired = 0

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Send a message: the client's."""
        raise NotImplementedError

    # ── what it is ────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> State:
        """Where the client stands."""
        return self._state

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open now."""
        return self._link is not None

    @property
    def draining(self) -> bool:
        """Whether `drain` or `close` was called."""
        return self._is_ending

    @property
    def _links(self) -> set[ClientLink]:
        """The open connection, and those that are about to end."""
        return self._ending if self._link is None else {self._link, *self._ending}

    @property
    def _pending(self) -> int:
        return sum(link.connection.pending for link in self._links)

    @property
    def _is_ending(self) -> bool:
        """Whether `drain` or `close` was called, or the one connection of ``reconnect=False`` is lost."""
        return self._state in {State.DRAINING, State.CLOSED}

    # ── opening ───────────────────────────────────────────────────────────────────────────

    def _check_usable(self) -> None:
        """Refuse what cannot work: another loop or thread, a forked child, a closed client."""
        if self._pid != os.getpid():
            raise ClosedError("this client was opened before a fork; make a new one in the child")
        self._check_loop()
        if self._is_ending:
            raise ClosedError(f"the client is {'closed' if self._state is State.CLOSED else 'draining'}")

    def _check_loop(self) -> None:
        """Refuse another loop than that of the first use: nothing here would wake who waits on it."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one for each loop")

    def _move(self, to: State) -> None:
        self._state = moved(self._state, to)
        self._choose_way()

    @property
    def _retries(self) -> bool:
        """Whether a failed dial is followed by another."""
        return self._was_connected or self._settings.wait_for_ready

    def _leave_by(self) -> float | None:
        """Loop time by which what has no timeout of its own must have its connection; None for no limit."""
        assert self._loop is not None
        limit = self._settings.dial_timeout
        if limit is not None and self._link is None and not self._retries:
            limit += FIRST_DIAL_GRACE
        return None if limit is None else self._loop.time() + limit

    def _dial_if_needed(self) -> None:
        if self._link is None and self._dialing is None:
            assert self._loop is not None
            self._dialing = self._loop.create_task(self._dial(), name="sage_ws dial")

    async def _dial(self) -> None:
        """Dial until a connection is open, or until dialling on makes no sense: one dial at a time."""
        settings = self._settings
        if self._state is State.IDLE:
            self._attempt = 0
        try:
            if self._dialing is None:  # an eager task factory runs this before anybody knows of the dial
                await asyncio.sleep(0)
            while True:
                if self._state is State.WAITING:
                    await asyncio.sleep(self._backoff(self._attempt))
                    self._attempt += 1
                    if not self._was_connected and not self._turns.line:
                        self._move(State.IDLE)  # nobody waits for a first dial any more
                        return
                self._move(State.DIALING)
                self._counts["dials"] += 1
                try:
                    link = await dial(self._address, settings, self._make_link)
                except DialError as error:
                    self._dial_error = error
                    if self._is_ending or not self._retries or not can_heal(error):
                        self._give_up_dialing(error)
                        return
                    logger.info("dial to %s failed, another follows: %s", self._address, error)
                    self._move(State.WAITING)
                    continue
                if self._is_ending:  # a headers= of the caller's that swallowed our cancellation
                    link.cut(Loss("the client was closed"))
                    return
                if link.ended is None:
                    self._opened(link)
                    return
                if not settings.reconnect:
                    self._stay_closed(link.ended)
                    return
                self._dial_error = DialError(link.ended.text)
                self._was_connected = True
                self._move(State.WAITING)
        except Exception as error:  # noqa: BLE001 - a backoff= of the caller's that raises reaches its calls
            failed = DialError(f"dialling failed: {type(error).__name__}: {error}")
            failed.__cause__ = error
            self._give_up_dialing(failed)
        finally:
            self._dialing = None

    def _backoff(self, attempt: int) -> float:
        seconds = self._settings.backoff(attempt)
        if isnan(seconds):  # among the timers of a loop it would undo their order
            raise ValueError("backoff gave no number of seconds")
        return seconds

    def _give_up_dialing(self, error: DialError) -> None:
        logger.info("dial to %s failed: %s", self._address, error)
        if self._is_ending:
            return
        self._move(State.IDLE)
        self._was_connected = False
        self._turns.fail(error)

    def _make_link(self, agreement: Agreement, request: bytes) -> ClientLink:
        assert self._loop is not None
        settings = self._settings
        if self._handler is not None and self._workers is None:
            self._workers = Workers(
                self._handler, self._takes_call, settings.max_message_size, self._loop, copy_context()
            )
        return ClientLink(self, settings, self._loop, self._workers, agreement, request)

    def _opened(self, link: ClientLink) -> None:
        if self._was_connected:
            self._counts["reconnects"] += 1
            logger.info("connected to %s again", self._address)
        self._was_connected = True
        self._dial_error = None
        self._move(State.OPEN)
        self._link = link
        assert self._loop is not None
        self._opened_at = self._loop.time()
        self._changed()

    # ── places on the connection ──────────────────────────────────────────────────────────

    def _choose_way(self) -> None:
        """What nothing stands in the way of is asked by the link at once; all else goes by `_leave`."""
        link, turns = self._link, self._turns
        is_free = link is not None and self._state is _OPEN and not turns.line and not turns.granted
        is_free = is_free and link is not None and not link.has_waiting
        self._ask = link.asking if link is not None and is_free else _no_way
        if link is not None:
            link.connection.watched = self._watches_answers() or link.is_busy

    def _watches_answers(self) -> bool:
        """Whether answers make room for somebody, or end a drain: both want to hear of them."""
        return bool(self._turns.line) or self._state is State.DRAINING

    def _has_room(self, link: ClientLink) -> bool:
        return not link.blocked and link.connection.pending + self._turns.granted < self._settings.max_pending

    async def _turn(self, *, front: bool = False) -> None:
        """Wait in line for an open connection with room; on return there is a place for the caller."""
        if self._link is None and self._is_ending:
            raise ClosedError(f"the client is {'closed' if self._state is State.CLOSED else 'draining'}")
        self._dial_if_needed()
        self._ask = _no_way
        if self._link is not None:
            self._link.connection.watched = True
        try:
            await self._turns.wait(front=front)
        except asyncio.CancelledError:
            self._changed()
            raise

    def _release(self) -> None:
        """Grant places to those who wait, in order."""
        link, turns = self._link, self._turns
        while turns.line and link is not None and self._has_room(link):
            turns.grant()

    def _answers_came(self) -> None:
        """Answers made room, or the peer takes bytes again."""
        if self._turns.line or self._changes:
            self._changed()

    def _changed(self) -> None:
        """Something that a queued call, `drain` or `wait_closed` waits for may have happened."""
        self._release()
        self._choose_way()
        self._changes.tell()

    # ── moving to another connection ──────────────────────────────────────────────────────

    def _told_to_leave(self, link: ClientLink, reason: str) -> None:
        """The server will close this connection: leave it, now or when another is open beside it."""
        if link is not self._link or self._state is not State.OPEN or self._moving is not None:
            return
        why = f": {link.peers_text(reason)}" if reason else ""
        logger.info("%s is going away%s", self._address, why)
        if self._settings.reconnect and (link.connection.pending or link.unfinished):
            assert self._loop is not None
            self._moving = self._loop.create_task(self._move_from(link), name="sage_ws move")
            return
        self._replace(link, f"the server is going away{why}")
        self._part_with(link)

    def _replace(self, link: ClientLink, why: str) -> None:
        """Send no more on the open connection, and dial another, unless that is not wanted."""
        self._leave_link(link)
        if self._settings.reconnect:
            self._move(State.WAITING)
            self._dial_if_needed()
        else:
            self._stay_closed(Loss(why))

    def _closed_by_handler(self, link: ClientLink) -> None:
        """The client's handler closes the connection that its request came by."""
        if link is self._link and self._state is State.OPEN:
            self._replace(link, "the client's handler closed the connection")

    def _leave_link(self, link: ClientLink) -> None:
        """Send no more on a connection, and close it when nothing is under way there."""
        self._ending.add(link)
        if self._link is link:
            self._link = None
            self._prove(link)
        link.is_leaving = True
        link.watch_answers()

    async def _move_from(self, old: ClientLink) -> None:
        """Dial another connection; until it is open calls go on by the old one.

        Where none is to be had they wait for the next instead: else the clients of a lone server would keep
        it busy until its time to drain is over.
        """
        try:
            if self._moving is None:  # as in `_dial`
                await asyncio.sleep(0)
            attempt = 0
            while True:
                await asyncio.sleep(self._backoff(attempt))
                attempt += 1
                if self._link is not old:  # lost meanwhile: whoever was told of that dials
                    return
                self._counts["dials"] += 1
                try:
                    link = await dial(self._address, self._settings, self._make_link)
                except DialError as error:
                    logger.info("dial to %s failed: %s", self._address, error)
                    if not can_heal(error):
                        return
                    if attempt >= DIALS_TO_MOVE and self._link is old and not self._is_ending:
                        self._attempt = attempt
                        self._replace(old, "the server is going away")
                        self._part_with(old)
                        return
                    continue
                if self._link is not old or self._is_ending or link.ended is not None:
                    link.cut(Loss("this connection is not needed any more"))
                    return
                self._leave_link(old)
                self._opened(link)
                self._part_with(old)
                return
        except Exception:
            logger.exception("dialling another connection failed")
        finally:
            self._moving = None

    def _part_with(self, link: ClientLink) -> None:
        """Close a connection that was left, when nothing is under way on it any more."""
        if not link.connection.pending and not link.unfinished and link.ended is None:
            link.begin_close()

    # ── losing ────────────────────────────────────────────────────────────────────────────

    def _link_finished(self, link: ClientLink) -> None:
        """The last request that the server sent on a link has been answered."""
        if link.is_leaving:
            self._part_with(link)
        self._answers_came()

    def _link_ended(self, link: ClientLink, loss: Loss) -> None:
        """A link gives no more answers; its pending calls have been told."""
        self._ending.add(link)
        if link is self._link:
            self._link = None
            self._prove(link)
            self._lost(loss)
        self._changed()

    def _prove(self, link: ClientLink) -> None:
        """The next dial starts the backoff anew, if this connection was good for something."""
        assert self._loop is not None
        if link.counters()["answered"] or self._loop.time() >= self._opened_at + PROVEN:
            self._attempt = 0

    def _link_gone(self, link: ClientLink) -> None:
        """A link's socket is gone too."""
        self._ending.discard(link)
        for name, count in link.counters().items():
            self._totals[name] += count
        self._changed()

    def _lost(self, loss: Loss) -> None:
        """The open connection is gone: dial again, unless that is not wanted."""
        if self._state is State.CLOSED:
            return
        self._counts["lost"] += 1
        if self._state is State.DRAINING:
            self._turns.fail(ClosedError("the connection was lost while draining"))
            return
        if not self._settings.reconnect:
            self._stay_closed(loss)
            return
        logger.info("connection with %s ended: %s; dialling again", self._address, loss.text)
        self._move(State.WAITING)
        self._dial_if_needed()

    def _stay_closed(self, loss: Loss) -> None:
        """The one connection of ``reconnect=False`` is gone."""
        self._move(State.CLOSED)
        self._changed()
        self._turns.fail(ClosedError(f"{loss.text}, and reconnect is off"))


def _no_way(_message: SecureMessage) -> None:
    """In the place of `ClientLink.asking` where there is none."""
