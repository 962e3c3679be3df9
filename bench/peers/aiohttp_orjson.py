"""aiohttp's WebSocket with orjson and pybase64, both ends: text is neither decoded nor encoded on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import orjson
from aiohttp import WSMsgType, web

from bench.driving import Ask
from bench.message import LARGEST
from bench.orjson_message import answer, checked, request

TEXT = WSMsgType.TEXT

Waiting: TypeAlias = dict[str, asyncio.Future[dict[str, Any]]]
"""Who waits for the answer to which message."""


async def handler(asked: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse(compress=False, max_msg_size=LARGEST, decode_text=False)
    await connection.prepare(asked)
    async for message in connection:
        await connection.send_frame(answer(message.data), TEXT)
    return connection


async def read_answers(connection: aiohttp.ClientWebSocketResponse[bool], waiting: Waiting) -> None:
    async for message in connection:
        response = orjson.loads(message.data)
        waiter = waiting.get(response["message_id"])
        if waiter is not None and not waiter.done():
            waiter.set_result(response)


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    waiting: Waiting = {}
    loop = asyncio.get_running_loop()
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.ws_connect(address, max_msg_size=LARGEST, decode_text=False) as connection,
    ):
        reading = loop.create_task(read_answers(connection, waiting))

        async def ask(payload: bytes) -> None:
            message_id, message = request(payload)
            waiter = waiting[message_id] = loop.create_future()
            try:
                await connection.send_frame(message, TEXT)
                response = await waiter
            finally:
                del waiting[message_id]
            checked(response, message_id, payload)

        yield ask
        await connection.close()
        await reading


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
    finally:
        await runner.cleanup()
