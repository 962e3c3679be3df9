"""A server's ``lifespan``: entered before it listens, left when it has ended, by one task and in one context.

Entering and leaving may happen in different tasks of the caller's; a context manager that sets a
context variable and resets it, or holds a cancel scope, must not see that. So it gets a task of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import AbstractAsyncContextManager


class Lifespan:
    """Runs one context manager.

    Args:
        manager: what the option made for this server.
    """

    __slots__ = ("_context", "_leave", "_manager", "_task")

    def __init__(self, manager: AbstractAsyncContextManager[object]) -> None:
        self._manager = manager
        self._leave = asyncio.Event()
        self._context: asyncio.Future[contextvars.Context] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="sage_ws lifespan")

    async def entered(self) -> contextvars.Context:
        """Wait until it is entered.

        Returns:
            Its context, for the handlers to run in: they see the variables that it has set.

        Raises:
            Exception: what it raised instead.
        """
        self._task.add_done_callback(self._failed)
        try:
            return await self._context
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    def _failed(self, task: asyncio.Task[None]) -> None:
        """It ended before it was entered, by an error of its own."""
        if self._context.done():
            return
        if task.cancelled():
            self._context.cancel()
        else:
            error = task.exception()
            self._context.set_exception(error or RuntimeError("lifespan ended before it began"))

    async def leave(self) -> None:
        """Leave it, and wait until that is done.

        Raises:
            Exception: what it raised.
        """
        self._leave.set()
        await self._task

    async def _run(self) -> None:
        async with self._manager:
            self._context.set_result(contextvars.copy_context())
            await self._leave.wait()
