"""The extended wire under peers that lie, repeat themselves and give up: what is kept, and what ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from sage_ws import (
    Call,
    ReadTimeoutError,
    SecureMessage,
    Server,
    connect,
    serve,
)

JSON = {"Sec-WebSocket-Protocol": "sage.1.json"}


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


def ask(peer: Any, message_id: str, payload: bytes = b"x", **fields: Any) -> None:
    encoded = base64.b64encode(payload).decode()
    peer.send_json({"kind": "request", "id": message_id, "payload": encoded, "did": "d", **fields})


def in_one_write(peer: Any, *values: Any) -> None:
    peer.write(b"".join(peer.frame(0x1, json.dumps(value).encode()) for value in values))


def request(message_id: str, payload: bytes = b"x", **fields: Any) -> dict[str, Any]:
    encoded = base64.b64encode(payload).decode()
    return {"kind": "request", "id": message_id, "payload": encoded, "did": "d", **fields}


class Waiting:
    """A handler that waits for its word to go on, but for those asked with ``now``."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.ran: list[bytes] = []

    async def __call__(self, message: SecureMessage) -> bytes:
        self.ran.append(message.payload)
        if message.payload == b"brief":
            await asyncio.sleep(0.3)
        elif message.payload != b"now":
            await self.go_on.wait()
        return message.payload


class TestTimes:
    async def test_a_stream_without_a_deadline_gives_nested_calls_their_usual_time(self) -> None:
        told: list[float | None] = []

        async def never(message: SecureMessage) -> None:
            await asyncio.Event().wait()

        async with serve(never) as bank, connect(url(bank), read_timeout=0.1) as to_bank:

            async def agent(message: SecureMessage, call: Call) -> AsyncIterator[bytes]:
                told.append(call.deadline)
                try:
                    await to_bank.send(message.replace(id=""))
                except ReadTimeoutError:
                    yield b"timed out"

            async with serve(agent) as server, connect(url(server)) as client:
                async with asyncio.timeout(5), client.stream(message()) as parts:
                    assert [part.data async for part in parts] == [b"timed out"]
        assert told == [None]

    async def test_a_deadline_far_away_does_not_lift_read_timeout(self) -> None:
        async def never(message: SecureMessage) -> None:
            await asyncio.Event().wait()

        async with serve(never) as bank, connect(url(bank), read_timeout=0.1) as to_bank:

            async def agent(message: SecureMessage) -> bytes:
                try:
                    await to_bank.send(message.replace(id=""))
                except ReadTimeoutError:
                    return b"timed out"
                return b""

            async with serve(agent) as server, connect(url(server)) as client:
                async with asyncio.timeout(5):
                    assert (await client.send(message(), timeout=1000)).data == b"timed out"

    async def test_a_client_first_used_under_a_deadline_does_not_keep_it(self) -> None:
        async def back(message: SecureMessage, call: Call) -> bytes:
            assert call.connection is not None
            return (await call.connection.send(message.replace(id=""))).data

        async with serve(lambda message: b"done") as bank:
            client_of_bank = connect(url(bank), handler=back)

            async def agent(message: SecureMessage) -> bytes:
                return (await client_of_bank.send(message.replace(id=""))).data

            async with serve(agent) as server, connect(url(server)) as client:
                assert (await client.send(message(), timeout=0.5)).data == b"done"
                await asyncio.sleep(0.6)
                (connection,) = bank.connections
                assert (await connection.send(message())).data == b"done"
            await client_of_bank.close()
