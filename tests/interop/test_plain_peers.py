"""Peers that know WebSocket and nothing of SAGE, on five libraries, in both roles: SAGE is spoken here."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from sage_ws import Client, ConnectionLostError, Response, SecureMessage, connect, serve

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger

pytestmark = pytest.mark.timeout(60, func_only=True)

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

PYTHON = ("websockets", "aiohttp", "picows")
LIBRARIES = ("ws", *PYTHON, "tungstenite")
WRITE_FRAGMENTS = [library for library in LIBRARIES if library != "aiohttp"]  # which has no way to
LARGE = bytes(range(256)) * 4096
"""A MiB."""
CLOSES = [(1000, ""), (1001, "going"), (1011, "ä"), (4999, "r" * 123)]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """The library's name."""
    return str(request.param)


@pytest.fixture
async def peer(
    library: str, request: pytest.FixtureRequest, run: Callable[[Stranger], Awaitable[Program]]
) -> Program:
    """A peer on that library, which has neither dialled nor listened yet."""
    if library in PYTHON:
        return await run(request.getfixturevalue("python_stranger")(library))
    name = {"ws": "node_stranger", "tungstenite": "tungstenite_stranger"}[library]
    return await run(request.getfixturevalue(name))


@pytest.fixture
async def client(peer: Program) -> AsyncIterator[Client]:
    """A client of ours, connected to the peer as server."""
    port = (await peer.ask("listen", "listening"))["port"]
    async with connect(f"ws://127.0.0.1:{port}/ws", backoff=lambda _: 0) as connected:
        await peer.event("opened")
        yield connected


def request_json(message_id: str, payload: bytes) -> str:
    return json.dumps(
        {"id": message_id, "did": "did:sage:plain", "payload": base64.b64encode(payload).decode()}
    )


def response_json(message_id: str, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return json.dumps({"success": True, "message_id": message_id, "data": encoded})


def in_parts(text: str) -> list[str]:
    """A text in seven pieces, one of them empty, cut inside of words and of base64's groups."""
    cuts = [0, 1, 5, 5, 40, 41, len(text) - 2, len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


async def asked(peer: Program, client: Client, payload: bytes = b"hi") -> tuple[asyncio.Task[Response], str]:
    """A call of our client that has arrived at the peer, and its id."""
    message = SecureMessage(payload=payload, did="did:sage:ours")
    call = asyncio.create_task(client.send(message))
    arrived = await peer.event("message")
    value = json.loads(arrived["text"])
    assert arrived["kind"] == "text"
    assert (value["id"], value["did"]) == (message.id, message.did)
    assert base64.b64decode(value["payload"]) == payload
    return call, message.id


async def upper(message: SecureMessage) -> bytes:
    return message.payload.upper()


async def answer(peer: Program) -> tuple[str, bytes]:
    """The next answer of our server: the id of the message, and the data."""
    arrived = await peer.event("message")
    value = json.loads(arrived["text"])
    assert (arrived["kind"], value["success"]) == ("text", True)
    return value["message_id"], base64.b64decode(value["data"])


# ── it serves ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_our_client_calls(peer: Program, client: Client, kind: str) -> None:
    call, message_id = await asked(peer, client)
    await peer.tell("send", text=response_json(message_id, b"HI"), kind=kind)
    assert await call == Response(message_id=message_id, data=b"HI")


async def test_our_client_calls_with_a_large_message(peer: Program, client: Client) -> None:
    call, message_id = await asked(peer, client, LARGE)
    await peer.tell("send", text=response_json(message_id, LARGE), kind="text")
    assert (await call).data == LARGE


@pytest.mark.parametrize("library", WRITE_FRAGMENTS, indirect=True)
async def test_our_client_reads_fragments_with_pings_between(peer: Program, client: Client) -> None:
    call, message_id = await asked(peer, client)
    await peer.tell("send_parts", parts=in_parts(response_json(message_id, b"in parts")))
    assert (await call).data == b"in parts"


async def test_our_client_pings_and_is_pinged(peer: Program, client: Client) -> None:
    assert 0 < await client.ping() < 30
    assert (await peer.ask("ping", "pong", text="are you there"))["text"] == "are you there"


async def test_our_client_closes(peer: Program, client: Client) -> None:
    async with asyncio.timeout(5):
        await client.close()
    closed = await peer.event("closed")
    assert (closed["code"], closed["reason"]) == (1000, "")


async def test_our_client_is_closed(peer: Program, client: Client) -> None:
    for code, reason in CLOSES:
        call, message_id = await asked(peer, client)
        await peer.tell("close", code=code, reason=reason)
        with pytest.raises(ConnectionLostError) as caught:
            await call
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert caught.value.message_id == message_id
        assert (await peer.event("closed"))["code"] == code  # ours, in reply


# ── it calls ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_our_server_answers(peer: Program, kind: str) -> None:
    async with serve(upper) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        await peer.tell("send", text=request_json("m-1", b"hi"), kind=kind)
        assert await answer(peer) == ("m-1", b"HI")


async def test_our_server_answers_a_large_message(peer: Program) -> None:
    async with serve(upper) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        await peer.tell("send", text=request_json("m-1", LARGE), kind="text")
        assert await answer(peer) == ("m-1", LARGE.upper())


@pytest.mark.parametrize("library", WRITE_FRAGMENTS, indirect=True)
async def test_our_server_reads_fragments_with_pings_between(peer: Program) -> None:
    async with serve(upper) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        await peer.tell("send_parts", parts=in_parts(request_json("m-1", b"in parts")))
        assert await answer(peer) == ("m-1", b"IN PARTS")


async def test_our_server_pings_and_is_pinged(peer: Program, eventually: Eventually) -> None:
    async with serve(upper, ping_interval=0.05, ping_timeout=30) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        await eventually(lambda: server.stats()["bytes_in"])
        assert server.stats()["bytes_in"] % 6 == 0  # masked pongs without a payload
        assert (await peer.ask("ping", "pong", text="are you there"))["text"] == "are you there"
        assert server.stats()["connections"] == 1


async def test_our_server_closes(peer: Program) -> None:
    async with serve(upper) as server:
        await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
        async with asyncio.timeout(5):
            await server.close()
        closed = await peer.event("closed")
        assert (closed["code"], closed["reason"]) == (1001, "going away")


async def test_our_server_is_closed(peer: Program, eventually: Eventually) -> None:
    async with serve(upper, close_timeout=20) as server:
        for code, reason in CLOSES:
            await peer.ask("dial", "opened", url=f"ws://127.0.0.1:{server.port}/ws")
            await eventually(lambda: server.connection_count == 1)
            closed = await peer.ask("close", "closed", code=code, reason=reason)
            assert closed["code"] == code  # ours, in reply
            await eventually(lambda: server.connection_count == 0)
