"""gRPC: a unary call for each message, the same JSON and base64 as its bytes, grpc.aio at both ends.

No protobuf: what is compared is how messages travel, so that the message itself is the other peers'.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]

from bench.driving import Ask
from bench.message import LARGEST, answer, check, request

SERVICE, METHOD = "sage.Transport", "Send"

# Channels to one address share a connection otherwise, and 64 connections would be one.
LIMITS = [("grpc.max_send_message_length", LARGEST), ("grpc.max_receive_message_length", LARGEST)]
OPTIONS = [("grpc.use_local_subchannel_pool", 1), *LIMITS]


async def handler(asked: bytes, _context: Any) -> bytes:
    return json.dumps(answer(json.loads(asked))).encode()


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}")

        async def ask(payload: bytes) -> None:
            message_id = str(uuid4())
            response = json.loads(await call(json.dumps(request(message_id, payload)).encode()))
            check(response["message_id"] == message_id, b64decode(response["data"]) == payload)

        yield ask


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    methods = {METHOD: grpc.unary_unary_rpc_method_handler(handler)}
    handlers = [grpc.method_handlers_generic_handler(SERVICE, methods)]
    server = grpc.aio.server(handlers=handlers, options=LIMITS)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
