"""What all links of one loop share: one timer, one epoll for those that are direct, and busy polling.

A timer for each link would be an object and a heap entry for each, and 10,000 idle connections would wake the
loop at 10,000 moments. Here a link stands in one *bucket*, with all that come due in the same instant,
and the loop holds a single timer for the earliest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, floor, frexp
from time import monotonic
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from sage_ws._core import Poller, has_poller

FINE: Final = 512
"""Buckets of a second that begins soon: a deadline is met within 2 ms."""
COARSE: Final = 64
"""Buckets of a second that is further away; who stands there is asked early, and moves to a fine one."""
FAR: Final = 64.0
"""Seconds from which on there are no more of them from each power of two to the next."""
LOOKS: Final = 16
"""Looks at the sockets in one turn of the loop that polls: some microseconds, then others have their turn."""
SOON: Final = 1.0
"""Seconds from which on the coarse buckets are used."""


class Timed(Protocol):
    """Who stands in a bucket."""

    def beat(self) -> None:
        """It may be due: look, and arm again."""
        ...


class Hub:
    """See the module; `hub_of` finds the one of a loop.

    Args:
        loop: the loop whose links share it.
    """

    __slots__ = (
        "__weakref__",
        "_awake_until",
        "_buckets",
        "_keys",
        "_pid",
        "_poller",
        "_spinning",
        "_timer",
        "_watched",
        "loop",
        "time",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.time = loop.time
        self._pid = os.getpid()
        self._buckets: dict[float, set[Timed]] = {}
        self._keys: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        self._poller: Poller | None = None
        self._watched = False
        self._awake_until = 0.0
        self._spinning = False

    @property
    def is_of_this_process(self) -> bool:
        """Whether no fork lies between it and now: a child must leave its parent's epoll alone."""
        return self._pid == os.getpid()

    # ── time ──────────────────────────────────────────────────────────────────────────

    def arm(self, one: Timed, due: float) -> float:
        """Have ``one`` asked at loop time ``due``, or before.

        Returns:
            Its bucket, for `disarm`.
        """
        away = due - self.loop.time()
        if away > SOON:
            # the further the coarser: however many deadlines a peer thinks of, there are few buckets
            width = 1 / COARSE if away < FAR else 2.0 ** frexp(away)[1] / (2 * FAR)
            key = floor(due / width) * width
        else:
            key = ceil(due * FINE) / FINE
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = set()
            heappush(self._keys, key)
            if self._keys[0] == key:
                self._schedule()
        bucket.add(one)
        return key

    def disarm(self, one: Timed, key: float) -> None:
        """Take ``one`` out of its bucket."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.discard(one)

    def _schedule(self) -> None:
        """Arm the loop's timer for the earliest bucket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._keys and not self.loop.is_closed():
            self._timer = self.loop.call_at(self._keys[0], self._fire)

    def _fire(self) -> None:
        """Ask those whose bucket has come; who is asked arms again."""
        self._timer = None
        now, keys, buckets = self.loop.time(), self._keys, self._buckets
        try:
            while keys and keys[0] <= now:
                bucket = buckets[keys[0]]
                if bucket:
                    bucket.pop().beat()  # may arm for an earlier bucket, which comes first then
                else:
                    del buckets[heappop(keys)]
        finally:  # whatever one of them raised, the others are asked
            while keys and not buckets[keys[0]]:
                del buckets[heappop(keys)]
            self._schedule()

    # ── the direct link ───────────────────────────────────────────────────────────────

    def poller(self) -> Poller | None:
        """The loop's epoll; None where there can be none: no native core, another system, another loop."""
        if self._poller is None and has_poller:
            self._poller = Poller(self.loop)
        if self._poller is not None and not self._watched:
            try:
                self.loop.add_reader(self._poller.fileno(), self._poller.poll)
            except NotImplementedError:  # a loop that waits for completions, not for readiness
                return None
            self._watched = True
        return self._poller

    def socket_closed(self) -> None:
        """A direct socket is gone; with the last one the loop lets go of the epoll."""
        if self._watched and self._poller is not None and not len(self._poller):
            self._watched = False
            if self.is_of_this_process and not self.loop.is_closed():
                self.loop.remove_reader(self._poller.fileno())

    def wake(self, future: asyncio.Future[None]) -> None:
        """Wake whoever awaits it, now if no task is running and there is a way."""
        if self._poller is not None:
            self._poller.wake(future)
        else:
            future.set_result(None)

    def call_later(self, callback: Callable[[], Any]) -> None:
        """Call back when the batch at hand is worked through, or in the loop's next round."""
        if self._poller is None:
            self.loop.call_soon(callback)
        else:
            self._poller.call_later(callback)

    # ── busy polling ──────────────────────────────────────────────────────────────────

    def stay_awake(self, seconds: float) -> None:
        """Keep polling for so long from now: there was traffic on a link that asked for it.

        The processor does not fall asleep, and need not be woken by the next message, which is most of what a
        lone message costs. Every turn of the loop runs whatever else is ready, so that nobody starves.
        """
        self._awake_until = max(self._awake_until, monotonic() + seconds)
        if not self._spinning:
            self._spinning = True
            self.loop.call_soon(self._spin)

    def _spin(self) -> None:
        if monotonic() >= self._awake_until:
            self._spinning = False
            return
        self.loop.call_soon(self._spin)
        if self._poller is not None:
            self._poller.poll(LOOKS)


_HUBS: WeakValueDictionary[int, Hub] = WeakValueDictionary()


def hub_of(loop: asyncio.AbstractEventLoop) -> Hub:
    """The hub of a loop, which lives as long as a link has it."""
    hub = _HUBS.get(id(loop))
    if hub is None or hub.loop is not loop or not hub.is_of_this_process:
        hub = _HUBS[id(loop)] = Hub(loop)
    return hub
