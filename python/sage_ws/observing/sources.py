"""The servers and clients whose ``stats()`` are shown, and their sums by name.

Read by whoever collects metrics, in a thread of its own as a rule. ``stats()`` belongs to the loop of its
server or client: so the loop is asked, and one that does not answer, for a handler blocks it, has its last
numbers shown.

None is kept alive by being watched. What an ended one has counted stays in the sum of its name, which
therefore never falls: a falling counter is taken for a process that has started anew.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from sage_ws.aio.client import Client
from sage_ws.aio.server import Server
from sage_ws.aio.state import State
from sage_ws.observing.numbers import GAUGES, Kind

PATIENCE: Final = 1.0
"""Seconds that a loop has for its numbers."""
_Look: TypeAlias = tuple[Mapping[str, float], str | None]


@dataclass
class Reading:
    """What all that is watched has counted.

    Attributes:
        sums: for each kind and name the numbers by their key in ``stats()``.
        states: for each kind, name and state how many are in it.
    """

    sums: dict[tuple[Kind, str], dict[str, float]]
    states: dict[tuple[Kind, str, str], int]


@dataclass
class _Watched:
    kind: Kind
    name: str
    source: weakref.ref[Server | Client]
    loop: asyncio.AbstractEventLoop
    thread: int = field(default_factory=threading.get_ident)
    process: int = field(default_factory=os.getpid)
    numbers: Mapping[str, float] = field(default_factory=dict)
    state: str | None = None

    def look(self) -> _Look | None:
        """Its numbers and its state now; None where it is gone."""
        source = self.source()
        if source is None:
            return None
        return source.stats(), state_of(source)


_Answer: TypeAlias = Future[list[tuple[_Watched, _Look]]]


class Watch:
    """One server or client that is watched, until this is closed or it is collected; a context manager."""

    def __init__(self, sources: Sources, key: int, watched: _Watched) -> None:
        self._sources = sources
        self._key = key
        self._watched = watched

    def close(self) -> None:
        """Watch it no more; idempotent. What it has counted until now stays in the sum of its name."""
        self._sources._forget(self._key, self._watched)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Sources:
    """All that is watched."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collector of garbage may run a close() within
        self._watched: dict[int, _Watched] = {}
        self._ended: dict[tuple[Kind, str], defaultdict[str, float]] = {}
        self._sweep_at = 64

    def watch(self, source: Server | Client, name: str) -> Watch:
        """Show a server or a client, from now on.

        Raises:
            TypeError: it is neither, or the name is no str.
            ValueError: it is watched already.
            RuntimeError: called outside of the event loop that it belongs to.
        """
        kind = kind_of(source)
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        watched = _Watched(kind, name, weakref.ref(source), asyncio.get_running_loop())
        watched.numbers, watched.state = source.stats(), state_of(source)
        with self._lock:
            before = self._watched.get(id(source))
            if before is not None:
                if before.source() is source:
                    raise ValueError(f"this {kind} is watched already")
                self._end(id(source))
            self._watched[id(source)] = watched
            if len(self._watched) >= self._sweep_at:
                self._sweep()
                self._sweep_at = 2 * len(self._watched) + 64
        return Watch(self, id(source), watched)

    def read(self) -> Reading:
        """What all that is watched has counted, and what it is at."""
        with self._lock:
            watched = [one for one in self._watched.values() if one.process == os.getpid()]
        looks = _look(watched)
        sums: dict[tuple[Kind, str], defaultdict[str, float]] = {}
        states: defaultdict[tuple[Kind, str, str], int] = defaultdict(int)
        with self._lock:  # not before: a loop that is asked must not wait for this
            for one, look in looks:
                one.numbers, one.state = look
            self._sweep()
            for of_name, ended in self._ended.items():
                sums[of_name] = defaultdict(float, ended)
            for one in self._watched.values():
                if one.process != os.getpid():
                    continue  # the parent's, and shown there
                total = sums.setdefault((one.kind, one.name), defaultdict(float))
                for key, count in one.numbers.items():
                    total[key] += count
                if one.state is not None:
                    states[one.kind, one.name, one.state] += 1
        return Reading({of_name: dict(total) for of_name, total in sums.items()}, dict(states))

    def _forget(self, key: int, watched: _Watched) -> None:
        looks = _look([watched])
        with self._lock:
            if self._watched.get(key) is not watched:
                return
            for one, look in looks:
                one.numbers, one.state = look
            self._end(key)

    def _sweep(self) -> None:
        for key in [key for key, one in self._watched.items() if one.source() is None]:
            self._end(key)

    def _end(self, key: int) -> None:
        watched = self._watched.pop(key)
        total = self._ended.setdefault((watched.kind, watched.name), defaultdict(float))
        for name, count in watched.numbers.items():
            total[name] += 0 if name in GAUGES else count


def kind_of(source: object) -> Kind:
    """Which of both it is.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(source, Server):
        return "server"
    if isinstance(source, Client):
        return "client"
    raise TypeError(f"a Server or a Client can be watched, not {type(source).__name__}")


def state_of(source: Server | Client) -> str | None:
    """The word for what it is at; None where it has ended."""
    if isinstance(source, Client):
        return None if source.state is State.CLOSED else source.state.name.lower()
    if not source.sockets:
        return None
    return "draining" if source.draining else "serving"


def _look(watched: Iterable[_Watched]) -> list[tuple[_Watched, _Look]]:
    """Numbers and state of each that is there, as its loop tells them; of none whose loop does not answer."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Watched]] = {}
    for one in watched:
        by_loop.setdefault(one.loop, []).append(one)
    told: list[tuple[_Watched, _Look]] = []
    asked = []
    for loop, ones in by_loop.items():
        if ones[0].thread != threading.get_ident() and loop.is_running():
            answer: _Answer = Future()
            try:
                loop.call_soon_threadsafe(_answer, answer, ones)
            except RuntimeError:  # it was closed just now
                pass
            else:
                asked.append(answer)
                continue
        told += _look_here(ones)
    until = time.monotonic() + PATIENCE
    for answer in asked:
        try:
            told += answer.result(max(until - time.monotonic(), 0.0))
        except TimeoutError:
            continue
    return told


def _answer(answer: _Answer, ones: Iterable[_Watched]) -> None:
    """Called in their loop."""
    try:
        answer.set_result(_look_here(ones))
    except Exception as error:  # noqa: BLE001 - raised in the thread that asked
        answer.set_exception(error)


def _look_here(ones: Iterable[_Watched]) -> list[tuple[_Watched, _Look]]:
    return [(one, look) for one in ones if (look := one.look()) is not None]
