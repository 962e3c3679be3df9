"""The seven scenarios of the reference's own tests, over real sockets, through the public names alone."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from sage_ws import (
    Client,
    DialError,
    HandlerError,
    MessageTransport,
    Response,
    SecureMessage,
    connect,
    serve,
)

DID = "did:sage:ethereum:0x742d35cc6634c0532925a3b844bc9e7595f0beb7"


async def test_send() -> None:
    """A message arrives as it was sent, and its answer comes back as the handler gave it."""
    arrived: list[SecureMessage] = []

    async def handler(message: SecureMessage) -> Response:
        arrived.append(message)
        return Response(data=b"response: " + message.payload)

    sent = SecureMessage(
        payload=b"encrypted payload",
        did=DID,
        id="msg-1",
        signature=bytes(range(64)),
        context_id="ctx-1",
        task_id="task-1",
        metadata={"kind": "request", "lang": "한국어"},
        role="user",
    )
    async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        response = await client.send(sent)
    assert arrived == [sent]
    assert response == Response(
        success=True, message_id="msg-1", task_id="task-1", data=b"response: encrypted payload"
    )


async def test_server_error() -> None:
    """A handler's error is an answer: not a success, its text with it, the ids of the message."""

    async def handler(message: SecureMessage) -> bytes:
        raise HandlerError("processing failed: no such session")

    async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        response = await client.send(SecureMessage(payload=b"x", did=DID, id="msg-2", task_id="task-2"))
        assert response == Response(
            success=False, message_id="msg-2", task_id="task-2", error="processing failed: no such session"
        )
        assert client.is_connected


async def test_many_messages_on_one_connection() -> None:
    """One after the other and all at once: each gets its own answer, over one connection."""

    async def handler(message: SecureMessage) -> bytes:
        await asyncio.sleep(0)
        return message.payload[::-1]

    async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        for number in range(50):
            response = await client.send(SecureMessage(payload=b"in turn %d" % number, did=DID))
            assert response.data == (b"in turn %d" % number)[::-1]
        messages = [SecureMessage(payload=b"at once %d" % number, did=DID) for number in range(2000)]
        responses = await asyncio.gather(*(client.send(message) for message in messages))
        assert [response.data for response in responses] == [message.payload[::-1] for message in messages]
        assert [response.message_id for response in responses] == [message.id for message in messages]
        assert server.stats()["accepted"] == 1
        assert client.stats()["dials"] == 1


async def test_invalid_message(raw_client: Any) -> None:
    """What is no message is answered by an error, and the connection goes on."""

    async def handler(message: SecureMessage) -> bytes:
        return message.payload

    async with serve(handler) as server, raw_client(server.port) as peer:
        peer.send(0x1, b"this is not JSON")
        answer = await peer.read_json()
        assert (answer["success"], answer["message_id"]) == (False, "")
        assert answer["error"].startswith("not JSON")
        peer.send(0x1, b'{"id": 5, "payload": "eA==", "did": "d"}')
        assert (await peer.read_json())["error"] == "id: expected a string, found number"
        peer.ask("msg-3", b"still here")
        answer = await peer.read_json()
        assert answer == {
            "success": True,
            "message_id": "msg-3",
            "data": base64.b64encode(b"still here").decode(),
        }
        assert server.stats()["invalid"] == 2


async def test_connection_timeout(lying_server: Any) -> None:
    """A peer that accepts and says nothing costs ``dial_timeout``, and the error says that nothing left."""

    async def silent(peer: Any) -> None:
        await peer.reader.read(-1)

    async with lying_server(silent, handshake=False) as server:
        client = Client(server.url, dial_timeout=0.05)
        with pytest.raises(DialError) as raised:
            await client.send(SecureMessage(payload=b"x", did=DID, id="msg-4"))
        assert isinstance(raised.value, TimeoutError)
        assert raised.value.message_id == "msg-4"
        await client.close()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"payload": "eA==", "did": DID}, "message ID is required"),
        ({"id": "", "payload": "eA==", "did": DID, "task_id": "t"}, "message ID is required"),
        ({"id": "m", "payload": "eA=="}, "DID is required"),
        ({"id": "m", "payload": "eA==", "did": "", "task_id": "t"}, "DID is required"),
        ({"id": "m", "did": DID}, "payload is required"),
        ({"id": "m", "did": DID, "payload": None}, "payload is required"),
        ({"id": "m", "did": DID, "payload": "", "task_id": "t"}, "payload is required"),
        ({}, "message ID is required"),
    ],
)
async def test_missing_fields(raw_client: Any, fields: dict[str, Any], error: str) -> None:
    """A message without what it needs is answered by the reference's text; the handler is not called."""
    called: list[SecureMessage] = []
    async with serve(called.append) as server, raw_client(server.port) as peer:
        peer.send_json(fields)
        answer = await peer.read_json()
        expected = {"success": False, "message_id": fields.get("id", ""), "error": error}
        if fields.get("id") and fields.get("task_id"):
            expected["task_id"] = fields["task_id"]
        assert answer == expected
        assert called == []


async def test_an_empty_payload_is_the_servers_to_refuse() -> None:
    """As in Go, the client sends it and the peer's answer says what is wrong."""
    async with serve(lambda message: None) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        response = await client.send(SecureMessage(payload=b"", did=DID))
        assert (response.success, response.error) == (False, "payload is required")
        response = await client.send(SecureMessage(payload=b"x", did=""))
        assert response.error == "DID is required"


async def test_connection_count(eventually: Any) -> None:
    """The server counts the connections that are open, and the client knows whether it has one."""
    async with serve(lambda message: b"yes") as server:
        url = f"ws://127.0.0.1:{server.port}/ws"
        assert server.connection_count == 0
        clients = [Client(url) for _ in range(5)]
        for number, client in enumerate(clients, 1):
            assert isinstance(client, MessageTransport)
            assert not client.is_connected
            await client.send(SecureMessage(payload=b"x", did=DID))
            assert client.is_connected
            assert server.connection_count == len(server.connections) == number
        for number, client in enumerate(clients, 1):
            await client.close()
            assert not client.is_connected
            await eventually(lambda number=number: server.connection_count == len(clients) - number)
        assert server.stats()["connections"] == 0
        assert server.stats()["accepted"] == 5
