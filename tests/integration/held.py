"""A handler whose answer a test holds back."""

from __future__ import annotations

import asyncio

from sage_ws import SecureMessage


class Held:
    """Answers ``done`` once it is told to.

    Attributes:
        started: a message has come.
        go_on: set by the test.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, message: SecureMessage) -> bytes:
        self.started.set()
        await self.go_on.wait()
        return b"done"
