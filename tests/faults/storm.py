"""Many clients that lose their server at once, and when they dial again."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.process import ServerProcess

from sage_ws import connect

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


async def restart(clients: int = CLIENTS) -> list[float]:
    """Kill a server that has so many clients, start it again, and wait until all are back.

    Returns:
        Seconds from the kill to each dial, in order.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    dials: list[float] = []

    def headers() -> dict[str, str]:  # asked for at each dial
        dials.append(loop.time())
        return {}

    with TemporaryDirectory() as folder:
        async with ServerProcess("tests.faults.answering", str(Path(folder) / "journal")) as server:
            async with AsyncExitStack() as stack:
                opened = [connect(server.url, headers=headers) for _ in range(clients)]
                for client in opened:
                    await stack.enter_async_context(client)
                dials.clear()
                killed = loop.time()
                await server.restart()
                async with asyncio.timeout(PATIENCE):
                    while not all(client.stats()["reconnects"] for client in opened):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
    return [at - killed for at in dials]
