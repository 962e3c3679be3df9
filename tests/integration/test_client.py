"""A client's calls: each ends once, with its own answer or with an error that says how far it came.

Over 500 lines: one class for each promise of `Client.send`, all of which play against the same lying peers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import random
import threading
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DialTimeoutError,
    DuplicateIdError,
    MessageTooBigError,
    NotSentError,
    QueueTimeoutError,
    ReadTimeoutError,
    Response,
    SecureMessage,
    State,
    connect,
    serve,
)
from sage_ws.aio.calls import ClientLink

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(peer: Any) -> None:
    """A lying server that tells the truth: the payload is the answer's data."""
    while (frame := await peer.read_frame()).opcode != CLOSE:
        if frame.opcode == TEXT:
            request = json.loads(frame.payload)
            peer.answer(request["id"], base64.b64decode(request["payload"]))
    peer.send(CLOSE, frame.payload[:2])


class TestConstruction:
    def test_needs_no_loop_and_does_no_io(self) -> None:
        client = Client("ws://192.0.2.1:9/ws")
        assert client.state is State.IDLE
        assert not client.is_connected
        assert client.stats()["dials"] == 0

    def test_checks_headers_at_once(self) -> None:
        with pytest.raises(ValueError, match="control character"):
            Client("ws://localhost", headers={"X": "a\r\nb"})

    def test_a_repr_shows_where_and_how_but_no_path(self) -> None:
        client = Client("ws://localhost:1234/ws?token=canary")
        assert repr(client) == "<sage_ws.Client localhost:1234 IDLE>"

    def test_connect_makes_a_client(self) -> None:
        assert isinstance(connect("ws://localhost"), Client)


class TestCorrelation:
    async def test_answers_in_any_order_find_their_calls(self, lying_server: Any) -> None:
        count = 200

        async def shuffled(peer: Any) -> None:
            requests = [await peer.read_json() for _ in range(count)]
            random.Random(1).shuffle(requests)
            for request in requests:
                peer.answer(request["id"], base64.b64decode(request["payload"]))
            await peer.until_closed()

        async with lying_server(shuffled) as server, connect(server.url) as client:
            messages = [message(b"%d" % number) for number in range(count)]
            responses = await asyncio.gather(*(client.send(one) for one in messages))
            assert [response.data for response in responses] == [one.payload for one in messages]
            assert client.stats()["answered"] == count

    async def test_what_is_written_is_masked_json_in_one_text_frame(self, lying_server: Any) -> None:
        frames: asyncio.Queue[Any] = asyncio.Queue()

        async def record(peer: Any) -> None:
            frames.put_nowait(await peer.read_frame())
            peer.answer("m-1")
            await peer.until_closed()

        async with lying_server(record) as server, connect(server.url) as client:
            await client.send(message(b"<hello>", id="m-1", signature=b"", metadata={"b": "2", "a": "1"}))
            frame = await frames.get()
        assert (frame.opcode, frame.fin, frame.masked) == (TEXT, True, True)
        assert frame.payload == (
            b'{"id":"m-1","payload":"PGhlbGxvPg==","did":"did:sage:test","signature":null,'
            b'"metadata":{"a":"1","b":"2"}}\n'
        )

    async def test_an_answer_as_go_fragments_it(self, lying_server: Any) -> None:
        async def fragments(peer: Any) -> None:
            request = await peer.read_json()
            answer = json.dumps({"success": True, "message_id": request["id"], "data": "eA=="}).encode()
            peer.send(TEXT, answer, fin=False)
            peer.send(PING, b"between")
            peer.send(0x0, b"", fin=True)
            assert await peer.read_frame() == (PONG, b"between", True, True)
            await peer.until_closed()

        async with lying_server(fragments) as server, connect(server.url) as client:
            assert (await client.send(message())).data == b"x"

    async def test_an_answer_byte_by_byte_and_in_binary(self, lying_server: Any) -> None:
        async def slowly(peer: Any) -> None:
            request = await peer.read_json()
            frame = peer.frame(BINARY, json.dumps({"success": True, "message_id": request["id"]}).encode())
            for position in range(len(frame)):
                peer.write(frame[position : position + 1])
                await peer.writer.drain()
            await peer.until_closed()

        async with lying_server(slowly) as server, connect(server.url) as client:
            one = message(task_id="t-9")
            assert await client.send(one) == Response(message_id=one.id, task_id="t-9")

    async def test_an_error_makes_the_answer_a_failure(self, lying_server: Any) -> None:
        async def lying(peer: Any) -> None:
            peer.answer((await peer.read_json())["id"], success=True, error="no")
            await peer.until_closed()

        async with lying_server(lying) as server, connect(server.url) as client:
            response = await client.send(message())
            assert (response.success, response.error) == (False, "no")

    async def test_answers_to_nobody_are_dropped_and_counted(self, lying_server: Any) -> None:
        async def chatty(peer: Any) -> None:
            request = await peer.read_json()
            peer.answer("nobody-1")
            peer.answer(request["id"], b"first")
            peer.answer(request["id"], b"second")
            await echo(peer)

        async with lying_server(chatty) as server, connect(server.url) as client:
            assert (await client.send(message())).data == b"first"
            await client.send(message())
            assert client.stats()["late"] == 2
            assert client.stats()["answered"] == 2

    async def test_a_duplicate_id_in_flight_is_refused_before_it_leaves(self, lying_server: Any) -> None:
        requests: asyncio.Queue[Any] = asyncio.Queue()
        answer = asyncio.Event()

        async def script(peer: Any) -> None:
            requests.put_nowait(await peer.read_json())
            await answer.wait()
            peer.answer("m-1", b"of the first")
            await echo(peer)

        async with lying_server(script) as server, connect(server.url) as client:
            first = asyncio.create_task(client.send(message(id="m-1")))
            await requests.get()
            with pytest.raises(DuplicateIdError, match="a message with id 'm-1' is in flight") as raised:
                await client.send(message(b"other", id="m-1"))
            assert raised.value.message_id == "m-1"
            answer.set()
            assert (await first).data == b"of the first"
            assert (await client.send(message(b"again", id="m-1"))).data == b"again"
            assert client.stats()["sent"] == 2

    async def test_the_answer_that_cannot_be_decoded_ends_its_call(self, lying_server: Any) -> None:
        async def lying(peer: Any) -> None:
            request = await peer.read_json()
            peer.send_json({"success": True, "message_id": request["id"], "data": "!!!"})
            await echo(peer)

        async with lying_server(lying) as server, connect(server.url) as client:
            with pytest.raises(DecodeError, match="data: illegal base64") as raised:
                await client.send(message())
            assert raised.value.field == "data"
            assert client.stats()["invalid"] == client.stats()["failed"] == 1
            assert (await client.send(message(b"next"))).data == b"next"

    async def test_an_answer_whose_id_is_unreadable_is_counted_and_logged(
        self, lying_server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def lying(peer: Any) -> None:
            request = await peer.read_json()
            peer.send(TEXT, b'{"message_id": \n\x1b[31m"evil')
            peer.answer(request["id"], b"the real one")
            await peer.until_closed()

        async with lying_server(lying) as server, connect(server.url) as client:
            assert (await client.send(message())).data == b"the real one"
            assert client.stats()["invalid"] == 1
        (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert "undecodable message from 127.0.0.1:" in record.getMessage()
        assert record.getMessage().isprintable()

    async def test_many_sends_of_one_step_leave_together(self, lying_server: Any) -> None:
        chunks: list[int] = []

        async def reading(peer: Any) -> None:
            chunk = await peer.reader.read(1 << 16)
            size = 2 + 4 + (chunk[1] & 0x7F)
            chunks.append(len(chunk))
            while sum(chunks) < 20 * size:
                chunks.append(len(await peer.reader.read(1 << 16)))
            peer.close_frame(1000)
            await peer.read_close()

        async with lying_server(reading) as server:
            client = Client(server.url, reconnect=False)
            await client.connect()
            results = await asyncio.gather(
                *(client.send(message(id=f"m-{number:03}")) for number in range(20)), return_exceptions=True
            )
            assert all(isinstance(result, ConnectionLostError) for result in results)
            await client.close()
        assert len(chunks) <= 3


class TestTimeouts:
    async def test_read_timeout_ends_the_call_and_not_the_connection(self, lying_server: Any) -> None:
        async def ignoring_one(peer: Any) -> None:
            ignored = await peer.read_json()
            request = await peer.read_json()
            peer.answer(ignored["id"], b"too late")
            peer.answer(request["id"], b"in time")
            await peer.until_closed()

        async with lying_server(ignoring_one) as server, connect(server.url, read_timeout=0.05) as client:
            with pytest.raises(ReadTimeoutError, match="no answer came in time") as raised:
                await client.send(message(id="m-1"))
            assert raised.value.message_id == "m-1"
            assert isinstance(raised.value, TimeoutError)
            assert client.stats()["pending"] == 0
            assert client.is_connected
            assert (await client.send(message(), timeout=30)).data == b"in time"
            stats = client.stats()
            assert (stats["late"], stats["failed"], stats["dials"]) == (1, 1, 1)

    async def test_a_calls_own_timeout_is_shorter(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        async with lying_server(silent) as server, connect(server.url, read_timeout=30) as client:
            async with asyncio.timeout(20):
                with pytest.raises(ReadTimeoutError):
                    await client.send(message(), timeout=0.05)

    async def test_a_calls_own_timeout_may_be_longer_or_none(self, lying_server: Any) -> None:
        async def slow(peer: Any) -> None:
            first, second, _ = [await peer.read_json() for _ in range(3)]
            expired.append(await expiring)
            peer.answer(first["id"], b"late but awaited")
            peer.answer(second["id"], b"without end")
            await peer.until_closed()

        expired: list[Any] = []
        async with lying_server(slow) as server, connect(server.url, read_timeout=0.03) as client:
            longer = asyncio.create_task(client.send(message(), timeout=20))
            endless = asyncio.create_task(client.send(message(), timeout=None))
            expiring = asyncio.gather(client.send(message()), return_exceptions=True)
            assert (await longer).data == b"late but awaited"
            assert (await endless).data == b"without end"
        assert isinstance(expired[0][0], ReadTimeoutError)

    async def test_read_timeout_none_waits(self, lying_server: Any) -> None:
        async def slow(peer: Any) -> None:
            first, second = await peer.read_json(), await peer.read_json()
            expired.append(await expiring)
            peer.answer(first["id"], b"at last")
            await peer.until_closed()
            assert second

        expired: list[Any] = []
        async with lying_server(slow) as server, connect(server.url, read_timeout=None) as client:
            waiting = asyncio.create_task(client.send(message()))
            expiring = asyncio.gather(client.send(message(), timeout=0.03), return_exceptions=True)
            assert (await waiting).data == b"at last"
        assert isinstance(expired[0][0], ReadTimeoutError)

    async def test_many_deadlines_each_end_their_own_call(self, lying_server: Any, growing: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        async with lying_server(silent) as server, connect(server.url) as client:
            loop = asyncio.get_running_loop()
            ended: list[tuple[int, float]] = []

            async def call(number: int, step: float) -> None:
                with pytest.raises(ReadTimeoutError):
                    await client.send(message(), timeout=step * number)
                ended.append((number, loop.time()))

            for step in growing(0.02):
                ended.clear()
                begun = loop.time()
                await asyncio.gather(*(call(number, step) for number in (5, 1, 4, 2, 3)))
                assert all(at - begun >= step * number - 0.001 for number, at in ended)
                if [number for number, _ in ended] == [1, 2, 3, 4, 5]:  # else some were due at once
                    break

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    async def test_no_time_at_all_is_refused(self, timeout: float) -> None:
        client = Client("ws://localhost")
        with pytest.raises(ValueError, match="timeout must be over 0"):
            await client.send(message(), timeout=timeout)
        assert client.stats()["dials"] == 0


class TestCancellation:
    async def test_a_cancelled_call_is_forgotten_at_once(self, lying_server: Any) -> None:
        asked: asyncio.Queue[str] = asyncio.Queue()

        async def script(peer: Any) -> None:
            asked.put_nowait((await peer.read_json())["id"])
            request = await peer.read_json()
            peer.answer("m-1", b"late")
            peer.answer(request["id"], b"fine")
            await peer.until_closed()

        async with lying_server(script) as server, connect(server.url) as client:
            task = asyncio.create_task(client.send(message(id="m-1")))
            assert await asked.get() == "m-1"
            assert client.stats()["pending"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.stats()["pending"] == 0
            assert (await client.send(message())).data == b"fine"
            stats = client.stats()
            assert (stats["late"], stats["answered"], stats["failed"]) == (1, 1, 0)

    async def test_a_cancelled_calls_id_is_free_again(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            await peer.read_json()
            await echo(peer)

        async with lying_server(script) as server, connect(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await client.send(message(b"one", id="m-1"))
            assert (await client.send(message(b"two", id="m-1"))).data == b"two"

    async def test_cancelling_a_call_that_was_just_answered_leaves_the_ids_next_user_alone(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # over a direct socket an answer and its caller's step are one: nothing comes between them
        async with lying_server(echo) as server, connect(server.url, link="loop") as client:
            link = client._link
            assert link is not None
            second: list[asyncio.Future[Response]] = []
            answers_came = client._answers_came

            def taking_over() -> None:
                # the answer is there, its caller has not run yet: the id goes to another, and he is cancelled
                answers_came()
                if not second:
                    second.append(link.put(message(b"two", id="m-1"), float("inf")))
                    first.cancel()

            monkeypatch.setattr(client, "_answers_came", taking_over)
            first = asyncio.create_task(client.send(message(b"one", id="m-1")))
            await asyncio.wait([first])
            assert first.cancelled()
            assert (await asyncio.wait_for(second[0], 20)).data == b"two"

    @pytest.mark.parametrize("event", ["_take", "_watch_calls", "_ended"])
    async def test_a_call_cancelled_as_its_answer_timeout_or_loss_comes_is_cancelled(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch, event: str
    ) -> None:
        async def script(peer: Any) -> None:
            if server.accepted == 1:
                first = await peer.read_json()
                if event == "_take":
                    peer.answer(first["id"])
                elif event == "_ended":
                    peer.close_frame(1001)
            await echo(peer)

        original = getattr(ClientLink, event)

        def cancelling_first(link: ClientLink, *arguments: Any) -> Any:
            first.cancel()  # its waiter is cancelled at once, its id still in flight until it runs
            return original(link, *arguments)

        async with lying_server(script) as server:
            # over a direct socket an answer and its caller's step are one: nothing comes between them
            link = "loop" if event == "_take" else "auto"
            client = Client(server.url, backoff=lambda attempt: 0.0, close_timeout=0.1, link=link)
            await client.connect()
            monkeypatch.setattr(ClientLink, event, cancelling_first)
            first = asyncio.create_task(
                client.send(message(), timeout=0.05 if event == "_watch_calls" else 30)
            )
            await asyncio.wait([first])
            monkeypatch.undo()
            assert first.cancelled()
            assert (await client.send(message(b"next"))).success
            assert client.stats()["pending"] == 0
            await client.close()

    async def test_a_call_cancelled_as_room_comes_gives_it_to_the_next(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with lying_server(echo) as server, connect(server.url, max_pending=1) as client:
            first = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            second = asyncio.create_task(client.send(message()))
            third = asyncio.create_task(client.send(message(b"third")))
            await asyncio.sleep(0)
            answers_came = client._answers_came

            def cancelling() -> None:
                second.cancel()
                answers_came()

            monkeypatch.setattr(client, "_answers_came", cancelling)
            assert (await third).data == b"third"
            assert second.cancelled()
            await first

    async def test_thousands_of_cancelled_calls_cost_nothing_later(self, lying_server: Any) -> None:
        async def echo_late(peer: Any) -> None:
            requests = [await peer.read_json() for _ in range(2001)]
            for request in requests:
                peer.answer(request["id"])
            await peer.until_closed()

        async with lying_server(echo_late) as server, connect(server.url, max_pending=5000) as client:
            tasks = [asyncio.create_task(client.send(message())) for _ in range(2000)]
            await asyncio.sleep(0)
            assert client.stats()["pending"] == 2000
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert client.stats()["pending"] == 0
            await client.send(message())
            assert client.stats()["late"] == 2000

    async def test_a_cancelled_send_that_waits_for_the_dial_is_forgotten(self, lying_server: Any) -> None:
        arrived: list[Any] = []
        go = asyncio.Event()

        async def slow_opening(peer: Any) -> None:
            await go.wait()
            await peer.open_as_server()
            arrived.append((await peer.read_json())["id"])
            peer.answer(arrived[0])
            await peer.until_closed()

        async with lying_server(slow_opening, handshake=False) as server:
            client = Client(server.url)
            tasks = [asyncio.create_task(client.send(message(id=f"m-{number}"))) for number in range(3)]
            await asyncio.sleep(0)
            assert client.stats()["queued"] == 3
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.wait(tasks[:2])
            assert client.stats()["queued"] == 1
            assert len(client._turns.line) == 1
            go.set()
            await tasks[2]
            assert arrived == ["m-2"]
            assert client.stats()["sent"] == 1
            await client.close()


class TestMaxPending:
    async def test_more_wait_in_order_and_leave_as_answers_come(
        self, lying_server: Any, eventually: Any
    ) -> None:
        asked: asyncio.Queue[str] = asyncio.Queue()
        answers: asyncio.Queue[str] = asyncio.Queue()

        async def script(peer: Any) -> None:
            async def answering() -> None:
                while True:
                    peer.answer(await answers.get())

            task = asyncio.create_task(answering())
            try:
                while (frame := await peer.read_frame()).opcode != CLOSE:
                    asked.put_nowait(json.loads(frame.payload)["id"])
                peer.send(CLOSE, frame.payload)
            finally:
                task.cancel()

        async with lying_server(script) as server, connect(server.url, max_pending=2) as client:
            tasks = [asyncio.create_task(client.send(message(id=f"m-{number}"))) for number in range(5)]
            assert [await asked.get(), await asked.get()] == ["m-0", "m-1"]
            assert (client.stats()["pending"], client.stats()["queued"]) == (2, 3)
            assert asked.empty()
            answers.put_nowait("m-1")
            assert await asked.get() == "m-2"
            assert (client.stats()["pending"], client.stats()["queued"]) == (2, 2)
            answers.put_nowait("m-0")
            answers.put_nowait("m-2")
            assert [await asked.get(), await asked.get()] == ["m-3", "m-4"]
            answers.put_nowait("m-3")
            answers.put_nowait("m-4")
            assert [response.message_id for response in await asyncio.gather(*tasks)] == [
                f"m-{number}" for number in range(5)
            ]

    async def test_who_waits_too_long_never_left(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        async with lying_server(silent) as server, connect(server.url, max_pending=1) as client:
            first = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            with pytest.raises(QueueTimeoutError) as raised:
                await client.send(message(id="m-2"), timeout=0.03)
            assert raised.value.message_id == "m-2"
            assert isinstance(raised.value, NotSentError)
            assert isinstance(raised.value, TimeoutError)
            assert client.stats()["sent"] == 1
            assert client.stats()["queued"] == 0
            first.cancel()
            await asyncio.wait([first])

    async def test_dial_timeout_bounds_the_wait_to_leave(self, lying_server: Any, growing: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        for seconds in growing(0.1):
            with contextlib.suppress(DialTimeoutError):
                async with (
                    lying_server(silent) as server,
                    connect(server.url, max_pending=1, dial_timeout=seconds) as client,
                ):
                    first = asyncio.create_task(client.send(message()))
                    await asyncio.sleep(0)
                    with pytest.raises(QueueTimeoutError):
                        await client.send(message())
                    first.cancel()
                    await asyncio.wait([first])
                    break

    async def test_it_bounds_the_first_sends_too(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch, growing: Any
    ) -> None:
        monkeypatch.setattr("sage_ws.aio.reaching.FIRST_DIAL_GRACE", 0.1)

        async def silent(peer: Any) -> None:
            await peer.until_closed()

        for seconds in growing(0.1):
            async with lying_server(silent) as server:
                client = Client(server.url, max_pending=1, dial_timeout=seconds, read_timeout=None)
                first = asyncio.create_task(client.send(message()))
                await asyncio.sleep(0)
                with pytest.raises((QueueTimeoutError, DialTimeoutError)) as raised:
                    await client.send(message())
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
                await client.close()
            if isinstance(raised.value, QueueTimeoutError):
                break

    async def test_a_cancelled_call_makes_room(self, lying_server: Any) -> None:
        async def answering_the_second(peer: Any) -> None:
            await peer.read_json()
            await echo(peer)

        async with (
            lying_server(answering_the_second) as server,
            connect(server.url, max_pending=1) as client,
        ):
            first = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            second = asyncio.create_task(client.send(message(b"second")))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).data == b"second"

    async def test_a_call_that_expires_makes_room(self, lying_server: Any) -> None:
        async def answering_the_second(peer: Any) -> None:
            await peer.read_json()
            await echo(peer)

        async with (
            lying_server(answering_the_second) as server,
            connect(server.url, max_pending=1) as client,
        ):
            first = asyncio.create_task(client.send(message(), timeout=0.03))
            await asyncio.sleep(0)
            assert (await client.send(message(b"second"))).data == b"second"
            with pytest.raises(ReadTimeoutError):
                await first

    @pytest.mark.parametrize("error", [MessageTooBigError, DuplicateIdError])
    async def test_one_that_is_refused_at_its_turn_makes_room(
        self, lying_server: Any, error: type[Exception]
    ) -> None:
        answer = asyncio.Event()

        async def script(peer: Any) -> None:
            requests = [await peer.read_json(), await peer.read_json()]
            await answer.wait()
            peer.answer(requests[0]["id"])
            third = await peer.read_json()
            peer.answer(requests[1]["id"])
            peer.answer(third["id"], b"third")
            await peer.until_closed()

        async with (
            lying_server(script) as server,
            connect(server.url, max_pending=2, max_message_size=500) as client,
        ):
            one = asyncio.create_task(client.send(message(id="m-1")))
            two = asyncio.create_task(client.send(message(id="m-2")))
            await asyncio.sleep(0)
            wrong = message(b"x" * 500) if error is MessageTooBigError else message(id="m-2")
            refused = asyncio.create_task(client.send(wrong))
            third = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            assert client.stats()["queued"] == 2
            answer.set()
            with pytest.raises(error):
                await refused
            assert (await third).data == b"third"
            await asyncio.gather(one, two)
            assert client.stats()["failed"] == 1

    @pytest.mark.parametrize("odd", [None, "text", Response()])
    async def test_what_is_no_message_is_a_type_error_and_takes_no_place(
        self, odd: Any, lying_server: Any
    ) -> None:
        async with lying_server(echo) as server, connect(server.url, max_pending=1) as client:
            with pytest.raises(TypeError, match=f"must be a SecureMessage, not {type(odd).__name__}"):
                await client.send(odd)  # the quick way out
            first = asyncio.create_task(client.send(message(b"1")))
            await asyncio.sleep(0)
            results = await asyncio.gather(
                client.send(odd), client.send(message(b"2")), return_exceptions=True
            )
            assert isinstance(results[0], TypeError)
            assert isinstance(results[1], Response)
            assert (await first).data == b"1"
            assert client.stats()["failed"] == 0

    async def test_one_that_is_cancelled_at_its_turn_makes_room(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with lying_server(echo) as server, connect(server.url, max_pending=1) as client:
            first = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            second = asyncio.create_task(client.send(message()))
            third = asyncio.create_task(client.send(message(b"third")))
            answers_came = client._answers_came

            def cancelling() -> None:
                answers_came()
                if not second.cancelling():
                    assert client._turns.granted == 1  # second has its place and has not run yet
                    second.cancel()

            monkeypatch.setattr(client, "_answers_came", cancelling)
            await first
            assert (await third).data == b"third"
            assert second.cancelled()


class TestLoss:
    @pytest.mark.parametrize(
        ("code", "reason"), [(1001, "going away"), (1000, ""), (4000, "ein Grund: ü"), (None, "")]
    )
    async def test_a_close_frame_ends_every_call_at_once(
        self, lying_server: Any, code: int | None, reason: str
    ) -> None:
        async def script(peer: Any) -> None:
            for _ in range(3):
                await peer.read_json()
            peer.close_frame(code, reason)
            assert await peer.read_close() == (code, "")
            assert await peer.read_end() == b""

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False, close_timeout=0.2)
            tasks = [asyncio.create_task(client.send(message(id=f"m-{number}"))) for number in range(3)]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                assert isinstance(result, ConnectionLostError)
                assert isinstance(result, ConnectionError)
                assert (result.code, result.reason, result.message_id) == (code, reason, f"m-{number}")
                assert str(result).isascii()
            assert client.stats()["pending"] == 0
            assert client.stats()["failed"] == 3
            await client.close()

    async def test_a_reset_ends_every_call_at_once(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            await peer.read_json()
            peer.abort()

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionLostError) as raised:
                await client.send(message(id="m-1"))
            assert (raised.value.code, raised.value.reason) == (None, "")
            assert raised.value.message_id == "m-1"
            await client.close()

    async def test_an_end_without_a_close_frame_is_a_loss(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            await peer.read_json()
            peer.writer.write_eof()
            await peer.read_end()

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionLostError, match="the connection was lost"):
                await client.send(message())
            await client.close()

    async def test_the_answers_before_a_close_still_count(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            first = await peer.read_json()
            await peer.read_json()
            answer = json.dumps({"success": True, "message_id": first["id"]}).encode()
            peer.write(peer.frame(TEXT, answer) + peer.frame(CLOSE, b"\x03\xe9"))
            await peer.read_end()

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False, close_timeout=0.1)
            answered, lost = await asyncio.gather(
                client.send(message()), client.send(message()), return_exceptions=True
            )
            assert isinstance(answered, Response)
            assert isinstance(lost, ConnectionLostError)
            await client.close()

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (b"\x81\x85\0\0\0\0hello", 1002),  # masked
            (b"\xc1\x05hello", 1002),  # a reserved bit
            (b"\x83\x00", 1002),  # an unknown opcode
            (b"\x80\x00", 1002),  # a continuation of nothing
            (b"\x81\x02\xc3\x28", 1007),  # no UTF-8
            (b"\x81\x7e\x02\x00", 1009),  # over the limit, by its header alone
            (b"\x88\x01\x03", 1002),  # a close code of one byte
        ],
    )
    async def test_a_peer_that_breaks_the_rules_is_told_the_code_and_dropped(
        self, lying_server: Any, frame: bytes, code: int
    ) -> None:
        told: list[Any] = []

        async def script(peer: Any) -> None:
            await peer.read_json()
            peer.write(frame)
            told.append(await peer.read_close())
            assert await peer.read_end() == b""

        async with lying_server(script) as server:
            client = Client(server.url, reconnect=False, max_message_size=400)
            with pytest.raises(ConnectionLostError, match=f"the connection failed with {code}") as raised:
                await client.send(message())
            assert raised.value.code is None  # the peer sent no close frame
            await client.close()
        assert told[0][0] == code

    async def test_a_message_over_the_limit_is_refused_here(self, lying_server: Any) -> None:
        async with lying_server(echo) as server, connect(server.url, max_message_size=300) as client:
            one = message(b"x" * 300, id="m-1")
            with pytest.raises(MessageTooBigError, match="is over max_message_size 300") as raised:
                await client.send(one)
            assert raised.value.message_id == "m-1"
            assert client.is_connected
            assert (await client.send(message(b"small"))).data == b"small"
            assert client.stats()["sent"] == 1

    async def test_the_limit_is_exact_in_both_directions(self, lying_server: Any) -> None:
        sizes: list[int] = []

        async def script(peer: Any) -> None:
            frame = await peer.read_frame()
            sizes.append(len(frame.payload))
            answer = json.dumps({"success": True, "message_id": json.loads(frame.payload)["id"]})
            peer.send(TEXT, answer.ljust(300).encode())
            await peer.read_frame()
            peer.send(TEXT, b"{".ljust(301))
            await peer.read_end()

        async with lying_server(script) as server:
            client = Client(server.url, max_message_size=300, reconnect=False)
            smallest = len(
                b'{"id":"m-1","payload":"eA==","did":"did:sage:test","signature":"Y2FuYXJ5","role":""}\n'
            )
            role = "r" * (300 - smallest)
            with pytest.raises(MessageTooBigError, match="message of 301 bytes"):
                await client.send(message(id="m-1", role=role + "r"))
            await client.send(message(id="m-1", role=role))
            assert sizes == [300]
            with pytest.raises(ConnectionLostError, match="1009"):
                await client.send(message())
            await client.close()


class TestOwnership:
    async def test_a_second_loop_is_refused(self, lying_server: Any) -> None:
        async with lying_server(echo) as server, connect(server.url) as client:
            errors: list[BaseException] = []

            def elsewhere() -> None:
                for method in (client.connect, lambda: client.send(message()), client.drain):
                    try:
                        asyncio.run(method())
                    except RuntimeError as error:
                        errors.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert [type(error) for error in errors] == [RuntimeError] * 3
            assert all("another event loop" in str(error) for error in errors)
            assert (await client.send(message(b"still fine"))).data == b"still fine"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    @pytest.mark.parametrize("method", ["close", "drain", "wait_closed"])
    async def test_a_second_loop_cannot_end_it(self, method: str, lying_server: Any) -> None:
        async def in_another_loop() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await getattr(client, method)()

        async with lying_server(echo) as server, connect(server.url) as client:
            await asyncio.to_thread(asyncio.run, in_another_loop())
            assert (await client.send(message(b"untouched"))).data == b"untouched"

    @pytest.mark.parametrize("method", ["close", "drain", "wait_closed"])
    async def test_of_a_closed_one_a_second_loop_finds_nothing_to_do(
        self, method: str, lying_server: Any
    ) -> None:
        async with lying_server(echo) as server, connect(server.url) as client:
            pass
        await asyncio.to_thread(asyncio.run, getattr(client, method)())

    async def test_after_a_fork_the_child_is_told(self, lying_server: Any) -> None:
        async with lying_server(echo) as server, connect(server.url) as client:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                said = []
                asyncio.set_event_loop(None)
                asyncio._set_running_loop(None)
                for method in (client.connect, lambda: client.send(message())):
                    loop = asyncio.new_event_loop()
                    try:
                        loop.run_until_complete(method())
                    except ClosedError as error:
                        said.append(type(error).__name__)
                    loop.run_until_complete(client.close())
                os.write(write, " ".join(said).encode())
                os._exit(0)
            os.close(write)
            with os.fdopen(read) as pipe:
                assert await asyncio.to_thread(pipe.read) == "ClosedError ClosedError"
            await asyncio.to_thread(os.waitpid, pid, 0)
            assert (await client.send(message(b"the parent goes on"))).data == b"the parent goes on"

    async def test_in_another_process_nothing_works_but_close(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with lying_server(echo) as server:
            client = await connect(server.url)
            with monkeypatch.context() as patched:
                patched.setattr(os, "getpid", lambda: -1)
                for method in (client.connect, client.drain, client.ping):
                    with pytest.raises(ClosedError, match="opened before a fork"):
                        await method()
            await client.close()

    async def test_a_closed_client_names_the_message(self, lying_server: Any) -> None:
        async with lying_server(echo) as server:
            client = await connect(server.url)
            await client.close()
            with pytest.raises(ClosedError, match="the client is closed") as raised:
                await client.send(message(id="m-1"))
            assert raised.value.message_id == "m-1"


class TestStream:
    async def test_a_plain_peers_answer_is_the_only_part(self) -> None:
        async with serve(lambda one: one.payload) as server:
            client = Client(f"ws://127.0.0.1:{server.port}")
            async with client.stream(message(b"whole")) as parts:
                assert [part.data async for part in parts] == [b"whole"]
            await client.close()

    async def test_what_send_raises_the_iteration_raises(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        async with (
            lying_server(silent) as server,
            connect(server.url) as client,
            client.stream(message(), timeout=0.03) as parts,
        ):
            with pytest.raises(ReadTimeoutError):
                await anext(parts)


class TestPing:
    async def test_it_measures_a_round_trip_and_dials_if_needed(self, lying_server: Any) -> None:
        async def ponging(peer: Any) -> None:
            frame = await peer.read_frame()
            assert (frame.opcode, len(frame.payload)) == (PING, 8)
            peer.send(PONG, b"unasked")
            peer.send(PONG, frame.payload)
            await peer.until_closed()

        async with lying_server(ponging) as server:
            client = Client(server.url)
            assert 0 < await client.ping() < 30
            assert client.stats()["dials"] == 1
            await client.close()

    async def test_a_loss_before_the_pong_is_a_connection_error(self, lying_server: Any) -> None:
        async def leaving(peer: Any) -> None:
            await peer.read_frame()
            peer.abort()

        async with lying_server(leaving) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionError):
                await client.ping()
            await client.close()

    async def test_a_loss_before_the_ping_is_a_connection_error_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def connected_and_lost() -> None: ...

        client = Client("ws://localhost")
        monkeypatch.setattr(client, "connect", connected_and_lost)
        with pytest.raises(ConnectionError, match="before the ping could leave"):
            await client.ping()

    async def test_a_cancelled_ping_is_forgotten(self, lying_server: Any) -> None:
        async def late(peer: Any) -> None:
            first = await peer.read_frame()
            second = await peer.read_frame()
            peer.send(PONG, first.payload)
            peer.send(PONG, second.payload)
            await peer.until_closed()

        async with lying_server(late) as server, connect(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await client.ping()
            assert await client.ping() > 0


async def test_stats_add_up(lying_server: Any) -> None:
    async with lying_server(echo) as server:
        client = Client(server.url)
        for number in range(10):
            await client.send(message(b"%d" % number))
        stats = dict(client.stats())
        await client.close()
        after = client.stats()
    assert stats.pop("bytes_in") > 10 * 40
    assert stats.pop("bytes_out") > 10 * 60
    assert stats == {
        "pending": 0,
        "queued": 0,
        "sent": 10,
        "answered": 10,
        "late": 0,
        "invalid": 0,
        "failed": 0,
        "cancelled": 0,
        "dials": 1,
        "lost": 0,
        "reconnects": 0,
        "retries": 0,
        "unknown": 0,
        "served": 0,
        "dropped": 0,
        "stopped": 0,
        "expired": 0,
    }
    # what passed stays counted when the connection is gone
    assert (after["sent"], after["answered"]) == (10, 10)
    assert after["bytes_in"] >= 10 * 40
