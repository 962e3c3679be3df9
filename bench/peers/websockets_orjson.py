"""`websockets` with orjson and pybase64, on uvloop: the same library for a user who wants speed from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

import orjson
from websockets.asyncio.client import ClientConnection, connect as dial
from websockets.asyncio.server import ServerConnection, serve as listen
from websockets.exceptions import ConnectionClosed

from bench.driving import Ask
from bench.message import LARGEST
from bench.orjson_message import answer, checked, request

Waiting: TypeAlias = dict[str, asyncio.Future[dict[str, Any]]]
"""Who waits for the answer to which message."""


async def handler(connection: ServerConnection) -> None:
    try:
        while True:
            await connection.send(answer(await connection.recv(decode=False)), text=True)
    except ConnectionClosed:
        pass


async def read_answers(connection: ClientConnection, waiting: Waiting) -> None:
    try:
        while True:
            response = orjson.loads(await connection.recv(decode=False))
            waiter = waiting.get(response["message_id"])
            if waiter is not None and not waiter.done():
                waiter.set_result(response)
    except ConnectionClosed:
        pass


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    waiting: Waiting = {}
    loop = asyncio.get_running_loop()
    async with dial(address, compression=None, max_size=LARGEST) as connection:
        reading = loop.create_task(read_answers(connection, waiting))

        async def ask(payload: bytes) -> None:
            message_id, message = request(payload)
            waiter = waiting[message_id] = loop.create_future()
            try:
                await connection.send(message, text=True)
                response = await waiter
            finally:
                del waiting[message_id]
            checked(response, message_id, payload)

        yield ask
    await reading


@asynccontextmanager
async def serve(ping_interval: float = 20) -> AsyncIterator[str]:
    options: dict[str, Any] = {"compression": None, "max_size": LARGEST, "ping_interval": ping_interval}
    async with listen(handler, "127.0.0.1", 0, **options) as listening:
        yield f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/ws"


PINGING = SimpleNamespace(serve=partial(serve, ping_interval=1), connect=connect)
