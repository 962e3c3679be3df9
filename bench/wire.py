"""What our own wire gives where both ends are ours: CBOR, compression, both directions, streams.

No other library takes part: each contest is among ends of sage_ws, in turns, and its first line is what the
others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import Final

from bench.peers import load
from bench.race import Field, Said
from bench.record import Record, Turns
from bench.report import markdown, processor, ratio, short, times
from bench.shapes import Shape, Wanted

PLAIN, JSON, CBOR = "sage-rust", "sage-json", "sage-cbor"
SIZES: Final = {"64 B": (64, 64), "1 KiB": (1 << 10, 64), "64 KiB": (64 << 10, 8), "1 MiB": (1 << 20, 8)}
"""Bytes of the payload, and messages in flight."""


@dataclass(frozen=True)
class Contest:
    """One table.

    Attributes:
        about: what is compared.
        name: of this one.
        shape: of the traffic.
        lines: the peers; the others are compared with the first.
    """

    about: str
    name: str
    shape: Shape
    lines: tuple[str, ...]

    @property
    def key(self) -> str:
        """For the JSON."""
        return f"{self.about}: {self.name}"


ENCODINGS: Final = "CBOR and JSON"
ENCODINGS_PURE: Final = "CBOR and JSON, pure core"
COMPRESSION: Final = "compression"
DIRECTIONS: Final = "both directions"
STREAMS: Final = "streams"


def _one(count: int, payload: int = 256, *, text: bool = False) -> Shape:
    return Shape("", 1, count, "rate", payload, text)


CONTESTS: Final = (
    *(
        Contest(about, name, _one(count, size), lines)
        for about, lines in (
            (ENCODINGS, (PLAIN, JSON, CBOR)),
            (ENCODINGS_PURE, ("sage-pure", "sage-pure-json", "sage-pure-cbor")),
        )
        for name, (size, count) in SIZES.items()
    ),
    *(
        Contest(
            COMPRESSION,
            f"{kind}, {size >> 10} KiB",
            _one(8, size, text=kind == "text"),
            (CBOR, "sage-deflate"),
        )
        for kind in ("text", "noise")
        for size in (4 << 10, 64 << 10)
    ),
    Contest(DIRECTIONS, "64 in flight", _one(64), (CBOR, "sage-reversed", "sage-both-ways")),
    *(
        Contest(STREAMS, name, _one(count), (CBOR, "sage-streams"))
        for name, count in (("one", 1), ("64 at once", 64))
    ),
)


def take_wire(record: Record, rounds: int, seconds: float, loop: str, said: Said) -> None:
    """Hold all contests: in each round each of them, in a contest line by line."""
    needed = dict.fromkeys(line for contest in CONTESTS for line in contest.lines)
    with Field(record, needed, loop=loop) as field:
        for contest in CONTESTS:
            said(f"{contest.key}: {rounds} rounds of {len(contest.lines)} lines")
            turns: Turns = {}
            for _ in range(rounds):
                for line in contest.lines:
                    field.turn(line, Wanted(contest.shape, seconds), turns)
            # what was asked is counted; what came of it may be more
            record.wire[contest.key] = {
                line: [replace(one, messages=one.messages * load(line).messages) for one in its]
                for line, its in turns.items()
            }


def tables(record: Record) -> Iterator[str]:
    """What the record has of each, for the page."""
    for about, contests in groupby(CONTESTS, lambda contest: contest.about):
        table = [HEADING]
        for contest in contests:
            turns = record.wire.get(contest.key, {})
            ran = [line for line in contest.lines if line in turns]
            table += [
                (contest.name, load(line).title, *_cells(turns, contest.lines[0], line)) for line in ran
            ]
        if len(table) > 1:
            title, text = f"{about[0].upper()}{about[1:]}", markdown(table, align="llrrrr")
            yield f"### {title}\n\n{ABOUT[about]}\n\n{text}"


def _cells(turns: Turns, first: str, line: str) -> tuple[str, ...]:
    rate = short(median(one.rate for one in turns[line]))
    if line == first or first not in turns:
        return (rate, "1" if line == first else "", "", processor(turns[line]))
    got = ratio(turns[line], turns[first])
    return rate, times(got.middle), f"{times(got.least)} … {times(got.most)}", processor(turns[line])


HEADING: Final[tuple[str, ...]] = (
    "",
    "",
    "messages per second",
    "rate beside the first",
    "of the rounds",
    "µs of processor",
)
ABOUT: Final = {
    ENCODINGS: (
        "*Rust core* is plain SAGE JSON, which every peer understands; `sage.1.json` and `sage.1.cbor`\n"
        "are agreed on where both ends are ours. 64 messages in flight, from 64 KiB on 8."
    ),
    ENCODINGS_PURE: "The same without Rust.",
    COMPRESSION: (
        "CBOR, 8 in flight over loopback, where bytes cost nothing: what is seen here is the whole price.\n"
        "When it pays all the same: [Compress messages](how-to/compression.md). *Text* is this\n"
        "documentation's, *noise* is random."
    ),
    DIRECTIONS: (
        "CBOR, 64 in flight on one connection. In the second line the server asks and the client answers.\n"
        "In the third each of the server's handlers asks its caller back before it answers: 64 such pairs\n"
        "at any moment, and both messages of a pair count."
    ),
    STREAMS: (
        "CBOR, parts of 256 bytes, 256 in each stream, beside calls: one call or stream after another,\n"
        "then 64 at any moment. A part counts as a message."
    ),
}
"""What each table shows."""
