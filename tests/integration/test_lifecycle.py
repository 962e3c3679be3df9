"""How a client ends: from every state, once, in bounded time, each call told how far it came."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DialError,
    NotSentError,
    QueueTimeoutError,
    SecureMessage,
    State,
    connect,
    serve,
)

TEXT, CLOSE = 0x1, 0x8


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def silent(peer: Any) -> None:
    """Answers nothing but the close frame."""
    await peer.until_closed()


async def deaf(peer: Any) -> None:
    """Answers nothing at all, and keeps the socket open."""
    await peer.reader.read(-1)
    await asyncio.get_running_loop().create_future()


class TestClose:
    async def test_before_anything_happened(self) -> None:
        client = Client("ws://localhost")
        await client.close()
        assert client.state is State.CLOSED
        for method in (client.connect, lambda: client.send(message()), client.ping):
            with pytest.raises(ClosedError, match="the client is closed"):
                await method()
        await client.close()
        await client.wait_closed()

    async def test_a_quiet_connection_ends_by_1000_without_a_reason(self, lying_server: Any) -> None:
        closes: list[Any] = []

        async def script(peer: Any) -> None:
            closes.append(await peer.until_closed())
            assert await peer.reader.read(1) == b""  # nothing after it, and the socket is shut by us first

        async with lying_server(script) as server:
            client = await connect(server.url, close_timeout=0.2)
            await client.close()
            assert closes == [(1000, "")]
            assert client.state is State.CLOSED
            assert not client.is_connected

    async def test_calls_that_left_are_lost_at_once(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = Client(server.url)
            sends = [asyncio.create_task(client.send(message(id=f"m-{number}"))) for number in range(3)]
            await client.connect()
            await asyncio.sleep(0)
            assert client.stats()["pending"] == 3
            await client.close()
            results = await asyncio.gather(*sends, return_exceptions=True)
            for number, result in enumerate(results):
                assert isinstance(result, ConnectionLostError)
                assert (result.message_id, result.code) == (f"m-{number}", None)
                assert "the client was closed" in str(result)
            assert client.stats()["pending"] == 0

    async def test_calls_that_wait_for_room_never_left(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = Client(server.url, max_pending=1)
            sends = [asyncio.create_task(client.send(message(id=f"m-{number}"))) for number in range(3)]
            await client.connect()
            await asyncio.sleep(0)
            await client.close()
            results = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(result) for result in results] == [ConnectionLostError, ClosedError, ClosedError]
            assert results[1].message_id == "m-1"  # type: ignore[union-attr]
            assert isinstance(results[1], NotSentError)
            assert client.stats()["sent"] == 1
            assert client.stats()["failed"] == 3

    async def test_while_dialing(self, lying_server: Any, eventually: Any) -> None:
        ended = asyncio.Event()

        async def never(peer: Any) -> None:
            await peer.reader.read(-1)
            ended.set()

        async with lying_server(never, handshake=False) as server:
            client = Client(server.url, close_timeout=60)
            sending = asyncio.create_task(client.send(message(id="m-1")))
            connecting = asyncio.create_task(client.connect())
            await eventually(lambda: server.accepted == 1)
            assert client.state is State.DIALING
            await asyncio.wait_for(client.close(), 20)
            for waiting in (sending, connecting):
                with pytest.raises(ClosedError, match="the client was closed"):
                    await waiting
            assert client.state is State.CLOSED
            await asyncio.wait_for(ended.wait(), 20)  # the socket is gone

    @pytest.mark.parametrize("stubborn", [False, True], ids=["dials on", "takes its time"])
    async def test_while_a_headers_factory_swallows_cancellation(
        self, stubborn: bool, lying_server: Any, eventually: Any
    ) -> None:
        asked, released = asyncio.Event(), asyncio.Event()

        async def headers() -> dict[str, str]:
            asked.set()
            try:
                await released.wait()
            except asyncio.CancelledError:
                if stubborn:
                    await released.wait()
            return {}

        async def quiet(peer: Any) -> None:
            await peer.reader.read(-1)

        async with lying_server(quiet) as server:
            client = Client(server.url, headers=headers, close_timeout=0.2)
            sending = asyncio.create_task(client.send(message()))
            await asked.wait()
            await asyncio.wait_for(client.close(), 20)
            with pytest.raises(ClosedError):
                await sending
            released.set()
            await eventually(lambda: client._dialing is None and not client._ending)
            assert client.state is State.CLOSED
            assert not client.is_connected

    async def test_while_waiting_to_dial_again(self, lying_server: Any, eventually: Any) -> None:
        async def dropping(peer: Any) -> None:
            peer.abort()

        async with lying_server(dropping) as server:
            client = Client(server.url, backoff=lambda attempt: 60.0, close_timeout=60)
            await client.connect()
            await eventually(lambda: client.state is State.WAITING)
            sending = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            await asyncio.wait_for(client.close(), 20)
            with pytest.raises(ClosedError):
                await sending
            assert client.state is State.CLOSED

    async def test_when_the_backoff_has_just_ended(self, lying_server: Any, eventually: Any) -> None:
        client = Client("ws://127.0.0.1:1", wait_for_ready=True, backoff=lambda attempt: 0.01)
        with pytest.raises(QueueTimeoutError):
            await client.send(message(), timeout=0.05)
        await client.close()
        assert client.state is State.CLOSED

    async def test_twice_and_from_many_tasks(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = await connect(server.url)
            await asyncio.gather(client.close(), client.close(), client.wait_closed(), client.close())
            await client.close()
            assert client.state is State.CLOSED

    async def test_a_peer_that_never_replies_costs_close_timeout(self, lying_server: Any) -> None:
        async with lying_server(deaf) as server:
            client = await connect(server.url, close_timeout=0.1)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await client.close()
            assert 0.09 <= loop.time() - begun < 20

    async def test_a_peer_that_replies_and_keeps_the_socket_costs_close_timeout(
        self, lying_server: Any
    ) -> None:
        async def replying(peer: Any) -> None:
            await peer.until_closed()
            await deaf(peer)

        async with lying_server(replying) as server:
            client = await connect(server.url, close_timeout=0.1)
            await asyncio.wait_for(client.close(), 20)

    async def test_a_peer_that_takes_no_bytes_costs_close_timeout(
        self, lying_server: Any, eventually: Any
    ) -> None:
        async def stalled(peer: Any) -> None:
            peer.writer.transport.pause_reading()
            await asyncio.get_running_loop().create_future()

        async with lying_server(stalled) as server:
            client = await connect(server.url, close_timeout=0.1)
            sending = asyncio.create_task(client.send(message(b"x" * 10_000_000)))
            await eventually(lambda: client._link is None or client._link.blocked)
            await asyncio.wait_for(client.close(), 20)
            with pytest.raises(ConnectionLostError):
                await sending

    async def test_a_peer_that_ends_its_side_and_takes_no_bytes_costs_no_more(
        self, lying_server: Any, eventually: Any
    ) -> None:
        go = asyncio.Event()

        async def half_closed(peer: Any) -> None:
            peer.writer.transport.pause_reading()
            await go.wait()
            peer.writer.write_eof()
            await asyncio.get_running_loop().create_future()

        async with lying_server(half_closed) as server:
            client = await connect(server.url, close_timeout=0.1, write_timeout=None, reconnect=False)
            sending = asyncio.create_task(client.send(message(b"x" * 10_000_000), timeout=None))
            await eventually(lambda: client._link is not None and client._link.blocked)
            go.set()
            with pytest.raises(ConnectionLostError, match="the connection was lost"):
                await asyncio.wait_for(sending, 20)  # nothing can answer it any more
            await asyncio.wait_for(client.close(), 20)

    async def test_a_cancelled_close_goes_on(self, lying_server: Any) -> None:
        async with lying_server(deaf) as server:
            client = await connect(server.url, close_timeout=0.1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.close()
            assert client.state is State.CLOSED
            await asyncio.wait_for(client.wait_closed(), 20)

    async def test_the_socket_of_a_lost_connection_is_waited_for(self, lying_server: Any) -> None:
        gone: list[bool] = []

        async def closing(peer: Any) -> None:
            await peer.read_json()
            peer.close_frame(1001)
            await peer.read_close()
            gone.append(False)
            await peer.read_end()
            gone.append(True)

        async with lying_server(closing) as server:
            client = Client(server.url, reconnect=False, close_timeout=0.1)
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await asyncio.wait_for(client.close(), 20)
            assert client._ending == set()
        assert gone[0] is False

    async def test_answers_that_come_while_closing_are_not_missed_but_late(self, lying_server: Any) -> None:
        async def tardy(peer: Any) -> None:
            request = await peer.read_json()
            frame = await peer.read_frame()
            assert frame.opcode == CLOSE
            peer.answer(request["id"])
            peer.send(CLOSE, frame.payload)

        async with lying_server(tardy) as server:
            client = Client(server.url, close_timeout=60)
            sending = asyncio.create_task(client.send(message()))
            await client.connect()
            await asyncio.sleep(0)
            await asyncio.wait_for(client.close(), 20)
            with pytest.raises(ConnectionLostError):
                await sending

    async def test_async_with_closes_though_its_body_fails(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            with pytest.raises(LookupError):
                async with connect(server.url) as client:
                    raise LookupError
            assert client.state is State.CLOSED

    async def test_async_with_that_cannot_connect_raises(self) -> None:
        with pytest.raises(DialError):
            async with connect("ws://127.0.0.1:1"):
                pass


class TestDrain:
    async def test_answers_are_awaited_and_new_sends_refused(self, lying_server: Any) -> None:
        answer = asyncio.Event()

        async def patient(peer: Any) -> None:
            requests = [await peer.read_json() for _ in range(2)]
            await answer.wait()
            for request in requests:
                peer.answer(request["id"])
            await peer.until_closed()

        async with lying_server(patient) as server:
            client = Client(server.url)
            sends = [asyncio.create_task(client.send(message())) for _ in range(2)]
            await client.connect()
            draining = asyncio.create_task(client.drain())
            await asyncio.sleep(0)
            assert client.state is State.DRAINING
            with pytest.raises(ClosedError, match="the client is draining") as raised:
                await client.send(message(id="m-9"))
            assert raised.value.message_id == "m-9"
            answer.set()
            assert all(response.success for response in await asyncio.gather(*sends))
            await draining
            assert client.state is State.CLOSED

    async def test_calls_that_wait_for_room_still_leave(self, lying_server: Any) -> None:
        async def slow(peer: Any) -> None:
            while (frame := await peer.read_frame()).opcode != CLOSE:
                await asyncio.sleep(0)
                peer.answer(json.loads(frame.payload)["id"])
            peer.send(CLOSE, frame.payload)

        async with lying_server(slow) as server:
            client = Client(server.url, max_pending=1)
            sends = [asyncio.create_task(client.send(message())) for _ in range(5)]
            await client.connect()
            await client.drain()
            assert all(response.success for response in await asyncio.gather(*sends))

    async def test_a_call_whose_place_was_granted_a_moment_ago_still_leaves(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def prompt(peer: Any) -> None:
            while (frame := await peer.read_frame()).opcode != CLOSE:
                peer.answer(json.loads(frame.payload)["id"])
            peer.send(CLOSE, frame.payload)

        async with lying_server(prompt) as server:
            client = Client(server.url, max_pending=1)
            answers_came = client._answers_came
            drains: list[asyncio.Task[None]] = []

            def draining_first() -> None:
                if not drains:
                    drains.append(
                        asyncio.create_task(client.drain())
                    )  # runs before the call that gets the place
                answers_came()

            monkeypatch.setattr(client, "_answers_came", draining_first)
            responses = await asyncio.gather(client.send(message(id="m-1")), client.send(message(id="m-2")))
            assert [response.message_id for response in responses] == ["m-1", "m-2"]
            await drains[0]

    async def test_its_timeout_ends_the_wait(
        self, lying_server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with lying_server(silent) as server:
            client = Client(server.url)
            sending = asyncio.create_task(client.send(message()))
            await client.connect()
            await client.drain(timeout=0.05)
            assert client.state is State.CLOSED
            with pytest.raises(ConnectionLostError):
                await sending
            assert "drain: calls were still unanswered after 0.05 s" in caplog.text

    async def test_of_an_idle_or_a_closed_client_ends_at_once(self) -> None:
        client = Client("ws://localhost")
        await client.drain()
        assert client.state is State.CLOSED
        await client.drain()
        with pytest.raises(ValueError, match="timeout"):
            await client.drain(timeout=0)

    async def test_while_dialing_those_who_wait_are_told(self, lying_server: Any, eventually: Any) -> None:
        async def never(peer: Any) -> None:
            await peer.reader.read(-1)

        async with lying_server(never, handshake=False) as server:
            client = Client(server.url, close_timeout=60)
            sending = asyncio.create_task(client.send(message()))
            cancelled = asyncio.create_task(client.send(message()))
            await eventually(lambda: server.accepted == 1)
            draining = asyncio.create_task(client.drain())
            cancelled.cancel()  # runs after the drain has begun
            await asyncio.wait_for(draining, 20)
            with pytest.raises(ClosedError, match="draining"):
                await sending
            assert client.state is State.CLOSED
            await asyncio.wait([cancelled])

    async def test_a_loss_meanwhile_ends_it(self, lying_server: Any) -> None:
        async def leaving(peer: Any) -> None:
            await peer.read_json()
            await draining.wait()
            peer.abort()

        draining = asyncio.Event()
        async with lying_server(leaving) as server:
            client = Client(server.url, max_pending=1, close_timeout=60)
            sends = [asyncio.create_task(client.send(message())) for _ in range(2)]
            await client.connect()
            drain = asyncio.create_task(client.drain())
            await asyncio.sleep(0)
            draining.set()
            await asyncio.wait_for(drain, 20)
            results = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(result) for result in results] == [ConnectionLostError, ClosedError]
            assert server.accepted == 1
            assert client.state is State.CLOSED

    async def test_twice_and_beside_close(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = Client(server.url, close_timeout=60)
            sending = asyncio.create_task(client.send(message()))
            await client.connect()
            drains = [asyncio.create_task(client.drain()) for _ in range(2)]
            await asyncio.sleep(0)
            await client.close()
            await asyncio.wait_for(asyncio.gather(*drains), 20)
            with pytest.raises(ConnectionLostError):
                await sending


class TestWaitClosed:
    async def test_it_waits_for_close(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = await connect(server.url, close_timeout=60)
            waiting = asyncio.create_task(client.wait_closed())
            await asyncio.sleep(0)
            assert not waiting.done()
            await client.close()
            await asyncio.wait_for(waiting, 20)

    async def test_looking_again_and_again_leaves_nothing_behind(self, lying_server: Any) -> None:
        async with lying_server(silent) as server:
            client = await connect(server.url)
            for _ in range(100):
                waiting = asyncio.create_task(client.wait_closed())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            assert not client._changes
            await client.close()

    async def test_a_loss_that_is_mended_does_not_end_it(self, lying_server: Any, eventually: Any) -> None:
        async def dropping(peer: Any) -> None:
            if server.accepted == 1:
                peer.abort()
            else:
                await peer.until_closed()

        async with lying_server(dropping) as server:
            client = await connect(server.url, backoff=lambda attempt: 0.0, close_timeout=60)
            waiting = asyncio.create_task(client.wait_closed())
            await eventually(lambda: client.stats()["reconnects"] == 1)
            assert not waiting.done()
            await client.close()
            await asyncio.wait_for(waiting, 20)

    async def test_a_loss_without_reconnect_ends_it(self, lying_server: Any) -> None:
        async def dropping(peer: Any) -> None:
            await peer.read_frame()
            peer.abort()

        async with lying_server(dropping) as server:
            client = await connect(server.url, reconnect=False, close_timeout=60)
            waiting = asyncio.create_task(client.wait_closed())
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("ending", ["close", "drain"])
async def test_nothing_is_left_behind(ending: str) -> None:
    """No task and no socket of a client outlives its end; the fixtures look for exceptions."""
    before = asyncio.all_tasks()
    async with serve(lambda one: b"yes") as server:
        client = Client(f"ws://127.0.0.1:{server.port}")
        await asyncio.gather(*(client.send(message()) for _ in range(10)))
        link = client._link
        assert link is not None
        await (client.close() if ending == "close" else client.drain())
        assert link._transport.is_closing()
        assert link._due == float("inf")
    assert asyncio.all_tasks() == before
