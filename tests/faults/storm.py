"""Many clients that lose their server at once, and when they dial again.

::

    python -m tests.faults.storm      the share of their dials in the worst 100 ms, as JSON
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.child import run, say
from tests.faults.process import ServerProcess

from sage_ws import connect
from sage_ws.options import full_jitter

CLIENTS = 1_000
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


async def restart(clients: int = CLIENTS) -> tuple[list[float], list[float]]:
    """Kill a server that has so many clients, start it again, and wait until all are back.

    Returns:
        Seconds from the kill to each dial, in order: when it was due, and when this one process of all
        clients came to it, which on a busy machine bunches what was spread.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    due: list[float] = []
    dials: list[float] = []

    def backoff(attempt: int) -> float:
        wait = full_jitter(attempt)
        due.append(loop.time() + wait)
        return wait

    def headers() -> dict[str, str]:  # asked for at each dial
        dials.append(loop.time())
        return {}

    with TemporaryDirectory() as folder:
        async with ServerProcess("tests.faults.answering", str(Path(folder) / "journal")) as server:
            async with AsyncExitStack() as stack:
                opened = [connect(server.url, headers=headers, backoff=backoff) for _ in range(clients)]
                for client in opened:
                    await stack.enter_async_context(client)
                dials.clear()
                killed = loop.time()
                await server.restart()
                async with asyncio.timeout(PATIENCE):
                    while not all(client.stats()["reconnects"] for client in opened):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
    return sorted(at - killed for at in due), [at - killed for at in dials]


async def main() -> None:
    """Print what one restart gives."""
    due, dials = await restart()
    figures = {
        "clients": CLIENTS,
        "dials": len(dials),
        "percent_due": 100 * most_in_a_window(due) / len(due),
        "percent_begun": 100 * most_in_a_window(dials) / len(dials),
        "seconds": dials[-1],
    }
    say(json.dumps(figures))


if __name__ == "__main__":
    run(main())
