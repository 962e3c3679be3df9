"""The parent of worker processes: starts them, replaces those that end, and ends them all when it is told to.

::

    the start   a fork for each; one that ends before it has served is a mistake, and ends them all
    serving     one that ends, for whatever reason, is replaced: at once, then after longer and longer waits
    signals     the first drains them all, a second one cuts that short, a third kills; SIGHUP reloads
    the end     what is left when the time is over is killed: no process outlives `Supervisor.run`

The parent has no event loop and no thread, so that a fork copies neither, and the hundredth worker starts as
the first one did. It waits in one place, for signals and for what its workers say.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from sage_ws.aio.lifeline import RELOAD, ParentEnd, WorkerEnd, lifeline
from sage_ws.aio.stopping import HANGUP, Signals
from sage_ws.logs import logger_of
from sage_ws.options import Seconds

logger = logger_of("server")

PROVEN = 10.0
"""Seconds after which a worker has proved itself: the next one starts at once again."""
LONGEST_WAIT = 30.0
"""Seconds between the end of a worker and the start of the next, at most."""
LEAVING = 10.0
"""Seconds beyond drain and close that a worker has to leave its lifespan; then it is killed."""


def restart_delay(failures: int) -> float:
    """Seconds until a worker is replaced.

    Args:
        failures: its forerunners in a row that ended before they had proved themselves.
    """
    return min(LONGEST_WAIT, 0.25 * 2.0 ** min(failures - 1, 10)) if failures else 0.0


@dataclass(slots=True)
class Worker:
    """A process that was started, and not waited for yet."""

    number: int
    pid: int
    lifeline: ParentEnd
    started: float

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"


class Supervisor:
    """Keeps worker processes running until it is signalled.

    Args:
        work: what a worker does, called with its end of the lifeline; returns the exit code.
        count: how many of them.
        where: what they serve, for the log.
        drain_time: seconds that a worker may take to drain and to close; None for no limit.
        close_time: seconds that it may take to close; None for no limit.
        reload: called for SIGHUP, before the workers are told to do the same; False where they are not to.
            None leaves that signal alone.
    """

    def __init__(
        self,
        work: Callable[[WorkerEnd], int],
        count: int,
        *,
        where: str,
        drain_time: Seconds,
        close_time: Seconds,
        reload: Callable[[], bool] | None = None,
    ) -> None:
        self._work = work
        self._reload = reload
        self._where = where
        self._times = (drain_time, close_time)
        self._workers: dict[int, Worker] = {}
        self._due = dict.fromkeys(range(1, count + 1), 0.0)
        self._failures = dict.fromkeys(self._due, 0)
        self._awaited = set(self._due)  # those that no worker has served as yet
        self._orders = 0
        self._deadline = math.inf
        self._error: OSError | None = None

    def run(self) -> None:
        """Supervise, until a signal and the end of all workers.

        Raises:
            ChildProcessError: a worker ended before it had served, or badly after it was told to end.
            OSError: there are no processes or descriptors left for a first worker.
            RuntimeError: called in another thread than the main one.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("several workers are run from the main thread: no other gets signals")
        with Signals(hangup=self._reload is not None) as signals:
            threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
            if threads:
                logger.warning("what these threads lock may stay locked in workers: %s", ", ".join(threads))
            try:
                self._start_due(signals)
                while self._workers or not self._orders:
                    self._wait(signals)
                    for worker in tuple(self._workers.values()):
                        self._look_after(worker)
                    self._start_due(signals)
            finally:  # nothing to do, but after an exception
                self._kill()
                for worker in self._workers.values():
                    os.waitpid(worker.pid, 0)
                    worker.lifeline.close()
        if self._error is not None:
            raise self._error

    # ── starting ──────────────────────────────────────────────────────────────────────

    def _start_due(self, signals: Signals) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            try:
                self._start(number, signals)
            except OSError as error:
                logger.error("worker %d could not be started: %s", number, error)  # noqa: TRY400 - says it all
                if number in self._awaited:
                    self._give_up(error)
                    return
                self._replace(number, lived=0.0)

    def _start(self, number: int, signals: Signals) -> None:
        ours, theirs = lifeline()
        _flush()  # else what is buffered would be written by both
        try:
            with signals.held_back():
                pid = os.fork()
                if pid == 0:
                    self._be_worker(ours, theirs, signals)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._workers[pid] = Worker(number, pid, ours, time.monotonic())
        logger.info("worker %d (pid %d) started", number, pid)

    def _be_worker(self, ours: ParentEnd, theirs: WorkerEnd, signals: Signals) -> NoReturn:
        """Go on as the worker, and never return into the parent's frames, of which this is a copy."""
        code = 1
        try:
            signals.forget()
            for end in (ours, *(worker.lifeline for worker in self._workers.values())):
                end.close()
            code = self._work(theirs)
            logging.shutdown()
            _flush()
        finally:
            os._exit(code)

    # ── serving ───────────────────────────────────────────────────────────────────────

    def _wait(self, signals: Signals) -> None:
        """Wait for a signal, a word or an end of a worker, or for something to be due."""
        until = min((self._deadline, *self._due.values())) - time.monotonic()
        with selectors.DefaultSelector() as selector:  # made anew: a fork copies none
            selector.register(signals, selectors.EVENT_READ)
            for worker in self._workers.values():
                if not worker.lifeline.ended:
                    selector.register(worker.lifeline, selectors.EVENT_READ)
            selector.select(None if until == math.inf else max(until, 0.0))
        for number in signals.take():
            if number == HANGUP:
                self._reload_all()
                continue
            if not self._orders:
                logger.info(
                    "signalled: draining %d workers; a second signal ends them at once", len(self._workers)
                )
            self._order()
        if time.monotonic() >= self._deadline:
            self._deadline = math.inf
            for worker in self._workers.values():
                logger.error(
                    "worker %d (pid %d) has not ended in time: killing it", worker.number, worker.pid
                )
            self._kill()

    def _reload_all(self) -> None:
        # Here first: a worker that is started later is a fork of this process.
        if self._reload is not None and self._reload():
            for worker in self._workers.values():
                worker.lifeline.order(RELOAD)

    def _look_after(self, worker: Worker) -> None:
        """Take what it has said, and whether it has ended."""
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        worker.lifeline.hear()
        if worker.lifeline.serving and worker.number in self._awaited:
            self._awaited.discard(worker.number)
            if not self._awaited:
                logger.info("%d workers are serving on %s", len(self._failures), self._where)
        if pid:
            del self._workers[pid]
            worker.lifeline.close()
            self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        early = worker.number in self._awaited
        how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
        cause = worker.lifeline.cause
        how += f"{' before it had served' if early else ''}{cause and ': '}{cause}"
        error = ChildProcessError(f"{worker} {how}")
        if self._orders and not code:
            logger.info("worker %d (pid %d) %s", worker.number, worker.pid, how)
        elif self._orders:
            logger.error("worker %d (pid %d) %s", worker.number, worker.pid, how)
            self._error = self._error or error
        elif early:
            logger.error("worker %d (pid %d) %s; the others are ended", worker.number, worker.pid, how)
            self._give_up(error)
        else:
            logger.warning("worker %d (pid %d) %s", worker.number, worker.pid, how)
            self._replace(worker.number, time.monotonic() - worker.started)

    def _replace(self, number: int, lived: float) -> None:
        failures = 0 if lived >= PROVEN else self._failures[number]
        delay = restart_delay(failures)
        self._failures[number] = failures + 1
        self._due[number] = time.monotonic() + delay
        if delay:
            logger.warning("worker %d starts again in %g s", number, delay)

    # ── ending ────────────────────────────────────────────────────────────────────────

    def _give_up(self, error: OSError) -> None:
        self._error = error
        self._order()

    def _order(self) -> None:
        """Tell all workers to drain; the second time, to cut that short; the third, their time is over."""
        self._orders += 1
        self._due.clear()
        if self._orders > len(self._times):
            self._deadline = 0.0
            return
        seconds = self._times[self._orders - 1]
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds + LEAVING
        for worker in self._workers.values():
            worker.lifeline.order()

    def _kill(self) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGKILL)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it
            stream.flush()
