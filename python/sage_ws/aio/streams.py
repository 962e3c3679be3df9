"""Answers in parts: how they come to whoever iterates, and how they leave a handler.

Each stream has a *credit* of its own, the parts that its consumer has room for. So a slow consumer pauses
its own stream and no other, and neither end keeps more than a window of parts (docs/reference/wire.md,
"Streams").
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Self

from sage_ws.errors import DecodeError, ReadTimeoutError
from sage_ws.message import Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws.aio.answering import Answering
    from sage_ws.aio.asking import Asking

WINDOW = 16
"""Parts that a consumer has room for."""


class Incoming:
    """The parts of one answer, in order; to the core it is the waiter of the call.

    Args:
        link: where they come from.
        message_id: what they answer.
        read_timeout: seconds to wait for each part; infinity for no limit.
        deadline: loop time for all of them; infinity for no limit.

    Attributes:
        final: what ended the answer, once it has come.
    """

    __slots__ = (
        "_deadline",
        "_error",
        "_freed",
        "_link",
        "_message_id",
        "_over",
        "_parts",
        "_read_timeout",
        "_some",
        "_waiter",
        "final",
    )

    def __init__(self, link: Asking, message_id: str, read_timeout: float, deadline: float) -> None:
        self._link = link
        self._message_id = message_id
        self._read_timeout = read_timeout
        self._deadline = deadline
        self._parts: deque[Response] = deque()
        self.final: Response | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._freed = 0
        self._some = False
        self._over = False

    # ── called by the link ────────────────────────────────────────────────────────────

    def part(self, response: Response) -> bool:
        """A part has come; False where the peer had no leave to send it."""
        if self._over:  # what came with the one too many
            return True
        self._parts.append(response)
        self._some = True
        self._wake()
        return len(self._parts) <= WINDOW

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self._over

    def set_result(self, response: Response) -> None:
        """The last of the answer has come."""
        self._over = True
        self.final = response
        self._wake()

    def set_exception(self, error: Exception) -> None:
        """There will be no more of it."""
        self._over = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ── called by the consumer ────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            await self._wait()
        part = self._parts.popleft()
        self._freed += 1
        if self._freed >= WINDOW // 2 and not self._over:
            freed, self._freed = self._freed, 0
            self._link.grant(self._message_id, freed)
        return part

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        until = min(self._deadline, loop.time() + self._read_timeout)
        try:
            async with asyncio.timeout_at(None if until == inf else until):
                await self._waiter
        except TimeoutError:
            self.close()
            raise ReadTimeoutError(
                "no further part came in time" if self._some else "no answer came in time",
                message_id=self._message_id,
            ) from None
        finally:
            self._waiter = None

    def close(self) -> bool:
        """Nobody wants the rest: the peer is told to stop, if it was not done; returns whether it was not."""
        was_over, self._over = self._over, True
        if not was_over:
            self._link.forget(self._message_id)
        self._parts.clear()
        return not was_over

    def refuse(self, text: str) -> None:
        """The peer broke the rules of streams: no more of it is taken."""
        if not self._over:
            self._link.forget(self._message_id)
            self.set_exception(DecodeError(text))


class StreamEnded(ConnectionError):
    """Nobody takes further parts."""


class Outgoing:
    """Takes the parts of a handler's answer, as fast as the consumer has room for them.

    Args:
        link: where they go.
        message: what they answer.
        credit: parts that there is room for.
    """

    __slots__ = ("_credit", "_in_a_row", "_link", "_message", "_waiter")

    def __init__(self, link: Answering, message: SecureMessage, credit: int) -> None:
        self._link = link
        self._message = message
        self._credit = credit
        self._in_a_row = 0
        self._waiter: asyncio.Future[None] | None = None

    async def __call__(self, part: bytes) -> None:
        """Send a part when there is room for it.

        Raises:
            StreamEnded: the connection is gone, or the handler was cancelled.
            MessageTooBigError: over ``max_message_size``.
        """
        link = self._link
        while not self._ends() and (self._credit <= 0 or link.overfull()):
            await self._wait()
            self._in_a_row = 0
        if self._in_a_row == WINDOW:  # whatever the peer has room for, others get their turn
            self._in_a_row = 0
            await asyncio.sleep(0)
        if self._ends():
            raise StreamEnded
        self._credit -= 1
        self._in_a_row += 1
        link.send_part(self._message, part)

    async def _wait(self) -> None:
        is_starved = self._credit <= 0
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            if is_starved:
                self._link.starved(1)
            await self._waiter
        finally:
            self._waiter = None
            if is_starved:
                self._link.starved(-1)

    def _ends(self) -> bool:
        return self._link.ended is not None or self._link.is_stopped(self._message)

    def more(self, parts: int) -> None:
        """The consumer has room for so many more."""
        self._credit += parts
        self.wake()

    def wake(self) -> None:
        """Look again: there is credit, the peer reads again, or the connection has ended."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """There are no more parts."""
        self._link.stream_ended(self._message.id, self)
