"""The hub of a loop: who is asked when, and what one of them may do to the others. Its loop is the test's."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sage_ws.aio import hub as hub_module
from sage_ws.aio.hub import COARSE, FINE, SOON, Hub, hub_of


class Handle:
    """A timer of `Clock`."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """What a hub needs of a loop, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Handle] = []
        self.ready: list[Callable[[], None]] = []
        self.closed = False

    def time(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return self.closed

    def call_at(self, due: float, callback: Callable[[], None]) -> Handle:
        assert not self.closed
        self.timers.append(Handle(due, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    @property
    def armed(self) -> list[float]:
        return [timer.due for timer in self.timers if not timer.cancelled]

    def advance(self, to: float) -> None:
        """Run what is due until then, one timer after the other."""
        while due := [timer for timer in self.timers if not timer.cancelled and timer.due <= to]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.callback()
        self.now = to


class Beating:
    """One of those that are asked; keeps the times."""

    def __init__(self, clock: Clock, then: Callable[[], None] = lambda: None) -> None:
        self.clock, self.then = clock, then
        self.beats: list[float] = []

    def beat(self) -> None:
        self.beats.append(self.clock.now)
        self.then()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> Hub:
    return Hub(clock)  # type: ignore[arg-type]


def raising(error: type[BaseException]) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


class TestBuckets:
    def test_a_deadline_that_is_near_is_met_within_a_fine_bucket(self, hub: Hub, clock: Clock) -> None:
        one, due = Beating(clock), 1000.3001
        hub.arm(one, due)
        clock.advance(1001.0)
        assert due <= one.beats[0] <= due + 1 / FINE

    def test_one_that_is_far_is_asked_early(self, hub: Hub, clock: Clock) -> None:
        one, due = Beating(clock), 1000.0 + SOON + 2.3001
        hub.arm(one, due)
        clock.advance(due)
        assert due - 1 / COARSE <= one.beats[0] <= due

    def test_many_that_are_due_together_cost_one_timer(self, hub: Hub, clock: Clock) -> None:
        many = [Beating(clock) for _ in range(1000)]
        for number, one in enumerate(many):
            hub.arm(one, 1005.0 + number / 1_000_000)
        assert len(clock.armed) == 1
        clock.advance(1006.0)
        assert all(len(one.beats) == 1 for one in many)
        assert clock.armed == []

    def test_deadlines_that_a_peer_thinks_of_share_few_buckets(self, hub: Hub, clock: Clock) -> None:
        one = Beating(clock)
        for number in range(100_000):
            due = 1000.0 + SOON + number * 37.7
            hub.disarm(one, hub.arm(one, due))
        assert len(hub._buckets) < 3000
        last = hub.arm(one, 5000.0)
        assert 5000.0 - 32.0 <= last <= 5000.0
        clock.advance(1_000_000_000.0)
        assert len(one.beats) == 1
        assert not hub._buckets

    def test_an_earlier_one_moves_the_timer(self, hub: Hub, clock: Clock) -> None:
        late, early = Beating(clock), Beating(clock)
        hub.arm(late, 1000.5)
        hub.arm(early, 1000.25)
        assert clock.armed == [1000.25]
        clock.advance(1000.25)
        assert (early.beats, late.beats) == ([1000.25], [])
        assert clock.armed == [1000.5]

    def test_who_was_taken_out_is_not_asked(self, hub: Hub, clock: Clock) -> None:
        one, other = Beating(clock), Beating(clock)
        key = hub.arm(one, 1000.5)
        assert hub.arm(other, 1000.5) == key
        hub.disarm(one, key)
        hub.disarm(one, key)
        hub.disarm(one, 3.0)  # a bucket that is none
        clock.advance(1001.0)
        assert (one.beats, len(other.beats)) == ([], 1)

    def test_who_arms_again_is_asked_again(self, hub: Hub, clock: Clock) -> None:
        one = Beating(clock)

        def again() -> None:
            if len(one.beats) < 3:
                hub.arm(one, clock.now + 0.25)

        one.then = again
        hub.arm(one, 1000.25)
        clock.advance(1002.0)
        assert one.beats == [1000.25, 1000.5, 1000.75]
        assert clock.armed == []

    def test_one_who_arms_for_the_past_while_asked_is_not_forgotten(self, hub: Hub, clock: Clock) -> None:
        late = Beating(clock)
        first = Beating(clock)

        def arm_late() -> None:
            hub.arm(late, 1000.25)

        first.then = arm_late
        hub.arm(first, 1000.5)
        clock.advance(1001.0)
        assert len(first.beats) == 1
        assert len(late.beats) == 1

    def test_one_may_take_another_out_while_asked(self, hub: Hub, clock: Clock) -> None:
        pair = [Beating(clock), Beating(clock)]
        for at, one in enumerate(pair):
            hub.arm(one, 1000.5)
            one.then = lambda other=pair[1 - at]: hub.disarm(other, 1000.5)  # type: ignore[misc]
        clock.advance(1001.0)
        assert sorted(len(one.beats) for one in pair) == [0, 1]


class TestErrors:
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_one_that_raises_does_not_cost_the_others_their_turn(
        self, hub: Hub, clock: Clock, error: type[BaseException]
    ) -> None:
        others = [Beating(clock) for _ in range(8)]
        for one in (*others[:4], Beating(clock, raising(error)), *others[4:]):
            hub.arm(one, 1000.5)
        hub.arm(others[0], 1000.75)
        with pytest.raises(error):
            clock.advance(1001.0)
        clock.advance(1001.0)
        assert [len(one.beats) for one in others] == [2, *[1] * 7]
        assert clock.armed == []

    def test_on_a_closed_loop_nothing_is_armed(self, hub: Hub, clock: Clock) -> None:
        one = Beating(clock)
        clock.closed = True
        key = hub.arm(one, 1000.5)
        hub.disarm(one, key)
        assert clock.timers == []


class TestStayingAwake:
    def test_it_polls_until_its_time_is_out_and_no_longer(
        self, hub: Hub, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        time = [50.0]
        monkeypatch.setattr(hub_module, "monotonic", lambda: time[0])
        hub.stay_awake(1.0)
        hub.stay_awake(0.5)  # the longest counts, and one turn of the loop is asked for
        for time[0] in (50.0, 50.5, 50.9):
            assert len(clock.ready) == 1
            clock.ready.pop()()
        time[0] = 51.0
        clock.ready.pop()()
        assert clock.ready == []
        hub.stay_awake(1.0)
        assert len(clock.ready) == 1


class TestOfALoop:
    async def test_a_loop_has_one_and_lets_it_go_with_its_last_link(self) -> None:
        loop = asyncio.get_running_loop()
        hub = hub_of(loop)
        assert hub_of(loop) is hub
        gone = weakref.ref(hub)
        del hub
        gc.collect()
        assert gone() is None

    async def test_a_forked_child_gets_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        hub = hub_of(loop)
        pid = hub._pid
        monkeypatch.setattr("os.getpid", lambda: pid + 1)
        assert hub_of(loop) is not hub

    async def test_in_a_forked_child_the_loop_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        removed: list[int] = []
        loop = asyncio.get_running_loop()
        hub = hub_of(loop)
        if hub.poller() is None:
            pytest.skip("this core has no poller")
        pid = hub._pid
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: pid + 1)
            patch.setattr(loop, "remove_reader", removed.append)
            hub.socket_closed()
        assert removed == []
        hub.socket_closed()

    async def test_a_loop_without_readiness_has_no_epoll(self, clock: Any) -> None:
        class Proactor(Clock):
            def add_reader(self, *_: object) -> None:
                raise NotImplementedError

        hub = Hub(Proactor())  # type: ignore[arg-type]
        assert hub.poller() is None
        hub.socket_closed()
