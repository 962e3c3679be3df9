"""HTTP once more: httpx at the client, uvicorn on httptools with a bare ASGI application at the server."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

from bench.driving import Ask
from bench.message import answer, check, request

HEADERS = [(b"content-type", b"application/json")]


async def application(_scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    answered = json.dumps(answer(json.loads(body))).encode()
    length = (b"content-length", str(len(answered)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": answered})


@asynccontextmanager
async def connect(address: str, in_flight: int) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    # Without TLS there is nothing to verify; a client that might have to takes 20 ms to make.
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, verify=False) as client:

        async def ask(payload: bytes) -> None:
            message_id = str(uuid4())
            got = await client.post(address, json=request(message_id, payload))
            response = json.loads(got.content)
            check(response["message_id"] == message_id, b64decode(response["data"]) == payload)

        yield ask


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(application, http="httptools", lifespan="off", log_level="error", access_log=False)
        )
        serving = asyncio.create_task(server.serve([listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/messages"
        server.should_exit = True
        await serving
