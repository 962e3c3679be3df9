"""``dedupe=``: over whichever connection a message comes again, its handler runs once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sage_ws import DedupeMemory, DedupeSQLite, HandlerError, Response, SecureMessage, Server, connect, serve
from sage_ws.transports.http import HTTPTransport, http_app


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return DedupeMemory() if request.param == "memory" else DedupeSQLite(tmp_path / "answers.db")


class Counting:
    """A handler that counts its runs by id, and waits for `go_on` where that is clear."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, message: SecureMessage) -> bytes:
        self.runs[message.id] = self.runs.get(message.id, 0) + 1
        self.started.set()
        await self.go_on.wait()
        return message.payload.upper()


def files(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def test_a_repeat_gets_the_answer_of_the_first(store: Any) -> None:
    handler, sent = Counting(), message(b"hello", id="1", task_id="t")
    async with serve(handler, dedupe=store) as server:
        async with connect(url(server)) as client:
            first = await client.send(sent)
        async with connect(url(server)) as client:
            assert await client.send(sent) == first == Response(message_id="1", task_id="t", data=b"HELLO")
        assert handler.runs == {"1": 1}
        assert (server.stats()["duplicates"], server.stats()["received"]) == (1, 2)


async def test_a_repeat_joins_a_run_that_goes_on(store: Any) -> None:
    handler, sent = Counting(), message(b"hello", id="1")
    handler.go_on.clear()
    async with serve(handler, dedupe=store) as server, connect(url(server)) as one:
        async with connect(url(server)) as other, connect(url(server)) as impatient:
            calls = [asyncio.create_task(client.send(sent)) for client in (one, other)]
            await handler.started.wait()
            with pytest.raises(TimeoutError):
                await impatient.send(sent, timeout=0.05)
            handler.go_on.set()
            assert [response.data for response in await asyncio.gather(*calls)] == [b"HELLO"] * 2
        assert handler.runs == {"1": 1}


async def test_the_answer_of_a_dropped_connection_is_kept(
    store: Any, raw_client: Any, eventually: Any
) -> None:
    handler = Counting()
    handler.go_on.clear()
    async with serve(handler, dedupe=store) as server:
        async with raw_client(server.port) as peer:
            peer.ask("1", b"hello", did="did:sage:test")
            await handler.started.wait()
        await eventually(lambda: not server.connection_count)
        handler.go_on.set()
        async with connect(url(server)) as client:
            assert (await client.send(message(b"hello", id="1"))).data == b"HELLO"
        assert handler.runs == {"1": 1}


async def test_failures_are_kept_too(store: Any) -> None:
    runs = 0

    async def handler(message: SecureMessage) -> bytes:
        nonlocal runs
        runs += 1
        if message.payload == b"no":
            raise HandlerError("not today")
        raise RuntimeError("a bug")

    async with serve(handler, dedupe=store) as server, connect(url(server)) as client:
        for payload, text in ((b"no", "not today"), (b"bug", "internal error")):
            sent = message(payload)
            for _ in range(2):
                response = await client.send(sent)
                assert (response.success, response.error) == (False, text)
        assert runs == 2


@pytest.mark.parametrize("shape", ["plain", "generator", "with a call"])
async def test_every_shape_of_a_handler_runs_once(store: Any, shape: str) -> None:
    runs = 0

    def plain(message: SecureMessage) -> bytes:
        nonlocal runs
        runs += 1
        return b"ab"

    async def generator(message: SecureMessage) -> AsyncIterator[bytes]:
        nonlocal runs
        runs += 1
        yield b"a"
        yield b"b"

    async def with_call(message: SecureMessage, call: Any) -> bytes:
        nonlocal runs
        runs += 1
        assert call.connection in server.connections
        return b"ab"

    handler: Any = {"plain": plain, "generator": generator, "with a call": with_call}[shape]
    async with serve(handler, dedupe=store) as server, connect(url(server)) as client:
        sent = message()
        assert [(await client.send(sent)).data for _ in range(2)] == [b"ab"] * 2
        assert runs == 1


async def test_a_run_that_a_close_cut_is_unknown_to_the_next_server(store: Any) -> None:
    handler, sent = Counting(), message(id="1")
    handler.go_on.clear()
    async with serve(handler, dedupe=store) as server, connect(url(server), reconnect=False) as client:
        call = asyncio.create_task(client.send(sent))
        await handler.started.wait()
        await server.close()
        with pytest.raises(ConnectionError):
            await call
    async with serve(handler, dedupe=store) as server, connect(url(server)) as client:
        response = await client.send(sent)
        assert (response.success, response.message_id, response.error) == (False, "1", "outcome unknown")
        handler.go_on.set()
        assert (await client.send(message(b"new"))).data == b"NEW"
    assert handler.runs["1"] == 1


async def test_a_guessed_id_gets_nobodys_answer(store: Any) -> None:
    handler = Counting()
    async with serve(handler, dedupe=store) as server, connect(url(server)) as client:
        await client.send(message(b"secret", id="1"))
        assert (await client.send(message(b"guess", id="1"))).data == b"GUESS"
        assert (await client.send(SecureMessage(payload=b"secret", did="did:sage:other", id="1"))).success
    assert handler.runs == {"1": 3}


async def test_with_an_identity_it_is_the_identitys_id(store: Any) -> None:
    handler = Counting()

    async def authorize(request: Any) -> str:
        return str(request.headers["x-name"])

    async with serve(handler, dedupe=store, authorize=authorize) as server:
        async with connect(url(server), headers={"X-Name": "alice"}) as client:
            await client.send(message(b"a", id="1"))
            assert (await client.send(message(b"b", id="1"))).data == b"A"
        async with connect(url(server), headers={"X-Name": "bob"}) as client:
            assert (await client.send(message(b"a", id="1"))).data == b"A"
    assert handler.runs == {"1": 2}


async def test_two_servers_may_share_a_store(store: Any) -> None:
    handler, sent = Counting(), message(b"hello", id="1")
    async with serve(handler, dedupe=store) as one, serve(handler, dedupe=store) as other:
        for server in (one, other):
            async with connect(url(server)) as client:
                assert (await client.send(sent)).data == b"HELLO"
    assert handler.runs == {"1": 1}


async def test_many_at_once_run_once_each(store: Any) -> None:
    handler = Counting()
    sent = [message(str(number).encode()) for number in range(200)]
    async with (
        serve(handler, dedupe=store) as server,
        connect(url(server)) as one,
        connect(url(server)) as two,
    ):
        answers = await asyncio.gather(*(client.send(each) for each in sent for client in (one, two)))
        assert [answer.data for answer in answers[::2]] == [each.payload for each in sent]
        assert answers[::2] == answers[1::2]
        assert server.stats()["duplicates"] == 200
    assert set(handler.runs.values()) == {1}


class Broken(DedupeMemory):
    """A store that fails where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def begin(self, key: bytes) -> Any:
        if self.where == "begin":
            raise OSError("disk full")
        return await super().begin(key)

    async def finish(self, key: bytes, response: Response) -> None:
        if self.where == "finish":
            raise OSError("disk full")
        await super().finish(key, response)

    async def open(self) -> None:
        if self.where == "open":
            raise OSError("no such disk")
        await super().open()

    async def close(self) -> None:
        await super().close()
        if self.where == "close":
            raise OSError("disk gone")


class TestABrokenStore:
    async def test_that_cannot_be_asked_runs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        handler = Counting()
        async with serve(handler, dedupe=Broken("begin")) as server, connect(url(server)) as client:
            assert (await client.send(message())).error == "internal error"
        assert handler.runs == {}
        assert "disk full" in caplog.text

    async def test_that_cannot_keep_costs_no_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serve(Counting(), dedupe=Broken("finish")) as server, connect(url(server)) as client:
            assert (await client.send(message(b"hello", id="7"))).data == b"HELLO"
            assert (await client.send(message(b"hello", id="7"))).error == "outcome unknown"
        assert "the answer to message '7' could not be kept" in caplog.text

    async def test_that_cannot_be_opened_is_no_server(self) -> None:
        server = Server(Counting(), dedupe=Broken("open"))
        with pytest.raises(OSError, match="no such disk"):
            await server.start()
        assert server.sockets == ()
        await server.close()

    async def test_that_cannot_be_closed_keeps_nothing_from_ending(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(Counting(), dedupe=Broken("close")):
            pass
        assert "the dedupe store could not be closed" in caplog.text

    async def test_that_takes_for_ever_to_close_costs_close_timeout(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Endless(DedupeMemory):
            async def close(self) -> None:
                await asyncio.get_running_loop().create_future()

        server = await serve(Counting(), dedupe=Endless(), close_timeout=0.1)
        async with asyncio.timeout(10):
            await server.close()
        assert "the dedupe store could not be closed" in caplog.text


async def test_a_server_that_cannot_listen_gives_the_store_back(tmp_path: Path) -> None:
    store = DedupeSQLite(tmp_path / "answers.db")
    server = Server(Counting(), dedupe=store)
    with pytest.raises(OSError, match="(?i)cannot assign requested address|could not bind"):
        await server.start("192.0.2.1")
    await server.close()
    gc.collect()
    assert files(tmp_path) == ["answers.db"]


async def test_a_message_runs_once_whether_it_comes_by_websocket_or_by_http(store: Any) -> None:
    handler, sent = Counting(), message(b"hello", id="1")
    runner = web.AppRunner(http_app(handler, dedupe=store))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with serve(handler, dedupe=store) as server, connect(url(server)) as client:
            first = await client.send(sent)
            transport = HTTPTransport(f"http://127.0.0.1:{port}")
            try:
                assert await transport.send(sent) == first
                assert await transport.send(sent) == first
            finally:
                await transport.close()
        assert handler.runs == {"1": 1}
    finally:
        await runner.cleanup()
