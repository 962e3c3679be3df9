"""Answers in parts: order, pace, ends; over the extended wire, and towards peers that have no streams."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage_ws import (
    Client,
    ConnectionLostError,
    DecodeError,
    DedupeMemory,
    DialError,
    HandlerError,
    Next,
    ReadTimeoutError,
    Response,
    Router,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.aio.streams import WINDOW


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


@pytest.fixture(params=["cbor", "json", "plain"])
def encoding(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["cbor", "json"])
def extended(request: pytest.FixtureRequest) -> Any:
    return request.param


class Counting:
    """Yields numbers, `limit` of them or without end; tells how far it came and how it ended."""

    def __init__(self, limit: int | None = None, size: int = 0) -> None:
        self.limit = limit
        self.size = size
        self.made = 0
        self.closed = asyncio.Event()

    async def __call__(self, message: SecureMessage) -> AsyncIterator[bytes]:
        try:
            while self.limit is None or self.made < self.limit:
                self.made += 1
                yield b"%d" % self.made + b"x" * self.size
        finally:
            self.closed.set()


async def all_of(client: Client, **options: Any) -> list[bytes]:
    async with client.stream(message(), **options) as parts:
        return [part.raise_for_error().data async for part in parts]


class TestParts:
    @pytest.mark.parametrize("count", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 500])
    async def test_they_come_in_order(self, extended: Any, count: int) -> None:
        async with serve(Counting(count), encoding=extended) as server, connect(url(server)) as client:
            assert await all_of(client) == [b"%d" % number for number in range(1, count + 1)]
            stats = client.stats()
            assert (stats["sent"], stats["answered"], stats["pending"], stats["late"]) == (1, 1, 0, 0)
            assert server.stats()["answered"] == 1

    async def test_each_comes_when_it_is_made(self, extended: Any) -> None:
        taken = asyncio.Event()

        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"first"
            await taken.wait()  # nothing follows before the first was taken
            yield b"second"

        async with serve(handler, encoding=extended) as server, connect(url(server)) as client:
            async with asyncio.timeout(10), client.stream(message(task_id="t")) as parts:
                first = await anext(parts)
                assert (first.data, first.success, first.task_id) == (b"first", True, "t")
                taken.set()
                assert (await anext(parts)).data == b"second"
                with pytest.raises(StopAsyncIteration):
                    await anext(parts)

    async def test_a_peer_without_streams_joins_them(self) -> None:
        async with serve(Counting(3)) as server, connect(url(server), encoding="plain") as client:
            assert await all_of(client) == [b"123"]
            assert (await client.send(message())).data == b""  # the generator is spent

    async def test_send_gets_them_joined_over_any_wire(self, encoding: Any) -> None:
        async with serve(Counting(3), encoding=encoding) as server, connect(url(server)) as client:
            assert (await client.send(message())).data == b"123"

    @pytest.mark.parametrize(
        "reply",
        [b"one", None, Response(data=b"one"), Response.failure("no")],
        ids=["bytes", "none", "response", "failure"],
    )
    async def test_an_answer_in_one_is_one_part(self, encoding: Any, reply: Any) -> None:
        async with serve(lambda message: reply, encoding=encoding) as server, connect(url(server)) as client:
            async with client.stream(message(id="1")) as parts:
                (part,) = [part async for part in parts]
            assert part == await client.send(message(id="1"))

    async def test_none_at_all_is_an_empty_answer(self, encoding: Any) -> None:
        async with serve(Counting(0), encoding=encoding) as server, connect(url(server)) as client:
            assert await all_of(client) == [b""]

    async def test_by_router_and_through_interceptors(self, extended: Any) -> None:
        last: list[tuple[str, Response]] = []

        def watching(end: str) -> Any:
            async def watch(message: SecureMessage, following: Next) -> Response:
                response = await following(message)
                last.append((end, response))
                return response

            return watch

        router = Router()
        router.default(Counting(40))
        async with serve(router, interceptors=[watching("server")], encoding=extended) as server:
            async with connect(url(server), interceptors=[watching("client")]) as client:
                async with client.stream(message(id="1", metadata={"action": "count"})) as parts:
                    assert len([part async for part in parts]) == 40
        assert last == [("server", Response(message_id="1")), ("client", Response(message_id="1"))]

    async def test_a_clients_interceptor_may_answer_by_itself_or_fail(self) -> None:
        async def instead(message: SecureMessage, following: Next) -> Response:
            if message.payload == b"fail":
                raise LookupError("no")
            return Response(data=b"cached")

        async with serve(Counting(3)) as server, connect(url(server), interceptors=[instead]) as client:
            assert await all_of(client) == [b"cached"]
            with pytest.raises(LookupError):
                async with client.stream(message(b"fail")) as parts:
                    await anext(parts)

    async def test_with_dedupe_they_are_one_answer_that_can_be_repeated(self, extended: Any) -> None:
        counting = Counting(3)
        async with serve(counting, dedupe=DedupeMemory(), encoding=extended) as server:
            async with connect(url(server)) as client:
                for _ in range(2):
                    async with client.stream(message(id="1")) as parts:
                        assert [part.data async for part in parts] == [b"123"]
        assert counting.made == 3


class TestPace:
    async def test_a_slow_consumer_pauses_its_stream_and_no_other(
        self, extended: Any, eventually: Any
    ) -> None:
        slow, fast = Counting(), Counting(300)
        router = Router()
        router.on("slow")(slow)
        router.on("fast")(fast)
        router.on("once")(lambda message: b"once")
        async with serve(router, encoding=extended) as server, connect(url(server)) as client:
            async with client.stream(message(metadata={"action": "slow"})) as parts:
                assert (await anext(parts)).data == b"1"
                async with client.stream(message(metadata={"action": "fast"})) as others:
                    assert len([part async for part in others]) == 300
                assert (await client.send(message(metadata={"action": "once"}))).data == b"once"
                await client.ping()
                assert slow.made <= WINDOW + 2
                made = slow.made
                for number in range(2, 2 * WINDOW):
                    assert (await anext(parts)).data == b"%d" % number
                await eventually(lambda: slow.made > made)
            await slow.closed.wait()

    async def test_a_paused_one_keeps_its_place(self, extended: Any, eventually: Any) -> None:
        """With one place for handlers two of them never run at once, whatever a consumer does."""
        slow = Counting()
        router = Router()
        router.on("slow")(slow)
        router.on("once")(lambda message: b"once")
        async with serve(router, encoding=extended, max_concurrency=1) as server:
            async with connect(url(server)) as client:
                async with client.stream(message(metadata={"action": "slow"})) as parts:
                    assert (await anext(parts)).data == b"1"
                    waiting = asyncio.create_task(client.send(message(metadata={"action": "once"})))
                    await eventually(lambda: server.stats()["pending"] == 2)
                    assert not waiting.done()
                assert (await waiting).data == b"once"
        assert slow.closed.is_set()

    @pytest.mark.parametrize("first", ["the queue", "the window"])
    async def test_a_full_queue_does_not_keep_the_leave_to_go_on_away(
        self, extended: Any, first: str, eventually: Any
    ) -> None:
        """The one handler waits for the peer's word, which comes by the socket that is not read any more."""
        go_on = asyncio.Event()
        slow = Counting(4 * WINDOW)

        async def parts_when_told(message: SecureMessage) -> AsyncIterator[bytes]:
            await go_on.wait()
            async for part in slow(message):
                yield part

        router = Router()
        router.on("parts")(parts_when_told)
        router.default(lambda message: b"once")
        limits: dict[str, Any] = {"max_concurrency": 1, "max_queue_bytes": 3000}
        async with serve(router, encoding=extended, **limits) as server, connect(url(server)) as client:
            (link,) = server._links
            async with asyncio.timeout(10), client.stream(message(metadata={"action": "parts"})) as parts:
                beginning = asyncio.ensure_future(anext(parts))
                await eventually(lambda: link.connection.running == 1)
                if first == "the window":
                    go_on.set()
                    await eventually(lambda: slow.made > WINDOW)
                calls = [asyncio.create_task(client.send(message(b"x" * 2500))) for _ in range(3)]
                await eventually(lambda: server.stats()["received"] > 2)
                go_on.set()
                assert (await beginning).data == b"1"
                assert len([part async for part in parts]) == 4 * WINDOW - 1
                outcomes = {(one.data, one.error) for one in await asyncio.gather(*calls)}
            assert outcomes <= {(b"once", ""), (b"", "overloaded")}
            assert not link._starved

    async def test_whatever_a_peer_has_room_for_others_get_their_turn(self, raw_client: Any) -> None:
        """A generator that waits for nothing, and a consumer that has given all the credit there is."""
        turns, at = 0, Counter[int]()

        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            for _ in range(1000):
                at[turns] += 1
                yield b"x"

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with serve(handler) as server:
            others = asyncio.create_task(take_turns())
            async with raw_client(server.port, headers={"Sec-WebSocket-Protocol": "sage.1.json"}) as peer:
                peer.ask("1", kind="request", credit=2**32 - 1)
                while (await peer.read_json()).get("more"):
                    pass
            others.cancel()
        assert at.total() == 1000
        assert max(at.values()) <= 2 * WINDOW

    async def test_large_parts_wait_for_the_socket_too(self, extended: Any) -> None:
        """A consumer with credit whose socket is full: what waits here is bounded."""
        counting = Counting(64, size=200_000)
        async with serve(counting, encoding=extended) as server, connect(url(server)) as client:
            async with client.stream(message()) as parts:
                assert [len(part.data) > 200_000 async for part in parts] == [True] * 64

    async def test_many_streams_at_once(self, extended: Any) -> None:
        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            for number in range(50):
                yield b"%s-%d" % (message.payload, number)
                if number % 7 == 0:
                    await asyncio.sleep(0)

        async def read(client: Client, name: bytes) -> None:
            async with client.stream(message(name)) as parts:
                assert [part.data async for part in parts] == [b"%s-%d" % (name, n) for n in range(50)]

        async with serve(handler, encoding=extended) as server, connect(url(server)) as client:
            await asyncio.gather(*(read(client, b"%d" % name) for name in range(60)))
            assert server.stats()["pending"] == 0

    async def test_a_peer_that_sends_more_than_there_is_room_for_is_stopped(
        self, extended: Any, eventually: Any
    ) -> None:
        async def impolite(message: SecureMessage, call: Any) -> AsyncIterator[bytes]:
            for _ in range(3 * WINDOW):
                call.connection.send_part(message, b"too much")
            await asyncio.Event().wait()
            yield b""

        async with serve(impolite, encoding=extended) as server, connect(url(server)) as client:
            async with client.stream(message()) as parts:
                await anext(parts)
                await eventually(lambda: client.stats()["pending"] == 0)
                taken = 0
                with pytest.raises(DecodeError, match="more parts than there was room for"):  # noqa: PT012
                    async for _ in parts:
                        taken += 1
                assert taken <= WINDOW + 1
            await client.ping()


class TestEnds:
    @pytest.mark.parametrize("how", ["break", "exception", "cancel", "aclose"])
    async def test_leaving_early_stops_the_generator(self, extended: Any, how: str, eventually: Any) -> None:
        counting = Counting()
        async with serve(counting, encoding=extended) as server, connect(url(server)) as client:

            async def consume() -> None:
                async with client.stream(message()) as parts:
                    async for part in parts:
                        if how == "break":
                            break
                        if how == "exception":
                            raise LookupError
                        if how == "aclose":
                            await parts.aclose()  # type: ignore[attr-defined]
                            continue
                        if part.data == b"3":
                            await asyncio.Event().wait()

            task = asyncio.create_task(consume())
            if how == "cancel":
                await eventually(lambda: counting.made > 3)
                task.cancel()
            await asyncio.wait([task])
            if how in {"exception", "cancel"}:
                assert task.cancelled() or isinstance(task.exception(), LookupError)
            await counting.closed.wait()
            await eventually(lambda: server.stats()["pending"] == 0)
            assert (client.stats()["pending"], server.stats()["stopped"]) == (0, 1)

    @pytest.mark.parametrize(
        ("error", "text"), [(HandlerError("half way"), "half way"), (KeyError("k"), "internal error")]
    )
    async def test_an_error_comes_behind_the_parts_before_it(
        self, extended: Any, error: Exception, text: str
    ) -> None:
        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"1"
            yield b"2"
            raise error

        async with serve(handler, encoding=extended) as server, connect(url(server)) as client:
            async with client.stream(message()) as parts:
                got = [(part.success, part.data, part.error) async for part in parts]
        assert got == [(True, b"1", ""), (True, b"2", ""), (False, b"", text)]

    async def test_a_part_over_the_limit_ends_it(self, extended: Any) -> None:
        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"fits"
            yield b"x" * 2000

        async with serve(handler, max_message_size=1000, encoding=extended) as server:
            async with connect(url(server)) as client:
                async with client.stream(message()) as parts:
                    got = [part async for part in parts]
        assert got[0].data == b"fits"
        assert not got[-1].success

    async def test_a_lost_connection_ends_it_behind_what_came(self, extended: Any, eventually: Any) -> None:
        counting = Counting()
        async with serve(counting, encoding=extended) as server:
            async with connect(url(server), backoff=lambda attempt: 0.001) as client:
                async with client.stream(message()) as parts:
                    await anext(parts)
                    await eventually(lambda: counting.made > WINDOW)
                    (connection,) = server.connections
                    await connection.close()
                    with pytest.raises(ConnectionLostError):
                        async for _ in parts:
                            pass
                await counting.closed.wait()  # nobody takes further parts: the generator ends
                await eventually(lambda: server.stats()["pending"] == 0)
                assert client.stats()["failed"] == 1

    async def test_closing_the_client_ends_it(self, extended: Any) -> None:
        async with serve(Counting(), encoding=extended) as server:
            client = await connect(url(server))
            async with client.stream(message()) as parts:
                await anext(parts)
                await client.close()
                with pytest.raises(ConnectionLostError):
                    async for _ in parts:
                        pass
            assert client.stats()["pending"] == 0

    @pytest.mark.parametrize("whose", ["client", "call"])
    async def test_its_times(self, extended: Any, whose: str, growing: Any) -> None:
        closed = asyncio.Event()

        async def stalling(message: SecureMessage) -> AsyncIterator[bytes]:
            try:
                yield b"1"
                await asyncio.Event().wait()
            finally:
                closed.set()

        async with serve(stalling, encoding=extended) as server:
            for seconds in growing(0.05):
                closed.clear()
                options = {"read_timeout": seconds} if whose == "client" else {}
                times = {"timeout": seconds} if whose == "call" else {}
                async with connect(url(server), **options) as client:
                    with pytest.raises(ReadTimeoutError) as raised:
                        await all_of(client, **times)
                    assert client.stats()["pending"] == 0
                    if str(raised.value) == "no further part came in time":
                        await closed.wait()
                        break
                    assert str(raised.value) == "no answer came in time"

    async def test_each_part_has_read_timeout_of_its_own(self, extended: Any, growing: Any) -> None:
        async def handler(message: SecureMessage) -> AsyncIterator[bytes]:
            for _ in range(4):
                await asyncio.sleep(seconds / 3)
                yield b"x"

        async with serve(handler, encoding=extended) as server:
            for seconds in growing(0.3):
                async with connect(url(server), read_timeout=seconds) as client:
                    with contextlib.suppress(ReadTimeoutError):
                        assert len(await all_of(client)) == 4
                        break

    async def test_what_send_raises_the_iteration_raises(self) -> None:
        client = Client("ws://127.0.0.1:1")
        async with client.stream(message()) as parts:
            with pytest.raises(DialError):
                await anext(parts)
        with pytest.raises(TypeError, match="message must be"):
            await all_of_message(client, "x")
        await client.close()

    async def test_one_that_is_never_read_costs_nothing(self, extended: Any) -> None:
        counting = Counting()
        async with serve(counting, encoding=extended) as server, connect(url(server)) as client:
            async with client.stream(message()):
                pass
            assert (counting.made, client.stats()["sent"]) == (0, 0)
        gc.collect()


async def all_of_message(client: Client, one: Any) -> None:
    async with client.stream(one) as parts:
        await anext(parts)
