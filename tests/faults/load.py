"""Load for a fault to fall into: callers that call without end, each call in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from tests.faults.ledger import PATIENCE, Ledger

from sage_ws import Client

MIXED: Final[tuple[Mapping[str, Any], ...]] = (
    {"size": 10},
    {"size": 300, "parts": 40},
    {"size": 100, "cancel_after": 0.002},
    {"size": 300, "asks": True},
    {"size": 100, "parts": 20, "leave_after": 3},
    {"size": 70_000},
    {"size": 100, "wait": 0.3, "timeout": 0.05},
    {"size": 20_000, "parts": 20},
    {"size": 100, "parts": 20, "wait": 0.001},
    {"size": 100, "asks": True, "wait": 0.3, "timeout": 0.05},
    {"size": 300, "parts": 100, "wait": 0.001, "cancel_after": 0.01},
)
"""Calls of every kind: in one and in parts, asked back or not; callers wait, leave, or run out of time."""


class Load:
    """Callers that call until the block or their client ends; their last calls end by themselves.

    Args:
        ledger: where their calls stand.
        client: that they share.
        callers: how many, so many calls are in flight.
        sizes: of the payloads, in turn.
        kinds: of calls, in turn, as arguments of `Ledger.call`: in place of the sizes.
        timeout: for each call.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: Client,
        *,
        callers: int = 16,
        sizes: Sequence[int] = (100,),
        kinds: Sequence[Mapping[str, Any]] = (),
        timeout: float = 5.0,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._callers = callers
        self._kinds = kinds or [{"size": size} for size in sizes]
        self._timeout = timeout
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def _call(self, first: int) -> None:
        number = first
        while not self._stopped:
            kind = {"timeout": self._timeout, **self._kinds[number % len(self._kinds)]}
            entry = await self._ledger.call(self._client, **kind)
            if entry.error == "ClosedError":
                return
            number += 1

    async def answers(self, count: int = 100) -> None:
        """Wait until so many more calls were answered."""
        wanted = self._ledger.answered + count
        await self._ledger.until(lambda: self._ledger.answered >= wanted)

    async def losses(self, count: int = 1) -> None:
        """Wait until so many more calls ended because their connection did."""
        wanted = self._ledger.lost + count
        await self._ledger.until(lambda: self._ledger.lost >= wanted)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call(first)) for first in range(self._callers)]
        return self

    async def __aexit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._stopped = True
        if failed is not None:  # under a fault that nobody ends any more
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            return
        async with asyncio.timeout(self._timeout + PATIENCE):
            await asyncio.gather(*self._tasks)
