"""What a server has under way on one connection is bounded, and who is over that waits in line."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from sage_ws import (
    Call,
    ClosedError,
    DuplicateIdError,
    MessageTooBigError,
    QueueTimeoutError,
    ReadTimeoutError,
    SecureMessage,
    serve,
)

JSON = {"Sec-WebSocket-Protocol": "sage.1.json"}


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def request(number: int) -> bytes:
    value = {"kind": "request", "id": f"in-{number}", "payload": "eA==", "did": "d"}
    return json.dumps(value).encode()


def answer(peer: Any, message_id: str, data: bytes = b"") -> None:
    encoded = base64.b64encode(data).decode()
    peer.send_json({"kind": "response", "success": True, "message_id": message_id, "data": encoded})


async def asked(peer: Any) -> tuple[str, bytes]:
    """The id and the payload of the next request that the server sends."""
    while (value := await peer.read_json())["kind"] != "request":
        assert value["kind"] == "cancel"
    return value["id"], base64.b64decode(value["payload"])


def link_of(server: Any) -> Any:
    (link,) = server.connections
    return link


class TestHandlersThatAskBack:
    async def test_a_peer_that_never_answers_has_so_many_and_no_more(
        self, raw_client: Any, eventually: Any
    ) -> None:
        running = most = 0

        async def handler(message: SecureMessage, call: Call) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                assert call.connection is not None
                return (await call.connection.send(message.replace(id=""))).data
            finally:
                running -= 1

        async with serve(handler, max_concurrency=2, max_pending=3) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                peer.write(b"".join(peer.frame(0x1, request(number)) for number in range(20)))
                await eventually(lambda: server.stats()["received"] == 20)
                await eventually(lambda: running == 5)
                assert link_of(server).connection.pending == 3
                answered = 0
                while answered < 20:
                    value = await peer.read_json()
                    if value["kind"] == "request":
                        answer(peer, value["id"], b"yes")
                    else:
                        assert (value["kind"], value["success"]) == ("response", True)
                        answered += 1
            assert most == 5

    async def test_many_that_ask_at_once_all_have_their_answers(self, raw_client: Any) -> None:
        async def handler(message: SecureMessage, call: Call) -> bytes:
            assert call.connection is not None
            return (await call.connection.send(message.replace(id=""))).data

        async with serve(handler, max_pending=1) as server, raw_client(server.port, headers=JSON) as peer:
            peer.write(b"".join(peer.frame(0x1, request(number)) for number in range(200)))
            answered = set()
            while len(answered) < 200:
                value = await peer.read_json()
                if value["kind"] == "request":
                    answer(peer, value["id"])
                else:
                    answered.add(value["message_id"])


class TestTheLine:
    async def test_who_came_first_goes_first(self, raw_client: Any) -> None:
        async with serve(lambda one: None, max_pending=2) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                link = link_of(server)
                calls = [asyncio.create_task(link.send(message(b"%d" % number))) for number in range(6)]
                heard = [await asked(peer), await asked(peer)]
                for number in range(6):
                    answer(peer, heard[number][0], heard[number][1])
                    if number < 4:
                        heard.append(await asked(peer))
                assert [payload for _, payload in heard] == [b"%d" % number for number in range(6)]
                assert [(await call).data for call in calls] == [b"%d" % number for number in range(6)]
                assert not link.connection.watched

    @pytest.mark.parametrize("how", ["timeout", "cancel"])
    async def test_a_call_that_ends_otherwise_makes_room_too(self, how: str, raw_client: Any) -> None:
        async with serve(lambda one: None, max_pending=1) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                link = link_of(server)
                first = asyncio.create_task(
                    link.send(message(b"first"), timeout=0.2 if how == "timeout" else 30)
                )
                assert (await asked(peer))[1] == b"first"
                second = asyncio.create_task(link.send(message(b"second")))
                if how == "cancel":
                    first.cancel()
                with pytest.raises(ReadTimeoutError if how == "timeout" else asyncio.CancelledError):
                    await first
                message_id, payload = await asked(peer)
                assert payload == b"second"
                answer(peer, message_id)
                assert (await second).success

    async def test_one_in_it_ends_in_its_time_without_having_left(self, raw_client: Any) -> None:
        async with serve(lambda one: None, max_pending=1) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                link = link_of(server)
                first = asyncio.create_task(link.send(message(b"first")))
                message_id, _ = await asked(peer)
                given_up = asyncio.create_task(link.send(message(b"cancelled")))
                with pytest.raises(QueueTimeoutError) as raised:
                    await link.send(message(b"late", id="late"), timeout=0.05)
                assert raised.value.message_id == "late"
                given_up.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await given_up
                last = asyncio.create_task(link.send(message(b"last")))
                await asyncio.sleep(0)
                answer(peer, message_id)
                message_id, payload = await asked(peer)
                assert payload == b"last"
                answer(peer, message_id)
                assert (await first).success
                assert (await last).success

    async def test_one_that_is_refused_leaves_its_place_to_the_next(self, raw_client: Any) -> None:
        async with serve(lambda one: None, max_pending=2, max_message_size=1000) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                link = link_of(server)
                first = asyncio.create_task(link.send(message(b"1", id="1")))
                second = asyncio.create_task(link.send(message(b"2", id="2")))
                assert [await asked(peer), await asked(peer)] == [("1", b"1"), ("2", b"2")]
                too_big = asyncio.create_task(link.send(message(b"x" * 1000)))
                twice = asyncio.create_task(link.send(message(b"1", id="1")))
                last = asyncio.create_task(link.send(message(b"3", id="3")))
                await asyncio.sleep(0)
                answer(peer, "2")
                with pytest.raises(MessageTooBigError):
                    await too_big
                with pytest.raises(DuplicateIdError):
                    await twice
                assert await asked(peer) == ("3", b"3")
                answer(peer, "3")
                answer(peer, "1")
                assert all(one.success for one in await asyncio.gather(first, second, last))

    async def test_a_connection_that_ends_ends_it(self, raw_client: Any) -> None:
        async with serve(lambda one: None, max_pending=1) as server:
            async with raw_client(server.port, headers=JSON) as peer:
                link = link_of(server)
                first = asyncio.create_task(link.send(message()))
                await asked(peer)
                waiting = [asyncio.create_task(link.send(message(id=f"{number}"))) for number in range(3)]
                await asyncio.sleep(0)
                peer.abort()
                for number, call in enumerate(waiting):
                    with pytest.raises(ClosedError, match="the connection has ended") as raised:
                        await call
                    assert raised.value.message_id == f"{number}"
                with pytest.raises(ConnectionError):
                    await first
