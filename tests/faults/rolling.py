"""A rolling restart: two workers on one port are drained by SIGTERM in turn, and replaced, under load.

::

    python -m tests.faults.rolling ROUNDS      what it came to, as JSON

What is promised to peers of the extended wire: no call fails, whether its answer comes in one or in parts, or
after the worker has asked back, if it ends within the drain's 30 s. A call on a connection that is told to
leave ends there; the next one leaves by another. A plain peer cannot be told, and may lose what it has sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.faults.child import run, say
from tests.faults.handling import Handling
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.process import PATIENCE, Process, ServerProcess

from sage_ws import connect

CLIENTS: Final = 6
CALLERS: Final = 4
"""For each client."""
KINDS: Final[tuple[Mapping[str, Any], ...]] = (
    {"size": 10},
    {"size": 300, "parts": 40},
    {"size": 100, "wait": 0.05},
    {"size": 100, "parts": 10, "wait": 0.02},
    {"size": 300, "asks": True, "wait": 0.01},
    {"size": 70_000},
)
"""All of them last until their end."""


@dataclass
class Report:
    """What a rolling restart came to.

    Attributes:
        restarts: of workers.
        calls: made meanwhile, of all kinds.
        streams: of them, those whose answer came in parts.
        answered: wholly and rightly.
        failed: what the others ended with, and how often.
        dials: that clients made besides their first.
        problems: what does not balance.
    """

    restarts: int
    calls: int
    streams: int
    answered: int
    failed: dict[str, int]
    dials: int
    problems: list[str]


class Pair(ServerProcess):
    """`tests.faults.pair`, by its workers."""

    def __init__(self) -> None:
        super().__init__("tests.faults.pair")

    async def start(self) -> None:
        """Start it, and wait until its workers serve."""
        await Process.start(self)
        await self.line("2 workers are serving")

    def pids(self, doing: str) -> list[int]:
        """The workers that have said so, in order."""
        head = f"worker {doing}: "
        return [int(line.removeprefix(head)) for line in self.lines if line.startswith(head)]

    async def served(self, count: int) -> list[int]:
        """Wait until so many workers have served since the start; their process ids."""
        async with asyncio.timeout(PATIENCE):
            while len(self.pids("serves")) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.pids("serves")


async def rolling(rounds: int = 1, encoding: str = "auto") -> Report:
    """Restart both workers so often, under load.

    Args:
        rounds: how often each is restarted; from the second one on the parent waits before it replaces one.
        encoding: of the clients.
    """
    ledgers = [Ledger(f"m{number}") for number in range(CLIENTS)]
    options: dict[str, Any] = {"handler": Handling(lambda _: None), "encoding": encoding}
    async with Pair() as pair, AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{pair.port}/ws"
        clients = [
            await stack.enter_async_context(connect(url, backoff=lambda _: 0.01, **options)) for _ in ledgers
        ]
        loads = [
            await stack.enter_async_context(Load(ledger, client, kinds=KINDS, callers=CALLERS, timeout=60))
            for ledger, client in zip(ledgers, clients, strict=True)
        ]
        for number in range(2 * rounds):
            await asyncio.gather(*(load.answers(10) for load in loads))
            os.kill((await pair.served(number + 2))[number], signal.SIGTERM)
            await pair.served(number + 3)
        await asyncio.gather(*(load.answers(10) for load in loads))
    lines = [line for line in pair.lines if line.startswith(("ERROR", "Traceback", "worker has left"))]
    calls = [entry for ledger in ledgers for entry in ledger.calls.values()]
    return Report(
        restarts=2 * rounds,
        calls=len(calls),
        streams=sum(ledger.streams for ledger in ledgers),
        answered=sum(ledger.answered for ledger in ledgers),
        failed=dict(sum((ledger.errors for ledger in ledgers), Counter())),
        dials=sum(int(client.stats()["dials"]) for client in clients) - CLIENTS,
        problems=[one for ledger in ledgers for one in ledger.problems(saw_handlers=False)] + lines,
    )


async def main(rounds: int) -> None:
    """Print what it came to."""
    say(json.dumps(asdict(await rolling(rounds))))


if __name__ == "__main__":
    run(main(int(sys.argv[1])))
