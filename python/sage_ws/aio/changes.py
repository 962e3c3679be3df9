"""Waiting for something to change: what `drain`, `close` and `wait_closed` of both ends stand on.

A condition is looked at, and if it does not hold yet the next change is waited for; whoever changes
something that may matter says so. There is no lock: all of it happens on one loop.
"""

from __future__ import annotations

import asyncio


class Changes:
    """Tells everybody who waits that it is worth looking again."""

    __slots__ = ("_watchers",)

    def __init__(self) -> None:
        self._watchers: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._watchers)

    def tell(self) -> None:
        """Something changed."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def next(self) -> None:
        """Wait for the next change."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        try:
            await watcher
        except asyncio.CancelledError:  # else a caller that looks again and again would leave one each time
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            raise
