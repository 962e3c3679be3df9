"""What is counted in Python: the crossing into `sage_ws._core`, then whole ends over loopback.

Run by `bench.instructions` under callgrind as ``python -m bench.instructions.package``; what it owes to
`bench.instructions.callgrind` is `mark` and `say`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Final, TypeAlias

import sage_ws
from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, payloads
from sage_ws import SecureMessage
from sage_ws._core import Connection

BATCH: Final = 16
"""Messages that come with one read."""
ROUNDS: Final = 12
"""Batches in a part, or as many messages alone; its twin has twice as many."""
WARM_UP: Final = 40
"""Batches before: the interpreter specialises its bytecode, buffers reach their size."""

Prepared: TypeAlias = Callable[[], object]


def message(payload: bytes, message_id: str = "") -> SecureMessage:
    return SecureMessage(payload, DID, message_id, SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)


REQUESTS: Final = [
    message(payload, f"m-{number:034}") for number, payload in enumerate(payloads(256)[:BATCH])
]


def mark() -> None:
    """Ends a part: callgrind writes what it has counted since the last mark."""
    os.getppid()


def say(name: str, operations: int) -> None:
    """Names what the next four marks enclose: its twin parts differ by this many operations."""
    print(json.dumps({"name": name, "operations": operations}), flush=True)


# ── the crossing ───────────────────────────────────────────────────────────────────────
def sent_requests() -> bytes:
    client = Connection("client")
    for request in REQUESTS:
        client.send_message(request, None, inf)
    return client.data_to_send()


def sent_answers() -> bytes:
    server = Connection("server")
    for request in server.receive_data(sent_requests()):
        server.send_response(request, request.payload)
    return server.data_to_send()


def receiving(rounds: int) -> Prepared:
    server, chunk = Connection("server"), sent_requests()

    def run() -> None:
        for _ in range(rounds):
            server.receive_data(chunk)

    return run


def answering(rounds: int) -> Prepared:
    server = Connection("server")

    def run() -> None:
        for _ in range(rounds):
            for request in REQUESTS:
                server.send_response(request, request.payload)
            server.data_to_send()

    return run


def building(rounds: int) -> Prepared:
    sources = payloads(256)[:BATCH]

    def run() -> None:
        for _ in range(rounds):
            for payload in sources:
                message(payload)

    return run


def used_client() -> Connection:
    """A client whose table has its size, and nothing in it. Each round takes one of its own: hashes differ
    from table to table and from run to run, and so does the number of comparisons."""
    client = Connection("client")
    for request in REQUESTS:
        client.send_message(request, None, inf)
    client.data_to_send()
    for request in REQUESTS:
        client.forget(request.id)
    return client


def asking(rounds: int) -> Prepared:
    clients = [used_client() for _ in range(rounds)]

    def run() -> None:
        for client in clients:
            for request in REQUESTS:
                client.send_message(request, None, inf)
            client.data_to_send()

    return run


def correlating(rounds: int) -> Prepared:
    clients, chunk = [used_client() for _ in range(rounds)], sent_answers()

    def run() -> None:
        for client in clients:
            for request in REQUESTS:
                client.send_message(request, None, inf)
            client.data_to_send()
            client.receive_data(chunk)

    return run


CROSSING: Final[dict[str, Callable[[int], Prepared]]] = {
    "server: receive_data, 16 requests a chunk": receiving,
    "server: send_response": answering,
    "client: SecureMessage with a fresh id": building,
    "client: send_message": asking,
    "client: send_message, then receive_data of 16 answers": correlating,
}


def count_crossing() -> None:
    for name, prepare in CROSSING.items():
        prepare(WARM_UP)()
        say(name, ROUNDS * BATCH)
        for rounds in (ROUNDS, 2 * ROUNDS):
            run = prepare(rounds)
            mark()
            run()
            mark()


# ── whole ends ─────────────────────────────────────────────────────────────────────────
async def handler(request: SecureMessage) -> bytes:
    return request.payload


@asynccontextmanager
async def bare_client(port: int) -> AsyncIterator[socket.socket]:
    """A socket behind the opening handshake: a client that costs as good as nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as bare:
        bare.setblocking(False)
        await loop.sock_connect(bare, ("127.0.0.1", port))
        opening = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await loop.sock_sendall(bare, opening.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await loop.sock_recv(bare, 1)
        yield bare


async def count_awaited(name: str, batch: int, exchange: Callable[[int], Awaitable[None]]) -> None:
    """Count what brings so many rounds of ``batch`` messages there and back."""
    await exchange(WARM_UP)
    once = ROUNDS * BATCH // batch
    say(name, once * batch)
    for rounds in (once, 2 * once):
        mark()
        await exchange(rounds)
        mark()


async def count_ends() -> None:
    loop = asyncio.get_running_loop()
    chunk, expected = sent_requests(), len(sent_answers())
    async with sage_ws.serve(handler, "127.0.0.1", 0, encoding="plain") as server:
        async with bare_client(server.port) as bare:

            async def bare_rounds(rounds: int) -> None:
                for _ in range(rounds):
                    bare.send(chunk)
                    left = expected
                    while left:
                        left -= len(await loop.sock_recv(bare, left))

            await count_awaited("server: read, dispatch, write, 16 at once", BATCH, bare_rounds)

        async with sage_ws.connect(f"ws://127.0.0.1:{server.port}/ws", encoding="plain") as client:

            async def one_by_one(rounds: int) -> None:
                payload = payloads(256)[0]
                for _ in range(rounds):
                    await client.send(message(payload))

            async def together(rounds: int) -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(BATCH):
                        group.create_task(one_by_one(rounds))

            await count_awaited("both ends: one in flight", 1, one_by_one)
            await count_awaited("both ends: 16 in flight", BATCH, together)


def main() -> None:
    gc.disable()
    count_crossing()
    asyncio.run(count_ends())


if __name__ == "__main__":
    main()
