"""HTTP: a POST for each message, in the same JSON and base64, aiohttp at both ends, connections kept alive.

HTTP/1.1 has no second request on a connection before the first is answered, so that "in flight on one
connection" is a session here, with a pool of so many connections.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
from aiohttp import web

from bench.driving import Ask
from bench.message import LARGEST, answer, check, request


async def handler(posted: web.Request) -> web.Response:
    return web.json_response(answer(json.loads(await posted.read())))


@asynccontextmanager
async def connect(address: str, in_flight: int) -> AsyncIterator[Ask]:
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def ask(payload: bytes) -> None:
            message_id = str(uuid4())
            async with session.post(address, json=request(message_id, payload)) as got:
                response = json.loads(await got.read())
            check(response["message_id"] == message_id, b64decode(response["data"]) == payload)

        yield ask


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    app = web.Application(client_max_size=LARGEST)
    app.router.add_post("/messages", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/messages"
    finally:
        await runner.cleanup()
