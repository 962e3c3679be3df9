"""All troubles in turn, on the core and link of this process; then the ledger, which must balance.

::

    make soak MINUTES=10                           both cores, half of the time each
    python -m tests.faults.soak --seconds 60       this one; --record FILE keeps the figures as JSON

What is judged after each round: every call has one ending, in its time and a second; what was answered was
run, once, and what was never sent was not; pending, tasks and descriptors are as before; no exception reached
the loop. In the end: memory. The encoding and the compression change from round to round.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import sys
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Final

from tests.faults.baseline import Baseline
from tests.faults.child import run
from tests.faults.ledger import Ending, Ledger
from tests.faults.progress import Progress, Rows, plain, progress_for
from tests.faults.troubles import TROUBLES, WIRES

import sage_ws._core
from sage_ws.aio.link import wants_direct
from sage_ws.options import ClientSettings

LATE: Final = 1.0
"""Seconds by which a call may outlive its time, besides those in which this process did not run."""
DRIFT: Final = 5.0
"""MB of memory for each 10,000 calls."""
ROUND: Final = 60.0
"""Seconds after which a round hangs."""
WARM: Final = 1
"""Rounds of each trouble before memory is watched: what is loaded and kept once is no drift."""


@dataclass
class Account:
    """What one trouble came to, over all its rounds."""

    rounds: int = 0
    calls: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    latest: float = 0.0


class Soak:
    """One run.

    Attributes:
        accounts: trouble's name to what it came to.
        problems: what did not balance.
        figures: what troubles measured: the worst of each.
        drift: MB of memory for each 10,000 calls, or for all if they were fewer; None where it broke off.
    """

    def __init__(self, seconds: float, progress: Progress) -> None:
        self._seconds = seconds
        self._progress = progress
        self.accounts = {name: Account() for name in TROUBLES}
        self.problems: list[str] = []
        self.figures: dict[str, float] = {}
        self.drift: float | None = None
        self._lag = 0.0

    async def run(self) -> None:
        """Go through the troubles until the time is over, each twice at least, or one does not balance."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(f"in the loop: {context}"))
        pulse = asyncio.create_task(self._pulse())
        try:
            await self._rounds()
        finally:
            pulse.cancel()
            await asyncio.wait([pulse])

    async def _rounds(self) -> None:
        begun, warm = monotonic(), WARM * len(TROUBLES)
        calls, held = 0, 0.0
        for number, name in enumerate(cycle(TROUBLES)):
            passed = (monotonic() - begun) / self._seconds
            if number == warm:
                calls, held = self.calls, memory()
            if number >= warm + len(TROUBLES) and passed >= 1:
                break
            self._progress.show(f"{name}, {self.calls:,} calls so far", self.rows(), min(1.0, passed))
            await self._round(name, number)
            if self.problems:
                return
        self.drift = (memory() - held) / max(1.0, (self.calls - calls) / 10_000)
        if self.drift > DRIFT:
            self.problems.append(f"memory grew by {self.drift:.1f} MB for each 10,000 calls")

    async def _round(self, name: str, number: int) -> None:
        ledger, before = Ledger(f"m{number}", back=Ledger(f"b{number}")), Baseline()
        # each trouble gets another one each time, and all of them each
        ledger.wire = WIRES[(number + number // len(TROUBLES)) % len(WIRES)]
        self._lag = 0.0
        try:
            async with asyncio.timeout(ROUND):
                await TROUBLES[name](ledger, self._note)
            await before.regained()
        except (Exception, asyncio.CancelledError):  # of any kind: a finding, told with the ledger
            self.problems.append(f"{name}: {traceback.format_exc()}")
        self.problems += [f"{name}: {problem}" for problem in ledger.problems(LATE + self._lag)]
        account = self.accounts[name]
        account.rounds += 1
        account.calls += len(ledger.calls)
        account.endings.update({ending.value: count for ending, count in ledger.endings.items()})
        late = (each.took - each.limit for each in ledger.calls.values() if each.took is not None)
        account.latest = max([account.latest, *late])

    def _note(self, name: str, value: float) -> None:
        self.figures[name] = max(value, self.figures.get(name, 0.0))
        if value > LATE + self._lag:
            self.problems.append(f"{name}: {value:.3f} s")

    async def _pulse(self) -> None:
        """Notice how long this process does not run: on a busy machine that is nobody's lateness."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            self._lag = max(self._lag, loop.time() - due)

    @property
    def calls(self) -> int:
        """How many there were so far."""
        return sum(account.calls for account in self.accounts.values())

    def rows(self) -> Rows:
        """The ledger, as a table."""
        heading = ["", "rounds", "calls", *(ending.value for ending in Ending), "latest end"]
        total = Account(
            sum(each.rounds for each in self.accounts.values()),
            self.calls,
            sum((each.endings for each in self.accounts.values()), Counter()),
            max(each.latest for each in self.accounts.values()),
        )
        return [heading, *(_row(name, each) for name, each in self.accounts.items()), _row("in all", total)]

    def told(self) -> str:
        """Everything, for who reads it."""
        lines = [
            f"{core()}:",
            plain(self.rows()),
            "",
            "latest end: seconds that a call ended behind its time",
        ]
        lines += [f"{name}: at most {value:.3f} s" for name, value in self.figures.items()]
        if self.drift is not None:
            lines.append(f"memory: {self.drift:+.2f} MB for each 10,000 calls, of {DRIFT:g} allowed")
        if self.problems:
            return "\n".join([*lines, "", "THE LEDGER DOES NOT BALANCE:", *self.problems[:50]])
        return "\n".join([*lines, "the ledger balances"])

    def recorded(self) -> dict[str, object]:
        """The same, for the page."""
        return {
            "core": core(),
            "seconds": self._seconds,
            "calls": self.calls,
            "rows": self.rows(),
            "figures": self.figures,
            "latest": max(each.latest for each in self.accounts.values()),
            "drift": self.drift,
            "problems": len(self.problems),
        }


def _row(name: str, account: Account) -> list[str]:
    endings = (f"{account.endings[ending.value]:,}" for ending in Ending)
    latest = f"{account.latest:+.3f}" if account.latest else ""
    return [name, f"{account.rounds:,}", f"{account.calls:,}", *endings, latest]


def core() -> str:
    """What this process runs on."""
    link = "direct" if wants_direct(ClientSettings()) else "loop's"
    loop = os.environ.get("SAGE_WS_TEST_LOOP") or "asyncio"
    return f"{sage_ws._core.name} core, {link} link, {loop}"


def memory() -> float:
    """MB that this process holds, without what its allocator keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(seconds: float, record: Path | None) -> None:
    """Run, print the ledger, keep it."""
    logging.disable(logging.WARNING)  # of what is done on purpose here
    with progress_for(sys.stderr) as progress:
        soak = Soak(seconds, progress)
        run(soak.run())
    sys.stdout.write(soak.told() + "\n\n")
    if record is not None:
        record.write_text(json.dumps(soak.recorded()))
    if soak.problems:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Go through all troubles, and see whether the ledger balances."
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--record", type=Path)
    chosen = parser.parse_args()
    main(chosen.seconds, chosen.record)
