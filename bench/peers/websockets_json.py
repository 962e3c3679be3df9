"""`websockets` with json, base64 and a dict of futures: what a good user of it writes for this job.

Compression, on by default there, is off: it would cost much time, and save nothing over loopback.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect as dial
from websockets.asyncio.server import ServerConnection, serve as listen

from bench.driving import Ask
from bench.message import LARGEST, answer, check, request

Waiting: TypeAlias = dict[str, asyncio.Future[dict[str, Any]]]
"""Who waits for the answer to which message."""


async def handler(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(json.dumps(answer(json.loads(message))))


async def read_answers(connection: ClientConnection, waiting: Waiting) -> None:
    async for message in connection:
        response = json.loads(message)
        waiter = waiting.get(response["message_id"])
        if waiter is not None and not waiter.done():
            waiter.set_result(response)


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    waiting: Waiting = {}
    loop = asyncio.get_running_loop()
    async with dial(address, compression=None, max_size=LARGEST) as connection:
        reading = loop.create_task(read_answers(connection, waiting))

        async def ask(payload: bytes) -> None:
            message_id = str(uuid4())
            waiter = waiting[message_id] = loop.create_future()
            try:
                await connection.send(json.dumps(request(message_id, payload)))
                response = await waiter
            finally:
                del waiting[message_id]
            check(response["message_id"] == message_id, b64decode(response["data"]) == payload)

        yield ask
    await reading


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    async with listen(handler, "127.0.0.1", 0, compression=None, max_size=LARGEST) as listening:
        yield f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/ws"
