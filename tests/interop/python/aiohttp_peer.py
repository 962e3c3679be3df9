"""A plain WebSocket peer on aiohttp, which cannot write fragments."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from control import emit, emit_message, obey

Connection: TypeAlias = ClientWebSocketResponse | web.WebSocketResponse


class AiohttpPeer:
    session: ClientSession
    connection: Connection
    reading: asyncio.Task[None]
    ended: asyncio.Event

    async def listen(self) -> int:
        app = web.Application()
        app.router.add_get("/ws", self._accept)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(autoping=False)
        await connection.prepare(request)
        await self._adopt(connection).wait()
        return connection

    async def dial(self, url: str) -> None:
        self.session = ClientSession()
        self._adopt(await self.session.ws_connect(url, autoping=False, compress=15))

    def _adopt(self, connection: Connection) -> asyncio.Event:
        self.connection, self.ended = connection, asyncio.Event()
        self.reading = asyncio.create_task(self._read(connection, self.ended))
        emit("opened")
        return self.ended

    async def _read(self, connection: Connection, ended: asyncio.Event) -> None:
        reason = ""
        while (message := await connection.receive()).type is not WSMsgType.CLOSED:
            if message.type is WSMsgType.CLOSING:
                return  # `close` has the reply, and tells
            if message.type is WSMsgType.PING:
                await connection.pong(message.data)
            elif message.type is WSMsgType.PONG:
                emit("pong", text=bytes(message.data).decode())
            elif message.type is WSMsgType.CLOSE:
                reason = message.extra or ""
            else:
                emit_message(message.data)
        emit("closed", code=connection.close_code, reason=reason)
        ended.set()

    async def send(self, text: str, kind: str) -> None:
        if kind == "text":
            await self.connection.send_str(text)
        else:
            await self.connection.send_bytes(text.encode())

    async def ping(self, text: str) -> None:
        await self.connection.ping(text.encode())

    async def close(self, code: int, reason: str) -> None:
        connection, reading, ended = self.connection, self.reading, self.ended
        if isinstance(connection, web.WebSocketResponse):
            # Closing while another task reads, this one would not wait for the reply: 1000 whatever comes.
            reading.cancel()
            await asyncio.wait([reading])
        await connection.close(code=code, message=reason.encode())
        emit("closed", code=connection.close_code, reason="")
        ended.set()


if __name__ == "__main__":
    asyncio.run(obey(AiohttpPeer()))
