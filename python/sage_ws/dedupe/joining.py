"""Runs that go on in this process, and those who wait for one of them: what every store shares."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, TypeAlias

from sage_ws.message import Response

Begun: TypeAlias = Response | Literal["run", "unknown"]
"""What a store says of a message: see `Dedupe.begin`."""
ELSEWHERE: Final = "elsewhere"
"""What the table of a store that processes share says of a run that another process is at."""


class Joining:
    """The runs of one store in one process.

    Once opened a store belongs to that event loop, until as many `close` as `open` have come.
    """

    def __init__(self) -> None:
        self._running: dict[bytes, asyncio.Future[Begun | None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0

    def _enter(self) -> bool:
        """One more uses the store; True for the first.

        Raises:
            RuntimeError: it is in use in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._users and self._loop is not loop:
            raise RuntimeError("this store is in use in another event loop; make one for each loop")
        self._loop = loop
        self._users += 1
        return self._users == 1

    def _leave(self) -> bool:
        """One less uses it; True for the last."""
        if not self._users:
            return False
        self._users -= 1
        return self._users == 0

    def _start(self, key: bytes) -> None:
        """From here on others wait for this run."""
        if not self._users or self._loop is None:
            raise RuntimeError("the store is not open")
        self._running[key] = self._loop.create_future()

    async def _joined(self, key: bytes) -> Begun | None:
        """Wait for a run that goes on, if one does; a wait that is cancelled leaves the run alone.

        Returns:
            What it came to; None where there is none, or it was withdrawn before it began.
        """
        while (running := self._running.get(key)) is not None:
            outcome = await asyncio.shield(running)
            if outcome is not None:
                return outcome
        return None

    def _end(self, key: bytes, outcome: Begun | None) -> None:
        """A run has ended, or never began (None): those who wait for it hear so."""
        running = self._running.pop(key, None)
        if running is not None and not running.done() and not running.get_loop().is_closed():
            running.set_result(outcome)
