"""The extended wire under peers that lie, repeat themselves and give up: what is kept, and what ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.held import Held

from sage_ws import (
    Call,
    Client,
    HandlerError,
    Next,
    ReadTimeoutError,
    Response,
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
        self.brief = 0.01
        self.ran: list[bytes] = []

    async def __call__(self, message: SecureMessage) -> bytes:
        self.ran.append(message.payload)
        if message.payload == b"brief":
            await asyncio.sleep(self.brief)
        elif message.payload != b"now":
            await self.go_on.wait()
        return message.payload


class TestWhatIsKept:
    async def test_a_deadline_of_a_request_that_was_cancelled_in_the_queue(
        self, eventually: Any, growing: Any
    ) -> None:
        waiting = Waiting()
        async with serve(waiting, max_concurrency=1) as server, connect(url(server)) as client:
            first = asyncio.create_task(client.send(message(b"first")))
            await eventually(lambda: waiting.ran)
            for seconds in growing(0.15):
                second = asyncio.create_task(client.send(message(b"second", id="2"), timeout=seconds))
                await eventually(lambda one=second: server.stats()["pending"] == 2 or one.done())
                second.cancel()
                await asyncio.wait([second])
                if second.cancelled():
                    break
                assert isinstance(second.exception(), ReadTimeoutError)
            await eventually(lambda: server.stats()["pending"] == 1)
            waiting.go_on.set()
            await first
            waiting.brief = 2 * seconds
            (link,) = server._links
            assert not link._deadlines
            # its id is free again, and the time that it had is not this one's
            assert (await client.send(message(b"brief", id="2"), timeout=10)).data == b"brief"

    async def test_who_waits_without_a_deadline_beside_who_has_one(self, eventually: Any) -> None:
        waiting = Waiting()
        async with serve(waiting, max_concurrency=1) as server, connect(url(server)) as client:
            calls = [asyncio.create_task(client.send(message(b"first")))]
            await eventually(lambda: waiting.ran)
            calls.append(asyncio.create_task(client.send(message(b"without"))))
            calls.append(asyncio.create_task(client.send(message(b"with"), timeout=10)))
            await eventually(lambda: server.stats()["pending"] == 3)
            waiting.go_on.set()
            async with asyncio.timeout(10):
                answers = [(await call).data for call in calls]
            assert answers == waiting.ran == [b"first", b"without", b"with"]
            assert server.stats()["expired"] == server.stats()["pending"] == 0

    async def test_a_cancel_that_comes_too_late_harms_no_later_request(self, raw_client: Any) -> None:
        waiting = Waiting()
        async with serve(waiting) as server, raw_client(server.port, headers=JSON) as peer:
            in_one_write(peer, request("1", b"now"), {"kind": "cancel", "id": "1"})
            assert (await peer.read_json())["message_id"] == "1"
            in_one_write(peer, request("2", b"wait"), {"kind": "cancel", "id": "3"})
            peer.send_json(request("4", b"now"))
            assert (await peer.read_json())["message_id"] == "4"
            for again in ("1", "3"):
                peer.send_json(request(again, b"brief"))
                assert (await peer.read_json())["message_id"] == again
            (link,) = server._links
            assert not link._unbegun
            waiting.go_on.set()
            assert (await peer.read_json())["message_id"] == "2"

    async def test_cancels_that_come_too_late_do_not_hide_those_that_do_not(
        self, raw_client: Any, eventually: Any
    ) -> None:
        waiting = Waiting()
        async with serve(waiting) as server, raw_client(server.port, headers=JSON) as peer:
            late = [{"kind": "cancel", "id": f"late {number}"} for number in range(10)]
            both = request("1", b"wait"), request("2", b"wait")
            in_one_write(peer, *both, *late, {"kind": "cancel", "id": "1"}, {"kind": "cancel", "id": "2"})
            await eventually(lambda: server.stats()["pending"] == 0 and len(waiting.ran) == 2)
            assert server.stats()["stopped"] == 2

    async def test_an_id_that_is_used_again_behind_its_cancel(self, raw_client: Any, eventually: Any) -> None:
        waiting = Waiting()
        async with serve(waiting) as server, raw_client(server.port, headers=JSON) as peer:
            again = request("1", b"brief")
            in_one_write(peer, request("1", b"wait"), {"kind": "cancel", "id": "1"}, again)
            assert (await peer.read_json())["message_id"] == "1"
            assert len(waiting.ran) == 2
            assert (server.stats()["stopped"], server.stats()["pending"]) == (1, 0)

    async def test_a_cancel_of_what_was_answered_spares_the_next_request_of_its_id(
        self, raw_client: Any
    ) -> None:
        waiting = Waiting()
        async with serve(waiting) as server, raw_client(server.port, headers=JSON) as peer:
            ask(peer, "1", b"now")
            assert (await peer.read_json())["message_id"] == "1"
            # the cancel crossed the answer; another request has not taken its first step when it is read
            in_one_write(peer, request("2", b"now"), {"kind": "cancel", "id": "1"}, request("1", b"brief"))
            assert [(await peer.read_json())["message_id"] for _ in range(2)] == ["2", "1"]
            assert server.stats()["stopped"] == 0

    async def test_streams_that_have_no_parts(self) -> None:
        async def passing(message: SecureMessage, following: Next) -> Response:
            return await following(message)

        async with serve(lambda message: b"one", interceptors=[passing]) as server:
            async with connect(url(server)) as client:
                for _ in range(5):
                    async with client.stream(message()) as parts:
                        assert [part.data async for part in parts] == [b"one"]
                (link,) = server._links
                assert not link._outgoing

    async def test_deadlines_far_away(self, raw_client: Any) -> None:
        waiting = Waiting()
        async with serve(waiting) as server, raw_client(server.port, headers=JSON) as peer:
            for number in range(200):
                ask(peer, f"{number}", b"now", deadline_ms=10**7 * (number + 1))
            hub = server._hub
            assert hub is not None
            for _ in range(200):
                await peer.read_json()
            before = len(hub._buckets)

            async def one(number: int) -> None:
                ask(peer, f"a{number}", b"wait", deadline_ms=10**10 + 10**4 * number)
                peer.send_json({"kind": "cancel", "id": f"a{number}"})

            for number in range(2000):
                await one(number)
            ask(peer, "last", b"now")
            while (await peer.read_json())["message_id"] != "last":
                pass
            assert len(hub._buckets) - before < 200


class TestStreamsThatEnd:
    async def test_a_generator_that_ignores_its_cancellation_gets_no_further_part_out(
        self, raw_client: Any, eventually: Any
    ) -> None:
        started = asyncio.Event()

        async def stubborn(message: SecureMessage) -> AsyncIterator[bytes]:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            while True:
                yield b"x"

        async with serve(stubborn) as server, raw_client(server.port, headers=JSON) as peer:
            ask(peer, "1", credit=3)
            await started.wait()
            peer.send_json({"kind": "cancel", "id": "1"})
            await eventually(lambda: server.stats()["stopped"] == 1)
            await eventually(lambda: server.stats()["pending"] == 0)


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
                async with asyncio.timeout(20), client.stream(message()) as parts:
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
                async with asyncio.timeout(20):
                    assert (await client.send(message(), timeout=1000)).data == b"timed out"

    async def test_a_client_first_used_under_a_deadline_does_not_keep_it(self, growing: Any) -> None:
        async def back(message: SecureMessage, call: Call) -> bytes:
            assert call.connection is not None
            return (await call.connection.send(message.replace(id=""))).data

        async with serve(lambda message: b"done") as bank:

            async def agent(message: SecureMessage) -> bytes:
                return (await client_of_bank.send(message.replace(id=""))).data

            for seconds in growing(0.3):
                client_of_bank = connect(url(bank), handler=back)
                async with serve(agent) as server, connect(url(server)) as client:
                    try:
                        answer = await client.send(message(), timeout=seconds)
                    except ReadTimeoutError:
                        await client_of_bank.close()
                        continue
                    assert answer.data == b"done"
                    await asyncio.sleep(seconds)
                    (connection,) = bank.connections
                    assert (await connection.send(message())).data == b"done"
                await client_of_bank.close()
                break


class TestNesting:
    @pytest.mark.parametrize("calls", [2, 5])
    async def test_more_calls_than_places_and_each_asks_back(self, calls: int) -> None:
        async def deeper(message: SecureMessage, call: Call) -> bytes:
            depth = int(message.payload)
            if depth == 0:
                return b"0"
            assert call.connection is not None
            await asyncio.sleep(0.01)
            answer = await call.connection.send(message.replace(id="", payload=b"%d" % (depth - 1)))
            assert answer.success, answer
            return b"%d" % (int(answer.data) + 1)

        async with serve(deeper, max_concurrency=1) as server:
            async with connect(url(server), handler=deeper, max_concurrency=1) as client:
                async with asyncio.timeout(20):
                    answers = await asyncio.gather(*(client.send(message(b"4")) for _ in range(calls)))
                assert {answer.data for answer in answers} == {b"4"}

    async def test_a_client_that_has_paused_reading_hears_the_answer_to_its_handler(
        self, eventually: Any
    ) -> None:
        go_on = asyncio.Event()
        ran = 0

        async def handler(message: SecureMessage, call: Call) -> bytes:
            nonlocal ran
            ran += 1
            await go_on.wait()
            assert call.connection is not None
            return (await call.connection.send(message.replace(id="", payload=b"back"))).data

        async with serve(lambda message: b"answer") as server:
            options: dict[str, Any] = {"max_concurrency": 1, "max_queue_bytes": 3000}
            async with connect(url(server), handler=handler, **options) as client:
                (connection,) = server.connections
                calls = [asyncio.create_task(connection.send(message(b"x" * 500))) for _ in range(10)]
                await eventually(lambda: ran == 1 and client._link is not None and not client._link._reading)
                go_on.set()
                async with asyncio.timeout(20):
                    outcomes = await asyncio.gather(*calls)
                assert {(one.data, one.error) for one in outcomes} <= {(b"answer", ""), (b"", "overloaded")}


class TestGoingAway:
    @pytest.mark.parametrize("how", ["cancel", "timeout", "stream"])
    async def test_one_that_was_left_ends_with_its_last_call_however_that_ends(
        self, how: str, growing: Any, eventually: Any
    ) -> None:
        started, left = asyncio.Event(), asyncio.Event()

        async def endless(message: SecureMessage) -> None:
            started.set()
            await asyncio.Event().wait()

        async def ask_it(client: Client, seconds: float) -> None:
            await client.send(message(), timeout=seconds if how == "timeout" else 30)

        async def consume(client: Client) -> None:
            async with client.stream(message()) as parts:
                assert (await anext(parts)).data == b"1"
                await left.wait()

        async def parts(message: SecureMessage) -> AsyncIterator[bytes]:
            started.set()
            yield b"1"
            await asyncio.Event().wait()

        async with serve(parts if how == "stream" else endless) as server:
            client = await connect(url(server), reconnect=False)
            for seconds in growing(0.3):
                call = asyncio.create_task(consume(client) if how == "stream" else ask_it(client, seconds))
                await eventually(lambda one=call: started.is_set() or one.done())
                if not call.done():
                    break
                assert isinstance(call.exception(), ReadTimeoutError)
            (link,) = server._links
            link.leave()
            async with asyncio.timeout(20):
                while client.is_connected:  # noqa: ASYNC110 - it is told by a frame
                    await asyncio.sleep(0.001)
                left.set()
                if how == "cancel":
                    call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await client.wait_closed()
            await client.close()

    async def test_and_with_the_last_request_that_it_serves(self) -> None:
        handler = Held()
        async with serve(lambda message: b"") as server:
            client = await connect(url(server), handler=handler, backoff=lambda attempt: 0.001)
            (link,) = server._links
            call = asyncio.create_task(link.send(message()))
            await handler.started.wait()
            link.leave()
            async with asyncio.timeout(20):
                while not client.stats()["reconnects"]:  # noqa: ASYNC110 - it is told by a frame
                    await asyncio.sleep(0.001)
                handler.go_on.set()
                assert (await call).data == b"done"
                await link.wait_closed()
            await client.close()

    async def test_each_move_begins_with_the_shortest_wait(self) -> None:
        attempts: list[int] = []

        def backoff(attempt: int) -> float:
            attempts.append(attempt)
            return 0.001

        async with serve(lambda message: b"") as server, connect(url(server), backoff=backoff) as client:
            for _ in range(3):
                await client.send(message())
                (link,) = server._links
                link.leave()
                async with asyncio.timeout(20):
                    await link.wait_closed()
                    await client.connect()
        assert attempts == [0, 0, 0]


class TestInterceptedStreams:
    async def test_the_callers_time_is_for_interceptors_too(self) -> None:
        async def stuck(message: SecureMessage, following: Next) -> Response:
            await asyncio.Event().wait()
            return await following(message)

        async with serve(lambda message: b"") as server, connect(url(server), interceptors=[stuck]) as client:
            async with asyncio.timeout(20):
                with pytest.raises(TimeoutError, match="through the interceptors"):
                    async with client.stream(message(), timeout=0.05) as parts:
                        await anext(parts)

    async def test_one_that_is_cancelled_leaves_no_task(self) -> None:
        async def passing(message: SecureMessage, following: Next) -> Response:
            return await following(message)

        started = asyncio.Event()

        async def never(message: SecureMessage) -> None:
            started.set()
            await asyncio.Event().wait()

        async def consume(client: Any) -> None:
            async with client.stream(message()) as parts:
                await anext(parts)

        async with serve(never) as server, connect(url(server), interceptors=[passing]) as client:
            await client.connect()
            before = asyncio.all_tasks()
            task = asyncio.create_task(consume(client))
            await started.wait()
            task.cancel()
            await asyncio.wait([task])
            left = {one for one in asyncio.all_tasks() - before if "worker" not in one.get_name()}
            assert not left

    async def test_giving_up_a_stream_is_counted(self) -> None:
        async def endless(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"1"
            await asyncio.Event().wait()

        async with serve(endless) as server, connect(url(server)) as client:
            async with client.stream(message()) as parts:
                await anext(parts)
            assert (client.stats()["cancelled"], client.stats()["failed"]) == (1, 0)

    async def test_a_handler_that_is_run_again_keeps_to_the_room_that_there_is(self, eventually: Any) -> None:
        made = 0

        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            nonlocal made
            is_first = made == 0
            for _ in range(40):
                made += 1
                yield b"%d" % made
                if is_first and made == 12:
                    raise HandlerError("once more")

        async def again(message: SecureMessage, following: Next) -> Response:
            try:
                return await following(message)
            except HandlerError:
                return await following(message)

        async with serve(handler, interceptors=[again]) as server, connect(url(server)) as client:
            async with asyncio.timeout(20), client.stream(message()) as parts:
                assert (await anext(parts)).data == b"1"
                await eventually(lambda: made > 12)
                await client.ping()
                assert [part.data async for part in parts] == [b"%d" % number for number in range(2, 53)]
            (link,) = server._links
            assert not link._outgoing
