"""A handler that has not finished in its first step: by its message's id it can be cancelled from afar."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sage_ws.aio.hub import Hub


class Running:
    """One of a connection's suspended handlers.

    Args:
        task: the worker that steps it.
        hub: of the loop.
        deadline: loop time past which it is cancelled; None for never.

    Attributes:
        stopped: why it was cancelled, by the peer's word or by its deadline; None while it was not.
    """

    __slots__ = ("_bucket", "_due", "_hub", "stopped", "task")

    def __init__(self, task: asyncio.Task[None], hub: Hub, deadline: float | None) -> None:
        self.task = task
        self.stopped: Literal["cancelled", "expired"] | None = None
        self._hub = hub
        self._due = inf if deadline is None else deadline
        self._bucket = hub.arm(self, self._due) if self._due < inf else inf

    def stop(self, reason: Literal["cancelled", "expired"]) -> bool:
        """Cancel it, once; returns whether that was now."""
        if self.stopped is not None:
            return False
        self.stopped = reason
        self.task.cancel()
        return True

    def beat(self) -> None:
        """The hub asks whether its time is over."""
        self._bucket = inf
        if self._hub.time() < self._due:
            self._bucket = self._hub.arm(self, self._due)
        else:
            self.stop("expired")

    def over(self) -> None:
        """It has ended."""
        if self._bucket < inf:
            self._hub.disarm(self, self._bucket)
            self._bucket = inf
