"""One open connection on the loop: socket bytes in, values to its owner, frames out.

The seam between the sans-I/O core and asyncio. A `Link` owns the transport after the opening handshake:
each read goes into the core in one call and comes back as values for `_take`; what the core has queued
leaves by `flush`, at once when the connection is quiet and every `FLUSH_AT` bytes while a batch is worked
through. What can come due, silence, a peer that does not take our bytes, calls whose time ran out, is
watched by `beat`, for which the link stands in the hub at the earliest of them. Roles differ in `_take`,
`_ended` and `_unblocked`: see `aio/calls.py` and `aio/serving.py`.

`start` is the one place that chooses between two ways to the socket: the loop's transport, which calls
`data_received`, and the direct one (`aio/direct.py`), where the native core reads and `values_received` is
called with what that gave.

Over 500 lines: what a link watches, in, out and in time, shares one state.
"""

from __future__ import annotations

import asyncio
import os
from math import ceil, inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sage_ws._core import Connection, has_poller
from sage_ws._core.events import Closing, Pong, Undecodable
from sage_ws.aio.direct import DirectTransport, take_over
from sage_ws.aio.forked import let_go
from sage_ws.aio.hub import hub_of
from sage_ws.errors import peer_text
from sage_ws.logs import logger_of
from sage_ws.options import CommonSettings

if TYPE_CHECKING:
    from sage_ws._core import Socket

logger = logger_of("link")

FLUSH_AT = 8 * 1024
"""Bytes of output at which a batch is written before it is finished: flushed only at its end, client and
server run in lockstep."""


LINGER = 1.0
"""Seconds that a peer has to read the close frame of a connection that failed."""
UNLIMITED = 1e8
"""Seconds for limits of the loop's own that cannot be switched off."""
LAX = 16
"""Moments of a second at which what may be a little late is looked at: many links at once, in one wake-up."""


_LOST = "the connection was lost"
VARIABLE = "SAGE_WS_LINK"
"""Environment variable that stands for ``link="auto"``."""


def wants_direct(settings: CommonSettings) -> bool:
    """Whether a connection shall take its socket over from the loop's transport, where that can be done.

    Raises:
        ValueError: ``link="direct"``, and no connection could; or the variable has no such value.
    """
    wanted = settings.link if settings.link != "auto" else os.environ.get(VARIABLE) or "auto"
    if wanted not in {"auto", "direct", "loop"}:
        raise ValueError(f"{VARIABLE} must be auto, direct or loop, not {wanted!r}")
    if wanted == "direct" and not has_poller:
        raise ValueError("link='direct' needs the native core, and Linux")
    return wanted != "loop" and has_poller


class Loss(NamedTuple):
    """Why a link ended.

    Attributes:
        text: for an error's text.
        code: the close code that the peer sent, None where there was none.
        reason: its reason.
        stalled: the peer did not take our bytes for ``write_timeout``.
        by_peer: its close frame came.
    """

    text: str
    code: int | None = None
    reason: str = ""
    stalled: bool = False
    by_peer: bool = False


class Link(asyncio.Protocol):
    """A connection after its opening handshake.

    Args:
        connection: the core's end, which holds all protocol state.
        settings: the owner's options.
        loop: the running loop.
    """

    __slots__ = (
        "_batch_flush",
        "_blocked",
        "_close_by",
        "_closed",
        "_due",
        "_ended_by",
        "_failed",
        "_gone",
        "_hub",
        "_keepalive_due",
        "_last_ping",
        "_last_received",
        "_loop",
        "_pings",
        "_reading",
        "_sent_seen",
        "_settings",
        "_stalled_since",
        "_taken",
        "_time",
        "_transport",
        "connection",
        "socket",
    )

    def __init__(
        self, connection: Connection, settings: CommonSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.connection = connection
        self._settings = settings
        self._loop = loop
        self._hub = hub_of(loop)
        self._time = self._hub.time  # one bound method for all
        self._transport = cast("asyncio.Transport | DirectTransport", None)
        self.socket: Socket | None = None
        self._closed: asyncio.Future[None] | None = None
        self._ended_by: Loss | None = None
        self._close_by: float | None = None
        self._failed = False
        self._gone = False
        self._blocked = False
        self._reading = True
        self._batch_flush = False
        self._due = inf
        self._last_received = self._last_ping = loop.time()
        self._keepalive_due = self._last_received + (settings.keepalive_interval or inf) / 2
        self._sent_seen = 0
        self._stalled_since = 0.0
        self._taken = 0
        self._pings: dict[bytes, asyncio.Future[float]] | None = None

    # ── life ──────────────────────────────────────────────────────────────────────────

    def start(self, transport: asyncio.Transport, received: bytes, greeting: bytes = b"") -> None:
        """Take over the transport from the opening handshake, or its socket alone.

        Args:
            transport: the loop's.
            received: what came in behind the opening handshake.
            greeting: what goes out first: its answer.
        """
        direct = None
        if wants_direct(self._settings):
            direct = take_over(self, self.connection, transport, greeting, self._hub)
        if direct is not None:
            self._transport = direct
            self.socket = direct.socket
            self.socket.busy_poll = self._settings.busy_poll is not None
        else:
            self._transport = transport
            if greeting:
                transport.write(greeting)
            # Told of every byte that the kernel does not take at once: what waits is kept in the core, where
            # it is counted and bounded, and is written in one piece when the peer reads again. Not 0: TLS
            # takes a size that equals the mark as over it, and would stay paused with nothing to send.
            transport.set_write_buffer_limits(high=1, low=0)
            transport.set_protocol(self)
        self.beat()
        if received:
            self.data_received(received)

    @property
    def ended(self) -> Loss | None:
        """Why no more values come from this link; None while they do."""
        return self._ended_by

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._ended_by is not None or self.connection.closing

    @property
    def was_closed(self) -> bool:
        """Whether it ended in order: the peer's close frame came."""
        return self._ended_by is not None and self._ended_by.by_peer

    def begin_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and wait for the peer's, `close_timeout` at most, then cut (RFC 6455 §7.1.2)."""
        if self._close_by is None:
            if not self._transport.is_closing():
                self.connection.send_close(code, reason)
                self.flush()
                self.resume_reading()
            self._await_end()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if self._gone:
                self._closed.set_result(None)
        await asyncio.shield(self._closed)

    def cut(self, loss: Loss) -> None:
        """Drop the connection without waiting for anybody."""
        self._end(loss)
        self._transport.abort()

    @property
    def is_of_this_process(self) -> bool:
        """Whether no fork lies between its opening and now."""
        return self._hub.is_of_this_process

    def abandon(self) -> None:
        """In a forked child: leave the connection to the parent; neither it nor the peer notices."""
        if self._ended_by is None:
            self._ended_by = Loss("this connection belongs to the process that was forked")
        if self.socket is None:
            let_go(cast("asyncio.Transport", self._transport).get_extra_info("socket"))
        elif not self.socket.closed:
            self.socket.close()

    def fail(self, code: int, text: str) -> None:
        """End the connection for a peer that is not there any more: our close frame goes out if it can."""
        logger.info("connection with %s given up: %s", self._peer_name(), text)
        self._end(Loss(text))
        self.connection.send_close(code, text)
        self.flush()
        if self._blocked:
            self._transport.abort()
        else:
            self._transport.close()  # TLS waits for the peer's goodbye
            self._await_end()

    def _await_end(self, limit: float = inf) -> None:
        """Cut the connection if its end takes longer than ``close_timeout``, or ``limit`` seconds."""
        timeout = self._settings.close_timeout
        close_by = self._time() + min(limit, inf if timeout is None else timeout)
        if self._close_by is None or close_by < self._close_by:
            self._close_by = close_by
            self.arm(close_by)

    def _end(self, loss: Loss) -> None:
        if self._ended_by is None:
            self._ended_by = loss
            self._ended(loss)

    # ── in ────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """One read of the socket: through the core in one call, values to the owner, replies out."""
        self._last_received = self._time()
        if self._settings.busy_poll is not None:
            self.stay_awake()
        connection = self.connection
        values = connection.receive_data(data)
        if values:
            self._take(values)
        if connection.buffered:
            self.flush()
            if self._blocked:
                self._read_unheard()

    def values_received(self, values: list[Any] | None) -> None:
        """What the native core has not dealt with, of one read: no answers, and seldom requests.

        While the connection is ``watched`` it is called for each read, with all requests.
        """
        self._take(values)
        if self._blocked:
            self._read_unheard()

    def _read_unheard(self) -> None:
        """Something was read from a peer that does not read what it is told."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """The peer says nothing more: the transport closes itself, once the peer has taken what is unsent.

        Which it may never do, so that has its time.
        """
        self._end(Loss(_LOST))
        self._await_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        text = _LOST if exc is None else f"{_LOST}: {exc}"
        self._end(Loss(text))
        self._gone = True
        self._blocked = True  # what is queued still has nowhere to go: uvloop's transport would raise
        if self._due < inf:
            self._hub.disarm(self, self._due)
            self._due = inf
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        if self._pings:
            for waiter in self._pings.values():
                if not waiter.done():
                    waiter.set_exception(ConnectionError(text))
            self._pings.clear()

    def stay_awake(self) -> None:
        """There is traffic, and ``busy_poll`` is set."""
        self._hub.stay_awake(self._settings.busy_poll or 0.0)

    def _heard(self) -> float:
        """Loop time at which the peer gave its last sign of life."""
        if self.socket is None:
            return self._last_received
        return max(self._last_received, self.socket.last_received)

    def pause_reading(self) -> None:
        """Stop reading, and with it the watch for silence."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            if self._settings.ping_interval is not None:
                self.arm(self._time() + self._settings.ping_interval / 2)

    def resume_reading(self) -> None:
        """Read again; silence counts from now."""
        if not self._reading:
            self._reading = True
            self._last_received = self._last_ping = self._time()
            if not self._transport.is_closing():
                self._transport.resume_reading()
            self.arm(self._last_received)

    def _take(self, values: list[Any] | None) -> None:
        """Values of one read, for the owner; what is neither message nor answer goes to `_event`."""
        raise NotImplementedError

    def _event(self, event: object) -> None:
        """What is no message and no answer: cold, both roles."""
        if isinstance(event, Pong):
            waiter = self._pings.pop(event.payload, None) if self._pings else None
            if waiter is not None and not waiter.done():
                waiter.set_result(perf_counter())  # the loop's time is cached, by uvloop to the millisecond
        elif isinstance(event, Undecodable):
            logger.warning("undecodable message from %s: %s", self._peer_name(), event.error)
        elif isinstance(event, Closing):
            self._closing(event)

    def _closing(self, event: Closing) -> None:
        if event.by_peer:
            shown = f" {self.peers_text(event.reason)}" if event.reason else ""
            text = f"the peer closed the connection ({event.code}){shown}"
            self._end(Loss(text, event.code, event.reason, by_peer=True))
        else:
            logger.warning(
                "connection with %s failed with %s: %s", self._peer_name(), event.code, event.reason
            )
            self._end(Loss(f"the connection failed with {event.code}: {event.reason}"))
        self.flush()
        if event.by_peer and self._closes_first():
            self._transport.close()  # once the peer has taken what is unsent, or its time is out
            self._await_end()
            return
        # The peer closes the socket, or still writes what it had under way: a close of ours now could
        # answer that with a reset and lose our close frame. So read on, bounded by close_timeout.
        self._failed = not event.by_peer
        self._write_eof()
        # A peer that broke the rules is not owed the time of an orderly end, only that of reading why.
        self._await_end(inf if event.by_peer or self._blocked else LINGER)

    def _write_eof(self) -> None:
        """Behind the close frame of a connection that failed nothing follows."""
        if self._failed and not self._blocked and self._transport.can_write_eof():
            self._transport.write_eof()

    def peers_text(self, text: str) -> str:
        """Text of the peer as it may stand in an error or a log line."""
        return peer_text(text)

    def _peer_name(self) -> str:
        """The peer's address, for a log line, where the role knows it."""
        return "the peer"

    def _closes_first(self) -> bool:
        """Whether this role shuts the socket when both close frames have passed (RFC 6455 §7.1.1)."""
        raise NotImplementedError

    def _ended(self, loss: Loss) -> None:
        """No more values will come: called once."""
        raise NotImplementedError

    # ── out ───────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write what the core has queued, unless the socket takes nothing now."""
        if self._blocked:
            return
        if self.socket is not None:
            self.socket.flush()
            return
        data = self.connection.data_to_send()
        if data:
            cast("asyncio.Transport", self._transport).write(data)

    def flush_soon(self) -> None:
        """Flush when the callbacks that are ready now have run: one write for their batch."""
        if self.socket is not None:
            self.socket.flush_soon()
        elif not self._batch_flush:
            self._batch_flush = True
            self._loop.call_soon(self._flush_batch)

    def _flush_batch(self) -> None:
        self._batch_flush = False
        self.flush()

    @property
    def blocked(self) -> bool:
        """Whether the peer does not take our bytes at the moment."""
        return self._blocked

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken."""
        return int(self.connection.buffered + self._transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        """The socket refused bytes: from here on they wait in the core."""
        self._blocked = True
        self.connection.set_blocked(True)
        self._stalled_since = self._time()
        self._taken = self.connection.bytes_out - self._transport.get_write_buffer_size()
        self.arm(self._watch_writing(self._stalled_since))

    def resume_writing(self) -> None:
        """The socket took everything: what waited follows in one piece."""
        self._blocked = False
        self.connection.set_blocked(False)
        self.flush()
        self._write_eof()
        if not self._blocked:
            self._unblocked()

    def _unblocked(self) -> None:
        """The peer takes bytes again."""
        raise NotImplementedError

    async def ping(self, payload: bytes) -> float:
        """Send a ping and wait for its pong (RFC 6455 §5.5.2).

        Returns:
            `time.perf_counter` at which the pong came.

        Raises:
            ConnectionError: the connection ended first.
        """
        waiter = self._loop.create_future()
        self._pings = self._pings if self._pings is not None else {}
        self._pings[payload] = waiter
        self.connection.send_ping(payload)
        self.flush()
        try:
            return cast("float", await waiter)
        finally:
            self._pings.pop(payload, None)

    # ── time ──────────────────────────────────────────────────────────────────────────

    def arm(self, due: float) -> None:
        """See to it that `beat` is called at loop time ``due`` or before."""
        if due < self._due and not self._gone:
            if self._due < inf:
                self._hub.disarm(self, self._due)
            self._due = self._hub.arm(self, due)
            if self.socket is not None:
                self.socket.due = self._due

    def beat(self) -> None:
        """Look at everything that can come due, then arm for the next."""
        now = self._time()
        self._due = inf
        if self.socket is not None:
            self.socket.due = inf
        if self._close_by is not None and now >= self._close_by:
            self._transport.abort()
            return
        due = inf if self._close_by is None else self._close_by
        for watch in (self._watch_calls, self._watch_writing):
            if self._ended_by is None:
                due = min(due, watch(now))
        lax = inf
        for watch in (self._watch_silence, self._watch_pings, self._watch_keepalive):
            if self._ended_by is None:
                lax = min(lax, watch(now))
        if lax < due:
            due = min(due, ceil(lax * LAX) / LAX)
        if due < inf:
            self.arm(due)

    def _watch_calls(self, now: float) -> float:
        """End the calls whose time ran out: the client's. Like all watches, says when to look again."""
        return inf

    def _watch_writing(self, now: float) -> float:
        timeout = self._settings.write_timeout
        if not self._blocked:
            return inf
        taken = self.connection.bytes_out - self._transport.get_write_buffer_size()
        if taken != self._taken:
            # a peer that takes bytes lives, though our pings wait behind them
            self._taken, self._stalled_since, self._last_received = taken, now, now
        if timeout is None:
            return inf
        if now >= self._stalled_since + timeout:
            text = f"the peer took no bytes for {timeout:g} s"
            logger.info("connection with %s given up: %s", self._peer_name(), text)
            self.cut(Loss(text, stalled=True))
        return min(self._stalled_since + timeout, now + timeout / 4)

    def _watch_silence(self, now: float) -> float:
        """Only a server calls silence death; a client's ``read_timeout`` is each call's own."""
        return inf

    def _watch_pings(self, now: float) -> float:
        interval, timeout = self._settings.ping_interval, self._settings.ping_timeout
        if interval is None:
            return inf
        if not self._reading:
            return self._give_sign_of_life(now, interval / 2)
        # Any byte is life: a peer that sends a long message cannot put a pong in the middle of a frame.
        heard = self._heard()
        if timeout is not None and self._last_ping > heard:
            if now >= self._last_ping + timeout:
                self.fail(1011, "ping timeout")
            return self._last_ping + timeout
        due = max(heard, self._last_ping) + interval
        if now < due:
            return due
        self._last_ping = now
        self.connection.send_ping(b"")
        self.flush()
        return now + (interval if timeout is None else min(interval, timeout))

    def _give_sign_of_life(self, now: float, interval: float) -> float:
        """Ping though no pong will be read: the peer's own pings are not answered while reading is paused."""
        if now < self._last_ping + interval:
            return self._last_ping + interval
        self._last_ping = now
        if not self._blocked:  # else what it has not taken yet says the same
            self.connection.send_ping(b"")
            self.flush()
        return now + interval

    def _watch_keepalive(self, now: float) -> float:
        # Go peers put a deadline on each message that they read, and pings do not extend it (wire.md).
        interval = self._settings.keepalive_interval
        if interval is None:
            return inf
        if now >= self._keepalive_due:
            sent = self.connection.counters()["sent"]
            if sent == self._sent_seen and self.connection.spoken:
                self.connection.send_keepalive()
                self.flush()
            self._sent_seen = sent
            self._keepalive_due = now + interval / 2
        return self._keepalive_due
