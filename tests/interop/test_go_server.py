"""Our client against a stock Go server, on gorilla/websocket: it must not notice who calls."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from sage_ws import (
    Client,
    ConnectionLostError,
    DecodeError,
    MaybeDeliveredError,
    Response,
    SecureMessage,
    connect,
)

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger

pytestmark = pytest.mark.timeout(60, func_only=True)

StartServer = Callable[..., Awaitable["Program"]]
Connect = Callable[..., Awaitable[Client]]

HOLD = {"do": "hold"}
"""Metadata that make the Go server keep its answer back."""
LONG = "x" * 60_000


@pytest.fixture
def go_server(go_stranger: Stranger, run: Callable[..., Awaitable[Program]]) -> StartServer:
    """``server = await go_server("-flag", …)``: a Go server; `open_client` connects to it."""

    async def start(*flags: str) -> Program:
        return await run(go_stranger, "server", *flags)

    return start


@pytest.fixture
async def open_client() -> Any:
    """``client = await open_client(server, option=…)``: a client of ours, closed at the end."""
    async with AsyncExitStack() as clients:

        async def open_one(server: Program, **options: Any) -> Client:
            port = (await server.event("listening"))["port"]
            client = connect(f"ws://127.0.0.1:{port}/ws", **{"backoff": lambda _: 0, **options})
            await clients.enter_async_context(client)
            await server.event("opened")
            return client

        yield open_one


def message(message_id: str = "m-1", payload: bytes = b"hi", **fields: Any) -> SecureMessage:
    return SecureMessage(id=message_id, payload=payload, did="did:sage:ours", **fields)


async def held(server: Program, client: Client, **fields: Any) -> asyncio.Task[Response]:
    """A call that the Go server has read and does not answer by itself."""
    call = asyncio.create_task(client.send(message(metadata=HOLD, **fields)))
    assert (await server.event("received"))["id"] == "m-1"
    return call


def response_json(**fields: Any) -> str:
    """An answer to the held call as text, but for what is told otherwise."""
    return json.dumps({"success": True, "message_id": "m-1", "data": "aGk=", **fields})


async def echoes(client: Client, count: int, size: int) -> None:
    """So many calls at once, each answered by its own payload."""

    async def call(number: int) -> None:
        payload = bytes((31 * i + number) & 0xFF for i in range(251)) * (size // 251 + 1)
        asked = message(f"call-{number}", payload[:size], task_id=f"task-{number}")
        response = await client.send(asked, timeout=40)
        assert response == Response(message_id=asked.id, task_id=asked.task_id, data=asked.payload)

    async with asyncio.TaskGroup() as calls:
        for number in range(count):
            calls.create_task(call(number))


# ── messages ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("in_flight", [1, 64])
@pytest.mark.parametrize(
    # A Go server sends up to two buffers of 1024 B as frames; what is more is one frame and an empty one.
    ("size", "unfinished", "empty"),
    [(1, 0, 0), (700, 0, 0), (1_000, 1, 0), (1_400, 1, 0), (1_600, 1, 1), (65_536, 1, 1), (1 << 20, 1, 1)],
)
async def test_calls(
    go_server: StartServer, open_client: Connect, size: int, unfinished: int, empty: int, in_flight: int
) -> None:
    server = await go_server()
    client = await open_client(server)
    await echoes(client, in_flight, size)
    frames = await server.ask("frames", "frames")
    assert (frames["unfinished"], frames["empty"]) == (unfinished * in_flight, empty * in_flight)


async def test_the_stall_that_deadlocks_go(go_server: StartServer, open_client: Connect) -> None:
    """It writes each answer before it reads on, of 22 MB: ours reads while its writes are stuck."""
    server = await go_server("-write-deadline", "10s")
    client = await open_client(server)
    await echoes(client, 256, 65_536)


async def test_every_field_arrives(go_server: StartServer, open_client: Connect) -> None:
    text = 'ä "\\ <&> \u2028 🙂'
    server = await go_server()
    client = await open_client(server)
    sent = SecureMessage(
        id="id " + text,
        context_id="context " + text,
        task_id="task " + text,
        payload=bytes(range(256)),
        did="did:sage:" + text,
        signature=b"\x01\x02\x03",
        metadata={text: text, "": "empty key", "z": ""},
        role="agent",
    )
    response = await client.send(sent)
    assert (await server.event("received"))["message"] == {
        "id": sent.id,
        "context_id": sent.context_id,
        "task_id": sent.task_id,
        "payload": base64.b64encode(sent.payload).decode(),
        "did": sent.did,
        "signature": "AQID",
        "metadata": dict(sent.metadata),
        "role": "agent",
    }
    assert response == Response(message_id=sent.id, task_id=sent.task_id, data=sent.payload)


async def test_what_is_not_given_does_not_arrive(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    await client.send(message())
    received = (await server.event("received"))["message"]
    assert received == {
        "id": "m-1",
        "payload": "aGk=",
        "did": "did:sage:ours",
        "signature": received["signature"],
    }
    assert not received["signature"]


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_pings_between_fragments(go_server: StartServer, open_client: Connect, kind: str) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("write", kind=kind, text=response_json(data=LONG), pings=True)
    assert (await call).data == base64.b64decode(LONG)
    frames = await server.ask("frames", "frames")
    assert frames["unfinished"] >= 4
    assert frames["pings"] >= 4
    for _ in range(frames["pings"]):
        assert (await server.event("pong"))["text"] == "between"


async def test_binary_messages(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("write", kind="binary", text=response_json())
    assert await call == Response(message_id="m-1", data=b"hi")


async def test_keys_match_in_any_case(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    text = '{"SUCCESS":true,"Me\u017f\u017fage_Id":"m-1","TA\u017fK_id":"t-9","Data":"aGk=","ERROR":""}'
    await server.tell("write", text=text)
    assert await call == Response(message_id="m-1", task_id="t-9", data=b"hi")


# ── refusals ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("fields", "text"), [({"payload": b""}, "payload is required"), ({"did": ""}, "DID is required")]
)
async def test_validation_texts(
    go_server: StartServer, open_client: Connect, fields: dict[str, Any], text: str
) -> None:
    server = await go_server()
    client = await open_client(server)
    asked = SecureMessage(**{"payload": b"hi", "did": "did:sage:ours", "task_id": "t-1", **fields})
    response = await client.send(asked)
    assert response == Response(False, message_id=asked.id, task_id="t-1", error=text)


@pytest.mark.parametrize("text", ["no such task", 'a "quoted" <text> ä', ""])
async def test_handler_errors(go_server: StartServer, open_client: Connect, text: str) -> None:
    server = await go_server()
    client = await open_client(server)
    response = await client.send(message(task_id="t-1", metadata={"do": "fail", "text": text}))
    assert response == Response(False, message_id="m-1", task_id="t-1", error=text)


async def test_an_error_is_never_a_success(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("write", text=response_json(error="no"))
    assert await call == Response(False, message_id="m-1", data=b"hi", error="no")


async def test_bad_json_costs_no_call(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    for text in ("{broken", "[]", "", "{broken", '{"success": 1}'):
        await server.tell("write", text=text)
    await server.tell("write", text=response_json())
    assert (await call).data == b"hi"
    assert client.stats()["invalid"] == 5
    assert client.stats()["dials"] == 1


async def test_bad_json_with_the_id_of_a_call_ends_it(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("write", text=response_json(data=5))
    with pytest.raises(DecodeError) as caught:
        await call
    assert caught.value.field == "data"
    assert (await client.send(message("m-2"))).success
    assert client.stats()["dials"] == 1


# ── closing ────────────────────────────────────────────────────────────────────────────
async def test_our_close(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server, close_timeout=20)
    await client.send(message())
    async with asyncio.timeout(5):
        await client.close()
    closed = await server.event("closed")
    assert (closed["code"], closed["reason"]) == (1000, "")


async def test_its_close_ends_calls_and_the_next_dials(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("close")
    with pytest.raises(ConnectionLostError) as caught:
        await call
    assert (caught.value.code, caught.value.reason, caught.value.message_id) == (1000, "", "m-1")
    assert (await client.send(message("m-2"))).success
    assert client.stats()["dials"] == 2


@pytest.mark.parametrize(
    ("code", "reason"), [(1001, "going"), (1011, "ä"), (1012, ""), (3000, ""), (4999, "r" * 123)]
)
async def test_close_codes(go_server: StartServer, open_client: Connect, code: int, reason: str) -> None:
    server = await go_server()
    client = await open_client(server)
    call = await held(server, client)
    await server.tell("close_frame", code=code, reason=reason)
    with pytest.raises(ConnectionLostError) as caught:
        await call
    assert (caught.value.code, caught.value.reason) == (code, reason)
    closed = await server.event("closed")
    assert closed["code"] == code


# ── time ───────────────────────────────────────────────────────────────────────────────
async def test_an_idle_client_outlives_its_deadline(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server("-read-deadline", "2s")
    client = await open_client(server, keepalive_interval=1)
    await client.send(message())
    assert (await server.event("received"))["valid"]
    begun = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < begun + 3:
        received = await server.event("received")
        assert not received["valid"]  # its handler is not called
        assert received["message"]["did"] == "did:sage:ours"
        assert not received["message"]["payload"]
    assert (await client.send(message("m-2"))).success
    stats = client.stats()
    assert (stats["dials"], stats["answered"], stats["late"]) == (1, 2, 0)


async def test_without_the_keepalive_it_hangs_up(go_server: StartServer, open_client: Connect) -> None:
    server = await go_server("-read-deadline", "500ms")
    client = await open_client(server, keepalive_interval=None, ping_interval=0.1)
    call = await held(server, client)
    with pytest.raises(MaybeDeliveredError):
        await call
    assert "timeout" in (await server.event("closed"))["text"]
    assert (await client.send(message("m-2"))).success
    assert client.stats()["dials"] == 2
