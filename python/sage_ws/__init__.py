"""sage_ws: agents talk over WebSocket, wire-compatible with SAGE.

What a user pastes::

    import asyncio
    from sage_ws import SecureMessage, connect, serve

    async def handler(message):
        return message.payload.upper()

    async def main():
        async with serve(handler, "127.0.0.1", 8080):
            async with connect("ws://127.0.0.1:8080/ws") as client:
                response = await client.send(SecureMessage(payload=b"hello", did="did:sage:ethereum:0x1"))
                print(response.data)

    asyncio.run(main())
"""

from __future__ import annotations

from sage_ws._core import name as core_name
from sage_ws.aio.client import Client, connect
from sage_ws.aio.run import run
from sage_ws.aio.server import Server, serve
from sage_ws.aio.state import State
from sage_ws.compression import Deflate
from sage_ws.dedupe import DedupeMemory, DedupeSQLite
from sage_ws.errors import (
    AnsweredError,
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DialError,
    DialTimeoutError,
    DuplicateIdError,
    HandlerError,
    MaybeDeliveredError,
    MessageTooBigError,
    NotSentError,
    QueueTimeoutError,
    ReadTimeoutError,
    RefusedError,
    SageError,
    TransportError,
    WriteTimeoutError,
)
from sage_ws.handler import Call, Connection, Handler, Outcome, UpgradeRequest
from sage_ws.interceptors import current_call
from sage_ws.message import Reply, Response, SecureMessage
from sage_ws.options import (
    UNSET,
    ClientOptions,
    CommonOptions,
    Dedupe,
    Headers,
    HeadersFactory,
    Interceptor,
    Next,
    Seconds,
    ServerOptions,
    Unset,
)
from sage_ws.router import Router
from sage_ws.transport import MessageTransport, TransportFactory, register, schemes, select_by_url

__all__ = [
    "UNSET",
    "AnsweredError",
    "Call",
    "Client",
    "ClientOptions",
    "ClosedError",
    "CommonOptions",
    "Connection",
    "ConnectionLostError",
    "DecodeError",
    "Dedupe",
    "DedupeMemory",
    "DedupeSQLite",
    "Deflate",
    "DialError",
    "DialTimeoutError",
    "DuplicateIdError",
    "Handler",
    "HandlerError",
    "Headers",
    "HeadersFactory",
    "Interceptor",
    "MaybeDeliveredError",
    "MessageTooBigError",
    "MessageTransport",
    "Next",
    "NotSentError",
    "Outcome",
    "QueueTimeoutError",
    "ReadTimeoutError",
    "RefusedError",
    "Reply",
    "Response",
    "Router",
    "SageError",
    "Seconds",
    "SecureMessage",
    "Server",
    "ServerOptions",
    "State",
    "TransportError",
    "TransportFactory",
    "Unset",
    "UpgradeRequest",
    "WriteTimeoutError",
    "connect",
    "core_name",
    "current_call",
    "register",
    "run",
    "schemes",
    "select_by_url",
    "serve",
]


def __getattr__(name: str) -> str:
    """Look the version up in the metadata when it is asked for: `importlib.metadata` is slow to import."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("sage-ws")
        except PackageNotFoundError:  # run from a source tree that was never installed
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
