"""gRPC: a unary call for each message, the same JSON and base64 as its bytes, grpc.aio at both ends.

No protobuf: what is compared is how messages travel, so that the message itself is the other peers'.
"""

from __future__ import annotations

import importlib.util
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from bench.driving import Ask, drive
from bench.message import answer, check, request
from bench.shapes import Round, Wanted

SERVICE, METHOD = "sage.Transport", "Send"

# Channels to one address share a connection otherwise, and 64 connections would be one.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def handler(asked: bytes, _context: Any) -> bytes:
    return json.dumps(answer(json.loads(asked))).encode()


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    import grpc  # type: ignore[import-untyped]

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
    import grpc

    methods = {METHOD: grpc.unary_unary_rpc_method_handler(handler)}
    server = grpc.aio.server(handlers=[grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Grpc:
    """See `bench.peers.Peer`."""

    name = "grpc"
    title = "gRPC, grpc.aio both ends"
    environment: Mapping[str, str] = {}

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("grpc") else "grpcio is not installed"

    def versions(self) -> Mapping[str, str]:
        return {"grpcio": version("grpcio")}

    def serve(self) -> AbstractAsyncContextManager[str]:
        return serve()

    async def drive(self, address: str, wanted: Wanted) -> Round:
        return await drive(connect, address, wanted)


PEER = Grpc()
