"""From rounds to what is read: ratios, figures, the tables for a terminal and for the pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

from bench.peers import OURS, PEERS, load
from bench.record import Record
from bench.shapes import SHAPES, Round, Shape

FRONT_PAGE: Final = (
    "sage-rust",
    "sage-pure",
    "picows",
    "aiohttp",
    "websockets",
    "go",
    "http",
    "grpc",
    "rust",
)
"""The peers in the README's table; the page on performance has all."""


@dataclass(frozen=True)
class Spread:
    """The median of what came of each round, and how far apart the rounds were."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), min(values), max(values))


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> Spread:
    """How many times the cost of ours theirs is, inside each round: the machine's drift falls out."""
    return Spread.of([other.cost / one.cost for one, other in zip(ours, theirs, strict=True)])


def peers(record: Record) -> list[str]:
    """Those that ran in some shape, in the order of their turns."""
    ran = {name for turns in record.shapes.values() for name in turns}
    return [name for name in PEERS if name in ran]


def baseline(record: Record) -> str:
    """The peer that the others are compared with: our first core that ran, or the first peer."""
    ran = peers(record)
    return next((name for name in OURS if name in ran), ran[0])


def shapes(record: Record) -> list[Shape]:
    """Those that were driven."""
    return [shape for shape in SHAPES if shape.name in record.shapes]


def conditions(record: Record) -> str:
    """Machine, versions and commit, in one sentence."""
    about = record.machine
    pinned = "server and client pinned to a core each" if record.cpus else "not pinned"
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    loops = sorted({loop for loop in record.loops.values() if loop in {"asyncio", "uvloop"}})
    return (
        f"{about['cpu']}, {about['cpus']} CPUs, {about['system']}, {about['python']}, {versions}; "
        f"{' and '.join(loops)}, {pinned}, loopback; commit {record.commit or 'unknown'}"
    )


# ── a figure as it is read ─────────────────────────────────────────────────────────────
def figure(shape: Shape, rounds: Sequence[Round]) -> str:
    """The median of a peer's rounds."""
    if shape.figure == "p50":
        return f"{median(one.cost for one in rounds) * 1e6:,.0f} µs"
    return f"{median(one.rate for one in rounds):,.0f}/s"


def processor(rounds: Sequence[Round]) -> str:
    """Processor time per message, both ends together, in microseconds."""
    known = [one.cpu for one in rounds if one.cpu is not None]
    return short(median(known) * 1e6) if known else ""


def times(factor: float) -> str:
    """A ratio, with no more digits than it deserves."""
    if factor >= 9.95:
        return f"{factor:.0f}×"
    return f"{factor:.1f}×" if factor >= 0.995 else f"{factor:.2f}×"


def short(value: float) -> str:
    """A number, with three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# ── tables ─────────────────────────────────────────────────────────────────────────────
def rows(record: Record, names: Sequence[str], of: Sequence[Shape]) -> Iterator[tuple[str, ...]]:
    """The heading, then a row per peer: its title, and for each shape its figure and how ours compares."""
    base = baseline(record)
    yield ("", *(cell for shape in of for cell in (shape.title, "ratio")))
    for name in names:
        cells = [load(name).title]
        for shape in of:
            turns = record.shapes[shape.name]
            if name not in turns:
                cells += ["", ""]
                continue
            cells.append(figure(shape, turns[name]))
            if base not in turns:
                cells.append("")
            else:
                cells.append("1" if name == base else times(ratio(turns[base], turns[name]).middle))
        yield tuple(cells)


def plain(record: Record) -> Iterator[str]:
    """The table for a terminal, with what it means and where it was taken."""
    yield from columns(list(rows(record, peers(record), shapes(record))))
    yield ""
    yield f"ratio: cost of a message against {_base_title(record)}, median of the ratios in each round"
    yield conditions(record)


def columns(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def markdown(table: Sequence[tuple[str, ...]], *, align: str = "") -> str:
    """A table for a page: ``align`` has an ``l`` or an ``r`` for each column, by default one l and then r."""
    heading, *body = table
    align = align or "l" + "r" * (len(heading) - 1)
    rule = "|".join({"l": " --- ", "r": " ---: "}[side] for side in align)
    return "\n".join(
        ["| " + " | ".join(heading) + " |", f"|{rule}|", *("| " + " | ".join(row) + " |" for row in body)]
    )


def block(record: Record) -> str:
    """The figures on the README's page and the like."""
    ran = peers(record)
    shown = [name for name in FRONT_PAGE if name in ran]
    small = [shape for shape in shapes(record) if shape.payload == 256]
    count = len(record.shapes[small[0].name][shown[0]])
    return (
        f"{markdown(list(rows(record, shown, small)))}\n\n"
        f"Payloads of 256 bytes. *Ratio*: cost of a message against {_base_title(record)}, the median over\n"
        f"{count} interleaved rounds of {record.effort['seconds']:g} s. Taken on {record.date} with:\n"
        f"{conditions(record)}."
    )


def _base_title(record: Record) -> str:
    return load(baseline(record)).title
