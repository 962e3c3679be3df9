"""picows with orjson and pybase64: the fastest that a Python user can put together from parts.

Its server answers in the callback, without a coroutine, which saves the task that a handler with an ``await``
in it would need. Frames are read where picows has them, without a copy of their bytes. Corking the sockets by
hand, so that a batch leaves in few segments, was tried as well, and gained nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import orjson
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from bench.driving import Ask
from bench.message import LARGEST
from bench.orjson_message import answer, checked, request

TEXT = WSMsgType.TEXT

Waiting: TypeAlias = dict[str, asyncio.Future[dict[str, Any]]]
"""Who waits for the answer to which message."""


class Writing(WSListener):
    """What both ends have in common: what waits to be written is bounded by what is in flight."""

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


class Answering(Writing):
    """The server's end of a connection."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is TEXT:
            transport.send(TEXT, answer(frame.get_payload_as_memoryview()))
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()


class Asking(Writing):
    """The client's end."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Waiting = {}

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is TEXT:
            response = orjson.loads(frame.get_payload_as_memoryview())
            waiter = self.waiting.get(response["message_id"])
            if waiter is not None and not waiter.done():
                waiter.set_result(response)


@asynccontextmanager
async def connect(address: str, _in_flight: int) -> AsyncIterator[Ask]:
    transport, listener = await ws_connect(Asking, address, max_frame_size=LARGEST)
    assert isinstance(listener, Asking)
    waiting, create_future = listener.waiting, asyncio.get_running_loop().create_future

    async def ask(payload: bytes) -> None:
        message_id, message = request(payload)
        waiter = waiting[message_id] = create_future()
        try:
            transport.send(TEXT, message)
            response = await waiter
        finally:
            del waiting[message_id]
        checked(response, message_id, payload)

    yield ask
    transport.send_close()
    await transport.wait_disconnected()


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    server = await ws_create_server(lambda _: Answering(), "127.0.0.1", 0, max_frame_size=LARGEST)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
