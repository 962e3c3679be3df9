"""What ends a server: words from several sides, and signals where there is no loop."""

from __future__ import annotations

import selectors
import signal
import sys

import pytest

from sage_ws.aio.stopping import Signals, Stop


async def test_the_first_word_drains_and_a_second_from_the_same_side_cuts() -> None:
    stop = Stop()
    hear = stop.side()
    assert not stop.drain.is_set()
    hear()
    assert (stop.drain.is_set(), stop.cut.is_set()) == (True, False)
    hear()
    assert stop.cut.is_set()


async def test_an_echo_from_another_side_is_no_second_word() -> None:
    stop = Stop()
    terminal, parent = stop.side(), stop.side()
    terminal()
    parent()
    assert not stop.cut.is_set()
    parent()
    assert stop.cut.is_set()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
class TestSignals:
    def test_they_wake_a_selector_and_are_counted(self) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = [signal.getsignal(number) for number in numbers]
        with Signals(hangup=True) as signals, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            assert (selector.select(0), signals.take()) == ([], [])
            for number in numbers:
                signal.raise_signal(number)
            assert selector.select(10)
            assert (sorted(signals.take()), signals.take()) == (sorted(numbers[:3]), [])
        assert [signal.getsignal(number) for number in numbers] == before
        assert signal.set_wakeup_fd(-1) == -1

    def test_held_back_they_come_later(self) -> None:
        with Signals(hangup=False) as signals:
            with signals.held_back():
                signal.raise_signal(signal.SIGTERM)  # to this thread, whatever others this process has
                assert signals.take() == []
            assert signals.take() == [signal.SIGTERM]

    def test_a_hangup_is_left_alone_unless_it_is_wanted(self) -> None:
        before = signal.getsignal(signal.SIGHUP)
        with Signals(hangup=False):
            assert signal.getsignal(signal.SIGHUP) == before
