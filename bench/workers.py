"""Messages per second of processor time that `run(workers=…)` answers, with one worker and with two."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from bench.peers import load
from bench.processes import running
from bench.race import Said
from bench.record import Record
from bench.shapes import Shape, Wanted

WORKERS: Final = "messages per second of the server's processor time"
COUNTS: Final = {"1 worker": "sage-workers-1", "2 workers": "sage-workers-2"}
TRAFFIC: Final = Shape("", connections=64, in_flight=4, figure="rate")


def take_workers(record: Record, rounds: int, seconds: float, said: Said) -> None:
    """The same traffic, from a client that is not pinned, to servers that are not."""
    for name in COUNTS.values():
        reason = load(name).missing()
        if reason is not None:
            record.skipped[WORKERS] = reason
            return
    took: dict[str, list[float]] = {count: [] for count in COUNTS}
    with ExitStack() as stack:
        runners = {count: stack.enter_context(running(name)) for count, name in COUNTS.items()}
        for number in range(rounds + 1):
            said(f"{WORKERS}: round {number} of {rounds}")
            for count, runner in runners.items():
                got = runner.round(Wanted(TRAFFIC, seconds))
                if number and got.server_cpu is not None:  # before the first one, not all of them may listen
                    took[count].append(got.messages / got.server_cpu)
    record.figures[WORKERS] = took
