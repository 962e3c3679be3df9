"""The line of calls that wait to leave: for a connection, or for room on it. First come, first served.

There is room where fewer than ``max_pending`` calls await an answer and the peer takes our bytes. A place is
*granted* to the head of the line; until the task that got it has run, the place counts as taken, so that
no call of the same round of the loop overtakes it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Turns:
    """The line of a client, or of a server's connection.

    Attributes:
        line: who waits, in order; a cancelled call leaves it at once.
        granted: places given to tasks that have not run since.
    """

    __slots__ = ("_returned", "granted", "line")

    def __init__(self) -> None:
        self.line: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.granted = 0
        self._returned: set[asyncio.Future[None]] = set()

    async def wait(self, *, front: bool = False) -> None:
        """Wait for a place, which is the caller's until it next suspends.

        Args:
            front: stand at the head: for a call whose connection was lost between its place and its step.

        Raises:
            Exception: what `fail` was given.
        """
        turn = asyncio.get_running_loop().create_future()
        if front:
            self._stand_in_front(turn)
        else:
            self.line[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            self.line.pop(turn, None)
            if not turn.cancelled() and turn.exception() is None:  # granted at the moment of the cancellation
                self.granted -= 1
            raise
        self.granted -= 1

    def _stand_in_front(self, turn: asyncio.Future[None]) -> None:
        """Join the head of the line, behind those who came back to it before."""
        waiting = list(self.line)
        self._returned = {one for one in self._returned if one in self.line}
        at = len(self._returned)  # they stand first, and nobody else before them
        self.line = OrderedDict.fromkeys([*waiting[:at], turn, *waiting[at:]])
        self._returned.add(turn)

    def grant(self) -> None:
        """Give a place to the head of the line."""
        turn, _ = self.line.popitem(last=False)
        if not turn.done():
            self.granted += 1
            turn.set_result(None)

    def fail(self, error: Exception) -> None:
        """End everybody's waiting."""
        line, self.line = self.line, OrderedDict()
        for turn in line:
            if not turn.done():
                turn.set_exception(error)
