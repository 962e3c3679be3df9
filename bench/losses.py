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
    "handlers that sleep 0 → 10 ms": (
        "Where the handlers of 64 messages sleep for 10 ms, 6,400 messages a second are the most there can "
        "be. Both processes sleep in between, and a wake-up costs as much for fewer messages."
    ),
    "64 in flight": (
        "The client's end is the busy one: our core takes 0.4 µs for a message there; the driver that builds "
        "and checks each message in Python, the future and the step of the caller's task take 2 µs. Of the "
        "targets' machine what is compiled runs about twice as fast here, the interpreter does not."
    ),
    "64 connections": (
        "Two of three parts of a message are system calls there, and the same for everybody. What we add is "
        "the loop's own epoll around ours, and Python's caller and handler; on an interpreter that is not "
        "built for speed (no PGO) that is half of what pure Rust takes in all."
    ),
    "server under Rust's load, 64 in flight": (
        "A copy of the context, a coroutine and the objects of a message: 0.2 µs, beside a server that does "
        "all else in 0.7 µs."
    ),
    "server under Rust's load, 64 connections": (
        "As with 64 in flight, and a turn of the loop for each few messages."
    ),
    "sequential, p50": (
        "Two processes wake each other up, which is most of it for everybody: not even pure Rust is at 0.65 "
        "of picows here."
    ),
    "sequential, p50, `busy_poll`": (
        "Nobody is woken any more; what is left over pure Rust are 4 µs of Python at both ends together."
    ),
    "1 B → 8 MiB of payload": (
        "From 1 MiB on a message is larger than the second-level cache, and is passed over in memory by "
        "socket, JSON, base64 and back; pure Rust rises there too, in some runs less than ours: why is not "
        "found out."
    ),
    "opening handshakes per second and core": (
        "Half of ours is the loop's own accepting and its transport; 101s without an interpreter are cheaper."
    ),
    "1 → 100,000 pending": (
        "100,000 callers are 100,000 tasks, and Python's garbage collector goes through all of them over and "
        "over. Over 200,000 messages in steady flight one costs 4.3 times as much at 100,000 as at 64, and "
        "without the collector (gc.freeze, gc.disable) 1.8 times. A round here begins with all of them at "
        "once: most wait for the socket to take bytes, with a timeout each, and are woken together."
    ),
    "1 → 10,000 connections": (
        "Pure Rust rises as much: the kernel's and our state of so many sockets no longer fits the caches. "
        "Ours rises sooner, for each connection has a client with its objects too."
    ),
    "64 in flight, ids by `uuid4`": (
        "`uuid.uuid4()` is Python of the driver's, here and with picows: what both have in common weighs "
        "more where the rest is less."
    ),
    "`import sage_ws` over `import asyncio`, pure": (
        "As with the Rust core, and the fallback's own modules on top: 10 ms where `import asyncio` takes 30."
    ),
    "messages per CPU-second, 2 workers": (
        "One client feeds both on two processors: each worker gets smaller batches, and waits more often."
    ),
    "`import sage_ws` over `import asyncio`, rust": (
        "It takes about 0.9 of what `import asyncio` takes in the same process, and both drift together: "
        "between 18 and 40 ms on one machine within hours."
    ),
    "CBOR, 64 KiB": (
        "Two thirds of what both ends do with such a message in CBOR is the kernel's, and another sixth is "
        "copies of its bytes (perf): no encoding saves that. In calm rounds it is 1.5 to 1.6."
    ),
    "CBOR, 64 B, pure core": (
        "Plain JSON is read by the C of Python's `json` there, CBOR by Python of ours; from a few hundred "
        "bytes on what base64 costs makes up for that. From run to run it is 0.97 to 1.12."
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
