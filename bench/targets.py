"""What is to be reached, row by row, and what a run has reached of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import idle, startup, wire, workers
from bench.curves import CURVES, rise
from bench.record import Record
from bench.report import Spread, ratio, short
from bench.shapes import Round

KIB: Final = 1024


@dataclass(frozen=True)
class Target(ABC):
    """One row.

    Attributes:
        row: what is measured, as the row's heading.
        beside: whom it is compared with, or in what it is counted.
        bound: what the median must keep to.
    """

    row: str
    beside: str
    bound: float

    @property
    @abstractmethod
    def at_least(self) -> bool:
        """Whether the bound is one from below."""

    @abstractmethod
    def take(self, record: Record) -> Spread | None:
        """The figure; None where it was not measured."""

    @property
    def reach(self) -> str:
        """The bound, as it is read."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.beside}"

    def met(self, record: Record) -> bool | None:
        """Whether the median keeps to it; None where it was not measured."""
        got = self.take(record)
        if got is None:
            return None
        return got.middle >= self.bound if self.at_least else got.middle <= self.bound


@dataclass(frozen=True)
class Speed(Target):
    """Ours against a peer at a shape: how many times its rate is ours, inside each round."""

    shape: str
    theirs: str
    ours: str = "sage-rust"
    at_least = True

    def take(self, record: Record) -> Spread | None:
        turns = record.shapes.get(self.shape, {})
        if self.ours not in turns or self.theirs not in turns:
            return None
        return self.between(turns[self.ours], turns[self.theirs])

    def between(self, ours: Sequence[Round], theirs: Sequence[Round]) -> Spread:
        """The figure, from the rounds of both."""
        return ratio(ours, theirs)


@dataclass(frozen=True)
class Cost(Speed):
    """The same the other way round: how many times its cost is ours."""

    at_least = False

    def between(self, ours: Sequence[Round], theirs: Sequence[Round]) -> Spread:
        return ratio(theirs, ours)


@dataclass(frozen=True)
class Rise(Target):
    """How far a curve bends upwards."""

    curve: str
    line: str = "sage-rust"
    at_least = False

    def take(self, record: Record) -> Spread | None:
        curve = next(each for each in CURVES if each.name == self.curve)
        if not any(self.line in turns for turns in record.curves.get(self.curve, {}).values()):
            return None
        return rise(record, curve, self.line)


@dataclass(frozen=True)
class Least(Target):
    """A figure over another's, inside each round, or over a unit; from below."""

    figure: str
    ours: str
    theirs: str
    at_least = True

    def take(self, record: Record) -> Spread | None:
        its = record.figures.get(self.figure, {})
        if self.ours not in its or self.theirs not in its:
            return None
        return Spread.of([one / other for one, other in zip(its[self.ours], its[self.theirs], strict=True)])


@dataclass(frozen=True)
class Most(Target):
    """A figure in a unit, from above."""

    figure: str
    unit: float
    ours: str = "sage-rust"
    at_least = False

    def take(self, record: Record) -> Spread | None:
        its = record.figures.get(self.figure, {}).get(self.ours)
        return Spread.of([one / self.unit for one in its]) if its else None


@dataclass(frozen=True)
class Gain(Target):
    """A line of a contest (`bench.wire`) against another: how many times its rate."""

    contest: str
    theirs: str
    ours: str = wire.CBOR
    at_least = True

    def take(self, record: Record) -> Spread | None:
        turns = record.wire.get(self.contest, {})
        if self.ours not in turns or self.theirs not in turns:
            return None
        return ratio(turns[self.ours], turns[self.theirs])


BOTH: Final = ("64 in flight", "64 connections")
SMALL: Final = ("sequential", *BOTH)

BESIDE_OTHERS: Final[tuple[Target, ...]] = (
    Speed("64 in flight, ids by `uuid4`", "× picows", 2.4, "64 in flight", "picows", "sage-uuid4"),
    Speed("64 in flight", "× picows", 5.5, "64 in flight", "picows"),
    Speed("64 in flight", "× Go", 6, "64 in flight", "go"),
    Speed("64 in flight", "× HTTP by aiohttp", 30, "64 in flight", "http"),
    Speed("64 in flight", "of pure Rust", 0.45, "64 in flight", "rust"),
    Speed("64 connections", "× picows", 2, "64 connections", "picows"),
    Speed("64 connections", "of pure Rust", 0.75, "64 connections", "rust"),
    *(
        Speed(f"server under Rust's load, {shape}", "of pure Rust", 0.85, shape, "rust", "rust-sage")
        for shape in BOTH
    ),
    Cost("sequential, p50", "× picows", 0.65, "sequential", "picows"),
    Cost("sequential, p50", "× pure Rust", 1.3, "sequential", "rust"),
    Cost("sequential, p50, `busy_poll`", "× picows", 0.15, "sequential", "picows", "sage-busy"),
    Cost("sequential, p50, `busy_poll`", "× spinning Rust", 1.5, "sequential", "rust-spin", "sage-busy"),
    Cost("sequential, p50, `busy_poll`", "× bare TCP", 1, "sequential", "tcp", "sage-busy"),
    *(
        Speed(f"{size} payloads in flight", beside, bound, size, theirs)
        for size in ("64 KiB", "1 MiB")
        for theirs, beside, bound in (("rust", "of pure Rust", 0.75), ("picows", "× picows", 1.3))
    ),
    *(
        Cost(f"asyncio's own loop, {shape}", "× ours on uvloop", 1.25, shape, "sage-rust", "sage-asyncio")
        for shape in SMALL
    ),
    Most("memory of an idle connection", "KiB", 2, idle.MEMORY, KIB),
    Rise("1 → 10,000 connections", "× from the lowest point", 1.3, "connections"),
    Rise("1 → 100,000 pending", "× from the lowest point", 1.3, "pending"),
    Rise("1 B → 8 MiB of payload", "× from the lowest point", 1.3, "payload"),
    Rise("handlers that sleep 0 → 10 ms", "× from the lowest point", 1.3, "sleeping handlers"),
    Least(
        "opening handshakes per core", "× websockets", 2, idle.HANDSHAKES, "sage-rust", "websockets-orjson"
    ),
    *(
        Speed(
            f"fallback core, {shape}",
            "× websockets + json by hand",
            1,
            shape,
            "websockets",
            "sage-pure-asyncio",
        )
        for shape in SMALL
    ),
    Most("`import sage_ws` over `import asyncio`, rust", "ms", 25, startup.IMPORT, 1e-3),
    Most("`import sage_ws` over `import asyncio`, pure", "ms", 25, startup.IMPORT, 1e-3, "sage-pure"),
    Most("wheel", "MB", 1, startup.WHEEL, 1e6),
    Least(
        "messages per CPU-second, 2 workers", "of 1 worker's", 0.9, workers.WORKERS, "2 workers", "1 worker"
    ),
)

OUR_WIRE: Final[tuple[Target, ...]] = tuple(
    Gain(
        f"CBOR, {size}{core}",
        f"× {title}",
        1.5 if size == "64 KiB" else 1,
        f"{about}: {size}",
        theirs,
        ours,
    )
    for about, core, ours, beside in (
        (wire.ENCODINGS, "", wire.CBOR, {wire.PLAIN: "plain JSON", wire.JSON: "`sage.1.json`"}),
        (
            wire.ENCODINGS_PURE,
            ", pure core",
            "sage-pure-cbor",
            {"sage-pure": "plain JSON", "sage-pure-json": "`sage.1.json`"},
        ),
    )
    for size in wire.SIZES
    for theirs, title in beside.items()
)
"""These stand in a table of their own."""
TARGETS: Final = (*BESIDE_OTHERS, *OUR_WIRE)


def verdict(met: bool | None) -> str:
    """As it is read."""
    return {True: "met", False: "**not met**", None: "not measured"}[met]


def table(record: Record, targets: Sequence[Target] = TARGETS) -> Iterator[tuple[str, ...]]:
    """The rows, with their figures."""
    yield ("", "reach", "reached", "of the rounds", "")
    for target in targets:
        got = target.take(record)
        yield (
            target.row,
            target.reach,
            "" if got is None else short(got.middle),
            "" if got is None else f"{short(got.least)} … {short(got.most)}",
            verdict(target.met(record)),
        )


def as_json(record: Record) -> list[dict[str, Any]]:
    """The rows, for other readers."""
    rows = []
    for target in TARGETS:
        got = target.take(record)
        reached = None if got is None else [got.least, got.middle, got.most]
        rows.append({"row": target.row, "reach": target.reach, "reached": reached, "met": target.met(record)})
    return rows
