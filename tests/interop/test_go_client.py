"""A stock Go client, on gorilla/websocket, against our server: it must not notice whom it talks to."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from sage_ws import HandlerError, Response, SecureMessage, Server, serve

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger

pytestmark = pytest.mark.timeout(60, func_only=True)

Eventually = Callable[[Callable[[], object]], Awaitable[None]]
StartClient = Callable[..., Awaitable["Program"]]

FRAME = 4096
"""What a frame of a Go client holds at most."""
LONG = "x" * 60_000


async def echo(message: SecureMessage) -> bytes:
    return message.payload


@pytest.fixture
def go_client(go_stranger: Stranger, run: Callable[..., Awaitable[Program]]) -> StartClient:
    """``client = await go_client(server, "-flag", …)``: a Go client, connected to a server of ours."""

    async def start(server: Server, *flags: str) -> Program:
        client = await run(go_stranger, "client", *flags)
        await client.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        return client

    return start


def message_json(**fields: Any) -> str:
    """A sound message as text, but for what is told otherwise."""
    return json.dumps({"id": "m-1", "task_id": "t-1", "did": "did:sage:go", "payload": "aGk=", **fields})


async def call(client: Program, **fields: Any) -> dict[str, Any]:
    """One call of the Go client, answered; the response as Go read it."""
    message = {"id": "m-1", "did": "did:sage:go", "payload": "aGk=", **fields}
    answered = await client.ask("call", "answered", message=message, timeout=30)
    assert answered["id"] == message["id"]
    response: dict[str, Any] = answered["response"]
    return response


async def read(client: Program) -> dict[str, Any]:
    """The next response that the Go client read and had no call for."""
    response: dict[str, Any] = (await client.event("unmatched"))["response"]
    return response


# ── messages ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("in_flight", [1, 64])
@pytest.mark.parametrize(
    ("size", "frames"), [(1, 1), (700, 1), (2_900, 1), (3_100, 2), (65_536, 22), (1 << 20, 342)]
)
async def test_calls(go_client: StartClient, size: int, frames: int, in_flight: int) -> None:
    async with serve(echo, max_queue_bytes=128 << 20) as server:  # see the stall, below
        client = await go_client(server)
        count = 3 if in_flight == 1 else in_flight
        done = await client.ask("calls", "done", 40, count=count, in_flight=in_flight, size=size, timeout=30)
        assert (done["answered"], done["failures"]) == (count, {})
        counted = await client.ask("frames", "frames")
        assert counted["unfinished"] == counted["continuations"] == count * (frames - 1)
        assert counted["empty"] == 0


async def test_the_stall_that_deadlocks_go(go_client: StartClient) -> None:
    """It writes 22 MB before it reads, and is owed as many: ours reads on while its writes are stuck.

    What it has read and cannot answer yet must have room: that is ``max_queue_bytes``.
    """
    async with serve(echo, max_queue_bytes=32 << 20) as server:
        client = await go_client(server, "-write-deadline", "10s")
        done = await client.ask("calls", "done", 50, count=256, in_flight=256, size=65_536, timeout=40)
        assert (done["answered"], done["failures"]) == (256, {})


async def test_every_field_arrives(go_client: StartClient) -> None:
    seen: list[SecureMessage] = []

    async def handler(message: SecureMessage) -> Response:
        seen.append(message)
        return Response(data=b"\x00\xff data", error="")

    text = 'ä "\\ <&> \u2028 🙂'
    async with serve(handler) as server:
        client = await go_client(server)
        response = await call(
            client,
            id="id " + text,
            context_id="context " + text,
            task_id="task " + text,
            payload=base64.b64encode(bytes(range(256))).decode(),
            did="did:sage:" + text,
            signature="AQID",
            metadata={text: text, "": "empty key", "z": ""},
            role="agent",
        )
    assert seen == [
        SecureMessage(
            id="id " + text,
            context_id="context " + text,
            task_id="task " + text,
            payload=bytes(range(256)),
            did="did:sage:" + text,
            signature=b"\x01\x02\x03",
            metadata={text: text, "": "empty key", "z": ""},
            role="agent",
        )
    ]
    assert response == {
        "success": True,
        "message_id": "id " + text,
        "task_id": "task " + text,
        "data": base64.b64encode(b"\x00\xff data").decode(),
    }


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_pings_between_fragments(go_client: StartClient, kind: str) -> None:
    async with serve(echo) as server:
        client = await go_client(server)
        await client.tell("write", kind=kind, text=message_json(payload=LONG), pings=True)
        response = await read(client)
        assert response["data"] == LONG
        frames = await client.ask("frames", "frames")
        assert frames["unfinished"] >= len(LONG) // FRAME
        assert frames["pings"] >= 4
        for _ in range(frames["pings"]):
            assert (await client.event("pong"))["text"] == "between"


async def test_binary_messages(go_client: StartClient) -> None:
    async with serve(echo) as server:
        client = await go_client(server)
        await client.tell("write", kind="binary", text=message_json())
        assert await read(client) == {"success": True, "message_id": "m-1", "task_id": "t-1", "data": "aGk="}


async def test_keys_match_in_any_case(go_client: StartClient) -> None:
    seen: list[SecureMessage] = []

    async def handler(message: SecureMessage) -> None:
        seen.append(message)

    text = (
        '{"ID":"m-1","Context_Id":"c","ta\u017f\u212a_id":"t-1","PAYLOAD":"aGk=","Did":"did:sage:go",'
        '"\u017fignature":"AQ==","MetaData":{"KEY":"v"},"ROLE":"user"}'
    )
    async with serve(handler) as server:
        client = await go_client(server)
        await client.tell("write", text=text)
        assert await read(client) == {"success": True, "message_id": "m-1", "task_id": "t-1"}
    assert seen == [
        SecureMessage(
            id="m-1",
            context_id="c",
            task_id="t-1",
            payload=b"hi",
            did="did:sage:go",
            signature=b"\x01",
            metadata={"KEY": "v"},
            role="user",
        )
    ]


# ── refusals ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "error", "ids"),
    [
        ("{}", "message ID is required", {"message_id": ""}),
        ("null", "message ID is required", {"message_id": ""}),
        (message_json(id=""), "message ID is required", {"message_id": ""}),
        (message_json(id="", did=""), "message ID is required", {"message_id": ""}),
        (message_json(did=""), "DID is required", {"message_id": "m-1", "task_id": "t-1"}),
        (message_json(did=None, payload=None), "DID is required", {"message_id": "m-1", "task_id": "t-1"}),
        (message_json(payload="", task_id=""), "payload is required", {"message_id": "m-1"}),
        (message_json(payload=None), "payload is required", {"message_id": "m-1", "task_id": "t-1"}),
    ],
)
async def test_validation_texts(go_client: StartClient, text: str, error: str, ids: dict[str, str]) -> None:
    called: list[SecureMessage] = []
    async with serve(called.append) as server:
        client = await go_client(server)
        await client.tell("write", text=text)
        assert await read(client) == {"success": False, "error": error, **ids}
    assert called == []


async def test_bad_json_is_answered_and_three_in_a_row_close(
    go_client: StartClient, eventually: Eventually
) -> None:
    async with serve(echo, close_timeout=0.5) as server:
        client = await go_client(server)
        for text in ("{broken", '{"id": 5}', "[]"):
            await client.tell("write", text=text)
            response = await read(client)
            assert (response["success"], response["message_id"]) == (False, "")
            assert response["error"]
            assert (await call(client))["success"]  # the connection goes on, and the count begins anew
        for _ in range(3):
            await client.tell("write", text="{broken")
            assert not (await read(client))["success"]
        assert (await client.event("closed"))["code"] == 1008
        await client.ask("read_socket", "socket_end")
        await eventually(lambda: server.connection_count == 0)


async def test_a_wrong_type_is_named(go_client: StartClient) -> None:
    async with serve(echo) as server:
        client = await go_client(server)
        await client.tell("write", text=message_json(TASK_ID=5))
        assert "task_id" in (await read(client))["error"]


async def test_handler_errors(go_client: StartClient, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(message: SecureMessage) -> None:
        raise HandlerError("no such task") if message.payload == b"hi" else ValueError("a secret")

    async with serve(handler) as server:
        client = await go_client(server)
        answer = {"success": False, "message_id": "m-1", "task_id": "t-1"}
        assert await call(client, task_id="t-1") == {**answer, "error": "no such task"}
        response = await call(client, task_id="t-1", payload="AA==")
        assert response == {**answer, "error": "internal error"}
    assert "a secret" in caplog.text  # ours alone to read


@pytest.mark.parametrize("answer", [Response(), Response(task_id="mine"), b"", None])
async def test_the_task_id_is_filled_in(go_client: StartClient, answer: Response | bytes | None) -> None:
    async with serve(lambda _: answer) as server:
        client = await go_client(server)
        await client.tell("write", text=message_json())
        response = await read(client)
        task_id = answer.task_id if isinstance(answer, Response) and answer.task_id else "t-1"
        assert response == {"success": True, "message_id": "m-1", "task_id": task_id}


# ── closing ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["close", "drain"])
async def test_our_close_shuts_the_socket_that_go_leaves_open(go_client: StartClient, how: str) -> None:
    async with serve(echo, close_timeout=60) as server:
        client = await go_client(server)
        await call(client)
        async with asyncio.timeout(20):
            await getattr(server, how)()
        assert (await client.event("closed"))["code"] == 1001
        await client.ask("read_socket", "socket_end")
        failed = await client.ask("call", "failed", message={"id": "m-2"}, timeout=1)
        assert failed["text"] == "websocket: close sent"


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (1011, "ä"), (3000, ""), (4999, "r" * 123)]
)
async def test_a_close_frame_is_echoed_and_the_socket_shut(
    go_client: StartClient, eventually: Eventually, code: int, reason: str
) -> None:
    async with serve(echo, close_timeout=20) as server:
        client = await go_client(server)
        await call(client)
        closed = await client.ask("close_frame", "closed", code=code, reason=reason)
        assert (closed["code"], closed["reason"]) == (code, "")
        await client.ask("read_socket", "socket_end")
        await eventually(lambda: server.connection_count == 0)


async def test_its_close_ends_the_connection_quietly(
    go_client: StartClient, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(echo, close_timeout=20) as server:
        client = await go_client(server)
        await call(client)
        await client.tell("close")
        await eventually(lambda: server.connection_count == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# ── time ───────────────────────────────────────────────────────────────────────────────
async def test_an_idle_client_outlives_its_read_deadline(go_client: StartClient) -> None:
    async with serve(echo, keepalive_interval=1) as server:
        client = await go_client(server, "-read-deadline", "2s")
        await call(client)
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + 3:
            assert (await read(client))["message_id"] == ""  # no call of its own has that id
        assert (await call(client, id="m-2"))["message_id"] == "m-2"
        assert server.stats()["accepted"] == 1


async def test_without_the_keepalive_it_goes_deaf_and_is_cut(
    go_client: StartClient, eventually: Eventually
) -> None:
    """It keeps its socket and takes no more bytes: only the deadline of our writes can end that."""
    asked = asyncio.Event()

    async def handler(message: SecureMessage) -> bytes:
        if message.id == "m-1":
            return b""
        asked.set()
        await deaf.wait()
        return bytes(10_000_000)

    deaf = asyncio.Event()
    async with serve(handler, keepalive_interval=None, write_timeout=0.3, ping_interval=None) as server:
        client = await go_client(server, "-read-deadline", "500ms")
        await call(client)
        await client.tell("call", message={"id": "m-2", "did": "did:sage:go", "payload": "aGk="}, timeout=1)
        await asked.wait()
        assert "timeout" in (await client.event("closed"))["text"]
        deaf.set()
        await eventually(lambda: server.connection_count == 0)
        assert (await client.event("failed"))["text"] == "timeout"
