"""How a server ends: the steps of a drain in order, close in bounded time, the lifespan around it all."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest

from sage_ws import (
    Client,
    ConnectionLostError,
    DialError,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.aio.serving import ServerLink

TEXT, CLOSE, PING = 0x1, 0x8, 0x9


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


class Slow:
    """A handler that answers when it is told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, one: SecureMessage) -> bytes:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append(f"{one.id} cancelled")
            raise
        self.ended.append(one.id)
        return b"done"


class TestDrain:
    async def test_its_steps(
        self, raw_client: Any, http_status: Any, opening_request: Any, eventually: Any
    ) -> None:
        slow = Slow()
        server = await serve(slow, max_concurrency=2)
        async with raw_client(server.port) as peer, raw_client(server.port) as idle:
            for number in range(3):  # two run, one waits: all were read before the drain
                peer.ask(f"m-{number}")
            await eventually(lambda: server.stats()["pending"] == 3)
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)

            # 1. new connections are refused, the health check says so, further requests are not dispatched
            status, answer = await http_status(server.port, opening_request())
            assert status == 503
            assert b"draining" in answer
            client = Client(f"ws://127.0.0.1:{server.port}")
            with pytest.raises(DialError) as refused:
                await client.connect()
            assert refused.value.status == 503
            peer.ask("late")
            peer.send(PING, b"read?")
            assert (await peer.read_frame()).payload == b"read?"
            assert server.stats()["pending"] == 3
            assert server.stats()["dropped"] == 1
            assert not draining.done()

            # 2. what was read is finished and answered
            slow.go.set()
            answered = [(await peer.read_json())["message_id"] for _ in range(3)]
            assert sorted(answered) == ["m-0", "m-1", "m-2"]

            # 3. every connection is closed with 1001
            assert await peer.until_closed() == (1001, "going away")
            assert await idle.until_closed() == (1001, "going away")
            assert await peer.read_end() == b""

            # 4. the socket is closed
            await asyncio.wait_for(draining, 20)
            with pytest.raises(OSError, match="."):
                await asyncio.open_connection("127.0.0.1", server.port)
        assert server.connection_count == 0
        assert sorted(slow.ended) == ["m-0", "m-1", "m-2"]

    async def test_a_client_of_ours_keeps_its_answers_and_loses_the_rest_by_1001(
        self, eventually: Any
    ) -> None:
        slow = Slow()
        server = await serve(slow)
        client = await connect(f"ws://127.0.0.1:{server.port}", reconnect=False, encoding="plain")
        first = asyncio.create_task(client.send(message(id="first")))
        await eventually(lambda: server.stats()["pending"] == 1)
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        late = asyncio.create_task(client.send(message(id="late")))
        await eventually(lambda: server.stats()["dropped"] == 1)
        slow.go.set()
        assert (await first).data == b"done"
        with pytest.raises(ConnectionLostError) as lost:
            await late
        assert (lost.value.code, lost.value.reason) == (1001, "going away")
        await draining
        await client.close()

    async def test_its_timeout_cancels_what_still_runs(
        self, raw_client: Any, eventually: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        slow = Slow()
        server = await serve(slow)
        async with raw_client(server.port) as peer:
            peer.ask("m-1")
            await eventually(lambda: server.stats()["pending"] == 1)
            draining = asyncio.create_task(server.drain(timeout=0.05))
            assert (await peer.until_closed())[0] == 1001
            await asyncio.wait_for(draining, 20)
        assert slow.ended == ["m-1 cancelled"]
        assert "1 requests were not answered within 0.05 s" in caplog.text

    async def test_it_waits_until_answers_have_left(self, raw_client: Any, eventually: Any) -> None:
        server = await serve(lambda one: b"x" * 8_000_000)
        async with raw_client(server.port) as peer:
            (link,) = server.connections
            peer.writer.transport.pause_reading()
            peer.ask("m-1")
            await eventually(lambda: link.blocked)  # type: ignore[attr-defined]
            assert server.stats()["pending"] == 0
            draining = asyncio.create_task(server.drain())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not link.closed
            peer.writer.transport.resume_reading()
            assert len((await peer.read_json())["data"]) > 8_000_000
            assert (await peer.until_closed())[0] == 1001
            await asyncio.wait_for(draining, 20)

    async def test_it_does_not_wait_for_a_peer_that_left(self, raw_client: Any, eventually: Any) -> None:
        slow = Slow()
        server = await serve(slow, max_concurrency=1)
        async with raw_client(server.port) as peer:
            peer.ask("m-1")
            peer.ask("m-2")
            await eventually(lambda: server.stats()["pending"] == 2)
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
        await eventually(lambda: server.stats()["pending"] == 1)  # the one that ran runs on
        assert not draining.done()
        slow.go.set()
        await asyncio.wait_for(draining, 20)
        assert slow.ended == ["m-1"]

    async def test_of_an_idle_server_ends_at_once(self) -> None:
        server = await serve(lambda one: None)
        await asyncio.wait_for(server.drain(), 20)
        await server.drain()
        await server.close()

    async def test_of_one_that_never_started(self) -> None:
        server = Server(lambda one: None)
        await server.drain()
        await asyncio.wait_for(server.wait_closed(), 20)

    async def test_timeout_none_has_no_limit_and_zero_is_refused(self, raw_client: Any) -> None:
        server = await serve(lambda one: None)
        with pytest.raises(ValueError, match="timeout"):
            await server.drain(timeout=0)
        await asyncio.wait_for(server.drain(timeout=None), 20)


class TestClose:
    async def test_connections_are_closed_by_1001_and_nothing_is_left(self, raw_client: Any) -> None:
        before = asyncio.all_tasks()
        server = await serve(lambda one: b"x", close_timeout=60)
        async with raw_client(server.port) as peer:
            peer.ask("m-1")
            await peer.read_json()
            closing = asyncio.create_task(server.close())
            assert await peer.until_closed() == (1001, "going away")
            assert await peer.read_end() == b""
            await asyncio.wait_for(closing, 20)
            assert server.connection_count == 0
            assert server.sockets == ()
        assert asyncio.all_tasks() == before

    async def test_a_peer_that_never_replies_costs_close_timeout(self, raw_client: Any) -> None:
        server = await serve(lambda one: b"x", close_timeout=0.1)
        async with raw_client(server.port) as peer:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await server.close()
            assert 0.09 <= loop.time() - begun < 20
            assert server.connection_count == 0
            assert (await peer.read_close())[0] == 1001
            assert await peer.read_end() == b""

    async def test_a_peer_that_takes_no_bytes_costs_close_timeout(
        self, raw_client: Any, eventually: Any
    ) -> None:
        server = await serve(lambda one: b"x" * 9_000_000, close_timeout=0.1)
        async with raw_client(server.port) as peer:
            (link,) = server.connections
            peer.writer.transport.pause_reading()
            peer.ask("m-1")
            await eventually(lambda: link.blocked)  # type: ignore[attr-defined]
            await asyncio.wait_for(server.close(), 20)
            assert server.connection_count == 0

    async def test_a_connection_that_outlives_its_own_time_is_cut(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ServerLink, "begin_close", lambda link, code, reason: None)
        server = await serve(lambda one: b"x", close_timeout=0.05)
        async with raw_client(server.port) as peer:
            await asyncio.wait_for(server.close(), 20)
            assert server.connection_count == 0
            assert await peer.read_end() == b""

    @pytest.mark.parametrize("rounds", range(6))
    async def test_it_forgets_nobody_who_was_accepted_at_that_moment(
        self, rounds: int, opening_request: Any
    ) -> None:
        server = await serve(Slow(), close_timeout=0.1)
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.sendall(opening_request())
            for _ in range(rounds):  # the loop's: in one it is accepted, in the next it becomes a connection
                await asyncio.sleep(0)
            await server.close()
            peer.setblocking(False)
            with suppress(ConnectionError):
                async with asyncio.timeout(10):
                    while await asyncio.get_running_loop().sock_recv(peer, 65536):
                        pass

    async def test_twice_at_once_and_after(self) -> None:
        server = await serve(lambda one: None)
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.gather(server.close(), server.close(), server.drain())
        await server.close()
        await asyncio.wait_for(waiting, 20)

    async def test_a_cancelled_close_goes_on(self, raw_client: Any) -> None:
        server = await serve(lambda one: None, close_timeout=0.1)
        async with raw_client(server.port):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await server.close()
            await asyncio.wait_for(server.wait_closed(), 20)

    async def test_two_of_ours_part_quickly(self) -> None:
        async with serve(lambda one: None, close_timeout=60) as server:
            clients = [await connect(f"ws://127.0.0.1:{server.port}", reconnect=False) for _ in range(20)]
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await server.close()
            assert loop.time() - begun < 20
            for client in clients:
                await client.close()

    async def test_the_port_is_free_again(self) -> None:
        async with serve(lambda one: b"first") as server:
            port = server.port
            async with connect(f"ws://127.0.0.1:{port}") as client:
                await client.send(message())
        async with serve(lambda one: b"second", "127.0.0.1", port):
            async with connect(f"ws://127.0.0.1:{port}") as client:
                assert (await client.send(message())).data == b"second"

    async def test_a_handler_may_close_its_server(self, raw_client: Any) -> None:
        tasks: list[asyncio.Task[None]] = []

        async def handler(one: SecureMessage) -> None:
            tasks.append(asyncio.create_task(server.close()))

        server = await serve(handler)
        async with raw_client(server.port) as peer:
            peer.ask("m-1")
            await peer.until_closed()
            await asyncio.wait_for(server.wait_closed(), 20)
        await tasks[0]

    async def test_even_by_awaiting_it(self, raw_client: Any) -> None:
        async def handler(one: SecureMessage) -> None:
            await server.close()

        server = await serve(handler, close_timeout=0.2)
        async with raw_client(server.port) as peer:
            peer.ask("m-1")
            await peer.until_closed()
            await asyncio.wait_for(server.wait_closed(), 20)


class TestLifespan:
    async def test_it_stands_around_serving(self, raw_client: Any) -> None:
        steps: list[str] = []

        @asynccontextmanager
        async def lifespan(server: Server) -> AsyncIterator[None]:
            assert server.sockets == ()
            steps.append("in")
            yield
            assert server.connection_count == 0
            steps.append("out")

        async def handler(one: SecureMessage) -> None:
            steps.append("handler")
            await asyncio.sleep(0)
            steps.append("handled")

        async with serve(handler, lifespan=lifespan) as server, raw_client(server.port) as peer:
            assert steps == ["in"]
            peer.ask("m-1")
            await peer.read_json()
            drained = asyncio.create_task(server.drain())
            await peer.until_closed()
            await drained
        assert steps == ["in", "handler", "handled", "out"]

    async def test_it_has_one_context_and_handlers_see_it(self, raw_client: Any) -> None:
        @asynccontextmanager
        async def lifespan(server: Server) -> AsyncIterator[None]:
            token = database.set("open")
            yield
            database.reset(token)  # in another context: a ValueError

        database: ContextVar[str] = ContextVar("database", default="none")
        async with (
            serve(lambda one: database.get().encode(), lifespan=lifespan, close_timeout=0.1) as server,
            raw_client(server.port) as peer,
        ):
            peer.ask("m-1")
            assert b64decode((await peer.read_json())["data"]) == b"open"
            await asyncio.create_task(server.close())
        assert database.get() == "none"

    async def test_a_start_that_is_cancelled_cancels_it(self) -> None:
        ended = asyncio.Event()
        begun = asyncio.Event()

        @asynccontextmanager
        async def lifespan(server: Server) -> AsyncIterator[None]:
            try:
                begun.set()
                await asyncio.Event().wait()
                yield
            finally:
                ended.set()

        start = asyncio.create_task(Server(lambda one: None, lifespan=lifespan).start())
        await begun.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await asyncio.wait_for(ended.wait(), 20)

    async def test_one_that_fails_to_begin_is_no_server(self) -> None:
        @asynccontextmanager
        async def lifespan(server: Server) -> AsyncIterator[None]:
            raise LookupError("no database")
            yield

        with pytest.raises(LookupError, match="no database"):
            await Server(lambda one: None, lifespan=lifespan).start()

    async def test_one_that_fails_to_end_is_told_and_the_server_closed(self) -> None:
        @asynccontextmanager
        async def lifespan(server: Server) -> AsyncIterator[None]:
            yield
            raise LookupError("cannot save")

        server = await serve(lambda one: None, lifespan=lifespan)
        with pytest.raises(LookupError, match="cannot save"):
            await server.close()
        await asyncio.wait_for(server.wait_closed(), 20)


async def test_a_hundred_clients_and_a_drain_in_full_flight(eventually: Any) -> None:
    """Every send has exactly one outcome; what the server answered and what its clients got are the same."""

    async def handler(one: SecureMessage) -> bytes:
        await asyncio.sleep(0)
        return one.payload

    server = await serve(handler)
    clients = [Client(f"ws://127.0.0.1:{server.port}", reconnect=False) for _ in range(20)]
    outcomes: list[Any] = []

    async def send_on(client: Client, number: int) -> None:
        for turn in range(10_000):
            payload = json.dumps([number, turn]).encode()
            try:
                response = await client.send(message(payload))
            except (ConnectionLostError, DialError) as error:
                outcomes.append(error)
                return
            except Exception as error:  # shown by the assertion below
                outcomes.append(error)
                return
            assert response.data == payload
            outcomes.append(response)

    senders = [asyncio.create_task(send_on(client, number)) for number, client in enumerate(clients)]
    await eventually(lambda: len(outcomes) > 500)
    await asyncio.wait_for(server.drain(), 10)
    await asyncio.wait_for(asyncio.gather(*senders), 10)
    answered = [one for one in outcomes if not isinstance(one, Exception)]
    failures = [one for one in outcomes if isinstance(one, Exception)]
    assert len(answered) == server.stats()["answered"]
    assert all(type(one).__name__ in {"ConnectionLostError", "ClosedError"} for one in failures)
    assert len(failures) == len(clients)
    assert server.stats()["pending"] == 0
    for client in clients:
        await client.close()
