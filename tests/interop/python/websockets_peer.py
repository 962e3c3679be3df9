"""A plain WebSocket peer on `websockets`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from control import emit, emit_message, obey
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection


class WebsocketsPeer:
    connection: Connection
    reading: asyncio.Task[None]

    async def listen(self) -> int:
        server = await serve(self._read, "127.0.0.1", 0, max_size=None, ping_interval=None)
        return int(next(iter(server.sockets)).getsockname()[1])

    async def dial(self, url: str) -> None:
        connection = await connect(url, max_size=None, ping_interval=None, proxy=None)
        self.reading = asyncio.create_task(self._read(connection))

    async def _read(self, connection: Connection) -> None:
        self.connection = connection
        emit("opened")
        try:
            while True:
                emit_message(await connection.recv())
        except ConnectionClosed:
            await connection.wait_closed()
            emit("closed", code=connection.close_code, reason=connection.close_reason)

    async def send(self, text: str, kind: str) -> None:
        await self.connection.send(text, text=kind == "text")

    async def send_parts(self, parts: Sequence[str]) -> None:
        async def with_pings() -> AsyncIterator[str]:
            for index, part in enumerate(parts):
                if index:
                    await self.connection.ping(f"between {index}")
                yield part

        await self.connection.send(with_pings())

    async def ping(self, text: str) -> None:
        await (await self.connection.ping(text))
        emit("pong", text=text)

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)


if __name__ == "__main__":
    asyncio.run(obey(WebsocketsPeer()))
