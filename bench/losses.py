"""Where we lose: every line in which somebody is ahead of us, and every row that was not reached; and why.

What is lost is computed from a record. The reasons are written by hand, in `REASONS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench import idle
from bench.peers import load
from bench.record import Record
from bench.report import baseline, ratio, shapes, short, times
from bench.targets import TARGETS

NOT_RIVALS: Final = ("sage-", "rust-sage")
"""How the names of our own variants begin."""

REASONS: Final[Mapping[str, str]] = {
    "rust": (
        "It is the limit, not a rival: no interpreter, no event loop, no handler that a user could write. "
        "Between it and us stand the coroutine of each handler and of each caller, and a turn of the loop "
        "for each read."
    ),
    "1 B → 8 MiB of payload": (
        "Pure Rust bends at the same place: eight messages of 11 MB no longer fit the processor's caches, "
        "and every pass over their bytes is one over memory."
    ),
    "handlers that sleep 0 → 10 ms": (
        "Where the handlers of 64 messages sleep for 10 ms, 6,400 messages a second are the most there can "
        "be. Both processes sleep in between, and a wake-up costs as much for fewer messages."
    ),
    "rust-spin": "The limit once more, with both processors kept busy for it.",
    "tcp": "It carries bytes and no message: no opening handshake, no frame, no JSON, no ids, one at a time.",
}
"""Why: by the peer that is ahead, by the row that was missed, or by both (``row: peer``)."""


@dataclass(frozen=True)
class Loss:
    """A line that we lose.

    Attributes:
        row: what was measured.
        ahead: the peer that is ahead of us; empty where a row was not reached.
        by: how far.
        key: under which its reason stands, if it has one of its own.
    """

    row: str
    ahead: str
    by: str
    key: str

    @property
    def reason(self) -> str | None:
        """Why, as far as it is known."""
        return REASONS.get(f"{self.row}: {self.key}") or REASONS.get(self.row) or REASONS.get(self.key)


def losses(record: Record) -> list[Loss]:
    """All of them."""
    return [*_behind(record), *_figures(record), *_missed(record)]


def _behind(record: Record) -> Iterator[Loss]:
    ours = baseline(record)
    for shape in shapes(record):
        turns = record.shapes[shape.name]
        for name, rounds in turns.items():
            if ours in turns and not name.startswith(NOT_RIVALS):
                got = ratio(turns[ours], rounds).middle
                if got < 1:
                    yield Loss(shape.title, load(name).title, f"{times(got)} our cost", name)


def _figures(record: Record) -> Iterator[Loss]:
    for figure, more_is_better in ((idle.MEMORY, False), (idle.HANDSHAKES, True), (idle.PINGS, False)):
        its = record.figures.get(figure, {})
        if "sage-rust" not in its:
            continue
        ours = median(its["sage-rust"])
        for name, values in its.items():
            got = median(values) / ours
            if not name.startswith(NOT_RIVALS) and (got > 1) == more_is_better and got != 1:
                yield Loss(figure, load(name).title, f"{times(got)} ours", name)


def _missed(record: Record) -> Iterator[Loss]:
    for target in TARGETS:
        got = target.take(record)
        if got is not None and target.met(record) is False:
            yield Loss(target.row, "", f"{short(got.middle)}, to reach: {target.reach}", target.reach)
