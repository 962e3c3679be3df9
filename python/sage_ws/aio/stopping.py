"""When a process is to end: one word drains its server, a second one from the same side cuts that short.

A server hears from signals, and one of several worker processes from its parent too. Ctrl-C in a terminal and
a stop by systemd reach the whole group: a worker gets the signal, and its parent's word about it. Each side
is counted for itself, so that the echo is no second word.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Self

ENDING = (signal.SIGTERM, signal.SIGINT)
"""What ends a server."""
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""What has one load its certificate again, where it has one in files; else it ends the process, unheard."""
HELD_BACK = (*ENDING, signal.SIGHUP) if HANGUP is not None else ENDING
"""What must not reach a process that does not hear it yet."""


class Stop:
    """What a serving process waits for.

    Attributes:
        drain: set by the first word of any side.
        cut: set by a second word of one side.
    """

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.cut = asyncio.Event()

    def side(self) -> Callable[[], None]:
        """One more side to hear from: to be called for each of its words."""
        heard = False

        def hear() -> None:
            nonlocal heard
            (self.cut if heard else self.drain).set()
            heard = True

        return hear


def hear_signals(loop: asyncio.AbstractEventLoop, hear: Callable[[], None]) -> None:
    """Call ``hear`` in the loop for each signal that ends a server."""
    for number in ENDING:
        try:
            loop.add_signal_handler(number, hear)
        except NotImplementedError:  # Windows: Ctrl-C arrives by the signal module alone
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(hear))


def hear_hangup(loop: asyncio.AbstractEventLoop, hear: Callable[[], object]) -> None:
    """Call ``hear`` in the loop for each SIGHUP, where there is such a signal."""
    if HANGUP is not None:
        loop.add_signal_handler(HANGUP, hear)


class Signals:
    """The signals of a process without a loop, for a selector to wait for, while it is entered.

    Args:
        hangup: whether SIGHUP is one of them.
    """

    def __init__(self, *, hangup: bool) -> None:
        # Only a signal with a handler in Python is written there. SIGCHLD: a worker has ended.
        self._numbers = (*(HELD_BACK if hangup else ENDING), signal.SIGCHLD)

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._former_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former_handlers = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore(self._former_descriptor)

    def fileno(self) -> int:
        """For a selector."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The signals that have come, but for those of a child's end."""
        try:
            return [number for number in self._reader.recv(4096) if number != signal.SIGCHLD]
        except BlockingIOError:
            return []

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Let none of `HELD_BACK` through: a child without handlers yet would die, or wake the parent."""
        former = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def forget(self) -> None:
        """In a child: leave them to the parent. They stay held back."""
        self._restore(-1)

    def _restore(self, descriptor: int) -> None:
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
        self._reader.close()
        self._writer.close()
