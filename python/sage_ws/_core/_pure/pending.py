"""Who waits for which answer: message ids to waiters, in sending order, with deadlines.

The earliest deadline is kept as a lower bound: lowered by every addition, made exact by `expire` alone. That
is enough for a timer that may look once too often, and costs nothing per answer.
"""

from __future__ import annotations

from math import inf
from typing import Any


class Pending:
    """The messages of one connection that are not answered yet.

    Attributes:
        earliest: no deadline of these is before it; infinity when there are none.
    """

    __slots__ = ("_waiting", "earliest")

    def __init__(self) -> None:
        # waiter, deadline, and the task id that an answer may leave out
        self._waiting: dict[str, tuple[Any, float, str]] = {}
        self.earliest = inf

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._waiting

    def add(self, message_id: str, waiter: Any, deadline: float, task_id: str) -> None:
        """A message leaves."""
        self._waiting[message_id] = (waiter, deadline, task_id)
        self.earliest = min(self.earliest, deadline)

    def find(self, message_id: str) -> tuple[Any, float, str] | None:
        """A part of its answer is there, or nobody waits any more."""
        return self._waiting.get(message_id)

    def take(self, message_id: str) -> tuple[Any, float, str] | None:
        """Its answer is there, or nobody waits any more."""
        taken = self._waiting.pop(message_id, None)
        if not self._waiting:
            self.earliest = inf
        return taken

    def expire(self, now: float) -> list[tuple[Any, str]]:
        """Remove those whose time is up, in sending order."""
        if now < self.earliest:
            return []
        expired = []
        earliest = inf
        for message_id, (waiter, deadline, _) in self._waiting.items():
            if deadline <= now:
                expired.append((waiter, message_id))
            elif deadline < earliest:
                earliest = deadline
        for _, message_id in expired:
            del self._waiting[message_id]
        self.earliest = earliest
        return expired

    def abandon(self) -> list[tuple[Any, str]]:
        """Remove all, in sending order."""
        abandoned = [(waiter, message_id) for message_id, (waiter, _, _) in self._waiting.items()]
        self._waiting.clear()
        self.earliest = inf
        return abandoned
