"""Many clients that lose their server at once, and when they dial again.

::

    python -m tests.faults.storm      the share of their dials in the worst 100 ms, as JSON

They are spread over several processes, as clients are: where one has them all, all wait while it is late for
once, and what was spread is bunched by it alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.faults.child import run, say
from tests.faults.process import Process, ServerProcess

from sage_ws import Client, connect
from sage_ws.options import full_jitter

CLIENTS = 1_000
CROWDS = 10
"""Processes that they are spread over."""
WINDOW = 0.1
"""Seconds."""
PATIENCE = 60.0


def most_in_a_window(instants: Sequence[float]) -> int:
    """The most of these moments, in order, that any window of `WINDOW` seconds holds."""
    most = first = 0
    for last, instant in enumerate(instants):
        while instant - instants[first] >= WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return most


def noting(url: str, dials: list[tuple[float, float]]) -> Client:
    """A client that notes of each dial but its first when it was due, and when it began."""
    due = inf

    def backoff(attempt: int) -> float:
        nonlocal due
        wait = full_jitter(attempt)
        due = monotonic() + wait
        return wait

    def headers() -> dict[str, str]:  # asked for at each dial
        if due < inf:
            dials.append((due, monotonic()))
        return {}

    return connect(url, headers=headers, backoff=backoff)


async def crowd(url: str, clients: int) -> None:
    """Some of the clients: says when they are connected, and when they are again what they have noted."""
    dials: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(noting(url, dials)) for _ in range(clients)]
        say("connected")
        async with asyncio.timeout(PATIENCE):
            while not all(client.stats()["reconnects"] for client in opened):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        say(json.dumps(dials))


async def restart(clients: int = CLIENTS, crowds: int = CROWDS) -> list[tuple[float, float]]:
    """Kill a server that has so many clients, start it again, and wait until all are back.

    Returns:
        Of each dial when it was due and when it began, in seconds of one clock for all processes.
    """
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            start = stack.enter_async_context
            server = await start(ServerProcess("tests.faults.answering", str(Path(folder) / "journal")))
            told = server.url, str(clients // crowds)
            processes = [await start(Process("tests.faults.storm", *told)) for _ in range(crowds)]
            for process in processes:
                await process.line("connected")
            await server.restart()
            noted = [json.loads(await process.line("[[", PATIENCE)) for process in processes]
            return [(due, began) for dials in noted for due, began in dials]


async def main() -> None:
    """Print what one restart gives."""
    dials = await restart()
    due, begun = (sorted(instants) for instants in zip(*dials, strict=True))
    figures = {
        "clients": CLIENTS,
        "processes": CROWDS,
        "dials": len(dials),
        "percent_due": 100 * most_in_a_window(due) / len(dials),
        "percent_begun_in_ten": 100 * most_in_a_window(begun) / len(dials),
        "seconds_late": max(began - when for when, began in dials),
        "seconds": begun[-1] - begun[0],
    }
    say(json.dumps(figures))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    run(crowd(arguments[0], int(arguments[1])) if arguments else main())
