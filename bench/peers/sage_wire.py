"""What only two ends of sage_ws can do: the server asks, both ask at once, answers come in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sage_ws
from bench.driving import Ask
from bench.message import CONTEXT_ID, DID, METADATA, PARTS, ROLE, SIGNATURE, TASK_ID, check
from bench.peers.sage import Sage, echo
from sage_ws import Call, SecureMessage


def asked(payload: bytes) -> SecureMessage:
    """A message with an id of its own."""
    return SecureMessage(payload, DID, "", SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)


class Reversed(Sage):
    """The server asks: the process that drives has it, and the other one's client answers.

    That one dials the address that it finds in a message, and hangs up when it finds it again.
    """

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        dialled: dict[str, sage_ws.Client] = {}

        async def obey(message: SecureMessage) -> bytes:
            where = message.payload.decode()
            client = dialled.pop(where, None)
            if client is None:
                dialled[where] = self.dial(where, 1)
                await dialled[where].connect()
            else:
                await client.close()
            return b""

        async with sage_ws.serve(obey, "127.0.0.1", 0) as server:
            yield f"ws://127.0.0.1:{server.port}/ws"

    @asynccontextmanager
    async def connect(self, address: str, in_flight: int) -> AsyncIterator[Ask]:
        self.check_core()
        serving = sage_ws.serve(self.handler, "127.0.0.1", 0, encoding=self.encoding)
        async with serving as server, sage_ws.connect(address) as other:
            here = f"ws://127.0.0.1:{server.port}/ws".encode()
            await other.send(asked(here))
            (connection,) = server.connections
            yield self.asking(connection)
            await other.send(asked(here))


class Streams(Sage):
    """Each ask is a stream, whose parts are counted and checked one by one."""

    @asynccontextmanager
    async def connect(self, address: str, in_flight: int) -> AsyncIterator[Ask]:
        async with self.dial(address, in_flight) as client:

            async def ask(payload: bytes) -> None:
                message, count = asked(payload), 0
                async with client.stream(message) as parts:
                    async for part in parts:
                        check(part.message_id == message.id, part.data == payload)
                        count += 1
                check(True, count == PARTS)

            yield ask


async def ask_back(message: SecureMessage, call: Call) -> bytes:
    """Answer with what the caller answers."""
    assert call.connection is not None, "no message comes without one here"
    answer = await call.connection.send(asked(message.payload))
    return answer.data


async def repeat(message: SecureMessage) -> AsyncIterator[bytes]:
    for _ in range(PARTS):
        yield message.payload


ASKED_BY_SERVER = Reversed("rust", encoding="cbor", at_client=echo)
BOTH_WAYS = Sage("rust", encoding="cbor", handler=ask_back, at_client=echo)
STREAMS = Streams("rust", encoding="cbor", handler=repeat)
