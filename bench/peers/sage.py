"""sage_ws itself, both ends; options as they are by default, but for what a name says and for `encoding`.

Beside the other peers it speaks plain SAGE JSON, as they do: the same bytes. What it speaks with itself by
default, CBOR, is measured beside that, by `bench.wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import uuid4

import sage_ws
from bench.driving import Ask
from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, check
from sage_ws import Handler, Response, SecureMessage


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


class Sends(Protocol):
    """A client, or a server's connection."""

    async def send(self, message: SecureMessage) -> Response:
        """Ask."""
        ...


@dataclass(frozen=True)
class Sage:
    """Both ends, `bench.peer.Ends`.

    Attributes:
        core: that this process must run.
        make_id: for each message; without it, the message makes its own.
        encoding: of both ends.
        options: of both ends, beside it.
        handler: of the server.
        at_client: the client's own, for what the server asks.
    """

    core: Literal["rust", "pure"]
    make_id: Callable[[], str] | None = None
    encoding: Literal["auto", "cbor", "json", "plain"] = "plain"
    options: dict[str, Any] = field(default_factory=dict)
    handler: Handler = echo
    at_client: Handler | None = None

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        self.check_core()
        options = {"encoding": self.encoding, **self.options}
        async with sage_ws.serve(self.handler, "127.0.0.1", 0, **options) as server:
            yield f"ws://127.0.0.1:{server.port}/ws"

    @asynccontextmanager
    async def connect(self, address: str, in_flight: int) -> AsyncIterator[Ask]:
        async with self.dial(address, in_flight) as client:
            yield self.asking(client)

    def dial(self, address: str, in_flight: int) -> sage_ws.Client:
        """A client with these options, for so many messages at once."""
        self.check_core()
        options = {"encoding": self.encoding, "handler": self.at_client, **self.options}
        return sage_ws.connect(address, max_pending=max(1024, in_flight), **options)

    def asking(self, end: Sends) -> Ask:
        """What asks by this end."""
        make_id = self.make_id

        async def ask(payload: bytes) -> None:
            own = make_id() if make_id else ""
            message = SecureMessage(payload, DID, own, SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)
            response = await end.send(message)
            check(response.message_id == message.id, response.data == payload)

        return ask

    def check_core(self) -> None:
        """Whether this process runs it."""
        if sage_ws.core_name != self.core:
            raise RuntimeError(f"{self.core} was asked for, this process runs the {sage_ws.core_name} core")


RUST = Sage("rust")
PURE = Sage("pure")
UUID4 = Sage("rust", own_id)
BUSY = Sage("rust", options={"busy_poll": 60e-6})
PINGING = Sage("rust", options={"ping_interval": 1.0})
JSON = Sage("rust", encoding="json")
CBOR = Sage("rust", encoding="cbor")
PURE_JSON = Sage("pure", encoding="json")
PURE_CBOR = Sage("pure", encoding="cbor")
DEFLATE = Sage("rust", encoding="cbor", options={"compression": "deflate"})
SLEEP_0, SLEEP_1, SLEEP_10 = (Sage("rust", handler=sleeping(ms / 1000)) for ms in (0, 1, 10))
