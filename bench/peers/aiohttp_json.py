"""HTTP: a POST for each message, in the same JSON and base64, aiohttp at both ends, connections kept alive.

HTTP/1.1 has no second request on a connection before the first is answered, so that "in flight on one
connection" is a session here, with a pool of so many connections.
"""

from __future__ import annotations

import importlib.util
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import uuid4

from bench.driving import Ask, drive
from bench.message import answer, check, request
from bench.shapes import Round, Wanted

if TYPE_CHECKING:
    from aiohttp import web


async def handler(posted: web.Request) -> web.Response:
    from aiohttp import web

    return web.json_response(answer(json.loads(await posted.read())))


@asynccontextmanager
async def connect(address: str, in_flight: int) -> AsyncIterator[Ask]:
    import aiohttp

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
    from aiohttp import web

    app = web.Application()
    app.router.add_post("/messages", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/messages"
    finally:
        await runner.cleanup()


class Http:
    """See `bench.peers.Peer`."""

    name = "http"
    title = "HTTP, aiohttp both ends"
    environment: Mapping[str, str] = {}

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("aiohttp") else "aiohttp is not installed"

    def versions(self) -> Mapping[str, str]:
        return {"aiohttp": version("aiohttp")}

    def serve(self) -> AbstractAsyncContextManager[str]:
        return serve()

    async def drive(self, address: str, wanted: Wanted) -> Round:
        return await drive(connect, address, wanted)


PEER = Http()
