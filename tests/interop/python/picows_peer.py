"""A plain WebSocket peer on picows, which hands out frames: its messages are put together here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from control import emit, emit_message, obey
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)


class PicowsPeer:
    connection: WSTransport

    async def listen(self) -> int:
        def accept(_request: WSUpgradeRequest) -> WSListener:
            return Reading(self)

        server = await ws_create_server(accept, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def dial(self, url: str) -> None:
        await ws_connect(lambda: Reading(self), url)

    async def send(self, text: str, kind: str) -> None:
        self.connection.send(WSMsgType.TEXT if kind == "text" else WSMsgType.BINARY, text.encode())

    async def send_parts(self, parts: Sequence[str]) -> None:
        kind, last = WSMsgType.TEXT, len(parts) - 1
        for index, part in enumerate(parts):
            self.connection.send(kind, part.encode(), fin=index == last)
            kind = WSMsgType.CONTINUATION
            if index < last:
                self.connection.send_ping(b"between")

    async def ping(self, text: str) -> None:
        self.connection.send_ping(text.encode())

    async def close(self, code: int, reason: str) -> None:
        self.connection.send_close(WSCloseCode(code), reason.encode())


class Reading(WSListener):
    """Where a connection's frames arrive."""

    def __init__(self, peer: PicowsPeer) -> None:
        super().__init__()
        self._peer = peer
        self._kind = WSMsgType.TEXT
        self._parts = b""
        self._close: tuple[int, str] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._peer.connection = transport
        emit("opened")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, payload = frame.msg_type, frame.get_payload_as_bytes()
        if kind is WSMsgType.CLOSE:
            self._close = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            if not transport.is_close_frame_sent:
                transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind is WSMsgType.PONG:
            emit("pong", text=payload.decode())
        elif kind is not WSMsgType.PING:
            if kind is not WSMsgType.CONTINUATION:
                self._kind, self._parts = kind, b""
            self._parts += payload
            if frame.fin:
                emit_message(self._parts.decode() if self._kind is WSMsgType.TEXT else self._parts)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        code, reason = self._close or (None, "")
        emit("closed", code=code, reason=reason)


if __name__ == "__main__":
    asyncio.run(obey(PicowsPeer()))
