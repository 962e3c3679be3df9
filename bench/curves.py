"""How the cost of a message grows: with connections, messages pending, its payload, its handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from bench.processes import most_files
from bench.race import Field, Said
from bench.record import Record, Turns
from bench.report import Spread
from bench.shapes import Round, Shape, Wanted


def wall(one: Round, _x: float) -> float:
    """Seconds for a message."""
    return one.cost


def per_page(one: Round, x: float) -> float:
    """Seconds for a message; above 4 KiB, for each 4 KiB of it: bytes cost, and none should cost more."""
    return one.cost / max(1.0, x / 4096)


def processor(one: Round, _x: float) -> float:
    """Seconds of processor time for a message; where the handler sleeps, the wall clock says nothing."""
    return one.cpu or one.cost


@dataclass(frozen=True)
class Point:
    """One place on a curve.

    Attributes:
        x: where.
        shape: of the traffic there.
        stand_ins: line's name to the peer that is driven for it here; the line's own where absent.
    """

    x: float
    shape: Shape
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the JSON."""
        return f"{self.x:g}"

    @property
    def under_way(self) -> int:
        """Messages at any moment."""
        return self.shape.connections * self.shape.in_flight


@dataclass(frozen=True)
class Curve:
    """One plot.

    Attributes:
        name: for reports.
        title: of the plot.
        axis: what is along x.
        points: from left to right.
        lines: the peers, ours first.
        cost: what is drawn, and must not rise.
        unit: of it, in microseconds.
    """

    name: str
    title: str
    axis: str
    points: tuple[Point, ...]
    lines: tuple[str, ...]
    cost: Callable[[Round, float], float] = wall
    unit: str = "µs for a message"


CURVES: Final = (
    Curve(
        "connections",
        "one message at any moment on each connection",
        "connections",
        tuple(Point(count, Shape("", count, 1, "rate")) for count in (1, 10, 100, 1_000, 10_000)),
        ("sage-rust", "rust", "picows", "go"),
    ),
    Curve(
        "pending",
        "messages pending on one connection",
        "messages in flight",
        tuple(Point(count, Shape("", 1, count, "rate")) for count in (1, 10, 100, 1_000, 10_000, 100_000)),
        ("sage-rust", "rust", "picows"),
    ),
    Curve(
        "payload",
        "8 messages in flight on one connection",
        "bytes of payload",
        tuple(
            Point(size, Shape("", 1, 8, "rate", payload=size))
            for size in (1, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 8 << 20)
        ),
        ("sage-rust", "rust", "picows"),
        per_page,
        "µs for a message, above 4 KiB for each 4 KiB",
    ),
    Curve(
        "sleeping handlers",
        "64 messages in flight on one connection, each sleeps in its handler",
        "milliseconds that the handler sleeps",
        tuple(Point(ms, Shape("", 1, 64, "rate"), {"sage-rust": f"sage-sleep-{ms}"}) for ms in (0, 1, 10)),
        ("sage-rust",),
        processor,
        "µs of processor time for a message, both ends",
    ),
)


def trace(
    record: Record,
    curve: Curve,
    *,
    rounds: int,
    seconds: float,
    most: int,
    peers: Sequence[str],
    loop: str = "auto",
    said: Said = lambda _: None,
) -> None:
    """Drive a curve: in each round from left to right, at each point line by line.

    Args:
        record: where its turns go.
        curve: which.
        rounds: turns of each line at each point.
        seconds: that each turn lasts; longer, where a message is pending so long.
        most: messages under way at its rightmost point.
        peers: those that may run.
        loop: see `bench.race.Field`.
        said: told of the progress.
    """
    points = []
    for point in curve.points:
        if point.shape.connections > most_files() - 100:
            record.skipped[f"{curve.name}, {point.name}"] = "this system lets a process open too few files"
        elif point.under_way <= most:
            points.append(point)
    lines = [line for line in curve.lines if line in peers]
    needed = dict.fromkeys(point.stand_ins.get(line, line) for line in lines for point in points)
    turns: dict[str, Turns] = {point.name: {} for point in points}
    with Field(record, needed, loop=loop) as running:
        for number in range(rounds):
            said(f"{curve.name}: round {number + 1} of {rounds}")
            for point in points:
                wanted = Wanted(point.shape, max(seconds, point.under_way * SLOWEST))
                for line in lines:
                    running.turn(point.stand_ins.get(line, line), wanted, turns[point.name], line)
    record.curves[curve.name] = turns


SLOWEST: Final = 20e-6
"""Seconds that a message may take where many are under way: each should have its turn in a round."""


# ── what a curve says ──────────────────────────────────────────────────────────────────
def lines(record: Record, curve: Curve) -> dict[str, list[tuple[float, Spread]]]:
    """Line's name to its costs, from left to right."""
    turns = record.curves.get(curve.name, {})
    return {
        line: [
            (point.x, Spread.of([curve.cost(one, point.x) for one in turns[point.name][line]]))
            for point in curve.points
            if line in turns.get(point.name, {})
        ]
        for line in curve.lines
        if any(line in its for its in turns.values())
    }


def rise(record: Record, curve: Curve, line: str) -> Spread:
    """How far a line bends upwards: of all points and those on their left, the pair that is furthest apart.

    As everywhere, the ratio is taken inside each round, and the median of the ratios counts.
    """
    turns = record.curves[curve.name]
    costs = [
        [curve.cost(one, point.x) for one in turns[point.name][line]]
        for point in curve.points
        if line in turns.get(point.name, {})
    ]
    pairs = [
        Spread.of([later / earlier for earlier, later in zip(left, right, strict=True)])
        for left, right in combinations(costs, 2)
    ]
    return max(pairs, key=lambda pair: pair.middle, default=Spread(1, 1, 1))
