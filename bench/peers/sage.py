"""sage_ws itself, both ends; options as they are by default, but for what a name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import sage_ws
from bench.driving import Ask
from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, check
from sage_ws import SecureMessage


async def echo(message: SecureMessage) -> bytes:
    return message.payload


def sleeping(seconds: float) -> Callable[[SecureMessage], Awaitable[bytes]]:
    """A handler that waits for something else before it answers."""

    async def sleep_and_echo(message: SecureMessage) -> bytes:
        await asyncio.sleep(seconds)
        return message.payload

    return sleep_and_echo


def own_id() -> str:
    """What a user writes who wants to choose it."""
    return str(uuid4())


@dataclass(frozen=True)
class Sage:
    """Both ends, `bench.peer.Ends`.

    Attributes:
        core: that this process must run.
        make_id: for each message; without it, the message makes its own.
        options: of both ends.
        handler: of the server.
    """

    core: Literal["rust", "pure"]
    make_id: Callable[[], str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    handler: Callable[[SecureMessage], Awaitable[bytes]] = echo

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        self._check_core()
        async with sage_ws.serve(self.handler, "127.0.0.1", 0, **self.options) as server:
            yield f"ws://127.0.0.1:{server.port}/ws"

    @asynccontextmanager
    async def connect(self, address: str, in_flight: int) -> AsyncIterator[Ask]:
        self._check_core()
        make_id = self.make_id
        async with sage_ws.connect(address, max_pending=max(1024, in_flight), **self.options) as client:

            async def ask(payload: bytes) -> None:
                own = make_id() if make_id else ""
                message = SecureMessage(payload, DID, own, SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)
                response = await client.send(message)
                check(response.message_id == message.id, response.data == payload)

            yield ask

    def _check_core(self) -> None:
        if sage_ws.core_name != self.core:
            raise RuntimeError(f"{self.core} was asked for, this process runs the {sage_ws.core_name} core")


RUST = Sage("rust")
PURE = Sage("pure")
UUID4 = Sage("rust", own_id)
BUSY = Sage("rust", options={"busy_poll": 60e-6})
PINGING = Sage("rust", options={"ping_interval": 1.0})
SLEEP_0, SLEEP_1, SLEEP_10 = (Sage("rust", handler=sleeping(ms / 1000)) for ms in (0, 1, 10))
