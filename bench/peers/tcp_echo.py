"""No protocol: a payload goes to a TCP server in Python and comes back; the loop and the kernel alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from bench.driving import Ask
from bench.message import check


class Answering(asyncio.Protocol):
    """The server's end of a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.WriteTransport", transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


class Asking(asyncio.Protocol):
    """The client's end; one payload at a time."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[bytes] | None = None
        self.missing = 0
        self.got = b""

    def expect(self, size: int) -> asyncio.Future[bytes]:
        """What comes back, when it is whole."""
        self.missing, self.got = size, b""
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        self.got += data
        if self.missing == 0 and self.waiter is not None:
            self.waiter.set_result(self.got)


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    host, _, port = address.rpartition(":")
    transport, protocol = await asyncio.get_running_loop().create_connection(Asking, host, int(port))

    async def ask(payload: bytes) -> None:
        coming = protocol.expect(len(payload))
        transport.write(payload)
        check(True, await coming == payload)

    yield ask
    transport.close()


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
