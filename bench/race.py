"""The race: every peer runs, and they take turns, shape by shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Self, TypeAlias

from bench.building import BuildFailed
from bench.peers import load
from bench.processes import ChildFailed, Runner, running
from bench.record import Record, Turns
from bench.shapes import Shape, Wanted

Said: TypeAlias = Callable[[str], None]
"""Told of the progress, a line at a time."""


class Field:
    """Peers that run, both ends each, until the field is left.

    One that gives up is out, with all that it did at this place; the others go on.

    Args:
        record: where it is noted who cannot run here, and who gave up.
        peers: names, in the order of their turns.
        loop: of the peers that state none: ``asyncio``, ``uvloop``, or ``auto``, which is uvloop where it is.
    """

    def __init__(self, record: Record, peers: Iterable[str], *, loop: str) -> None:
        self._record = record
        self._peers = peers
        self._loop = loop
        self._stack = ExitStack()
        self._running: dict[str, Runner] = {}

    def __enter__(self) -> Self:
        for name in self._peers:
            reason = load(name).missing()
            if reason is not None:
                self._record.skipped[load(name).title] = reason
                continue
            try:
                runner = self._stack.enter_context(running(name, cpus=self._record.cpus, loop=self._loop))
            except (BuildFailed, ChildFailed) as error:
                self._fail(name, error)
                continue
            self._running[name] = runner
            self._record.loops[name] = runner.ready["loop"]
            self._record.versions.update(runner.ready["versions"])
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Those that run."""
        return list(self._running)

    def turn(self, name: str, wanted: Wanted, turns: Turns, line: str | None = None) -> None:
        """Let a peer drive a round, unless it is out.

        Args:
            name: the peer's.
            wanted: the round.
            turns: where what came of it goes.
            line: under another name than the peer's.
        """
        runner, line = self._running.get(name), line or name
        if runner is None:
            return
        try:
            turns.setdefault(line, []).append(runner.round(wanted))
        except (BrokenPipeError, ChildFailed) as error:
            self._fail(name, error)
            del self._running[name]
            turns.pop(line, None)

    def _fail(self, name: str, error: Exception) -> None:
        self._record.failed[name] = str(error)


def race(
    record: Record,
    peers: Sequence[str],
    shapes: Sequence[Shape],
    *,
    rounds: int,
    seconds: float,
    loop: str = "auto",
    said: Said = lambda _: None,
) -> None:
    """Let the peers take turns at each shape.

    Args:
        record: where their rounds go.
        peers: names, in the order of their turns.
        shapes: of the traffic.
        rounds: turns of each peer at each shape.
        seconds: that each turn lasts.
        loop: see `Field`.
        said: see `Said`.
    """
    with Field(record, peers, loop=loop) as field:
        for shape in shapes:
            taking = [name for name in field.names if load(name).takes(shape.name)]
            said(f"{shape.name}: {rounds} rounds of {len(taking)} peers")
            turns: Turns = {}
            for _ in range(rounds):
                for name in taking:
                    field.turn(name, Wanted(shape, seconds), turns)
            record.shapes[shape.name] = turns
