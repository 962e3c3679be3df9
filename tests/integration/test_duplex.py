"""Requests in both directions, and deadlines, cancellation and farewells that cross the wire.

Over 500 lines: one class for each promise of the extended wire, but streams.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self

import pytest
from tests.integration.held import Held

from sage_ws import (
    Call,
    Client,
    ClosedError,
    ConnectionLostError,
    HandlerError,
    NotSentError,
    QueueTimeoutError,
    ReadTimeoutError,
    Response,
    SecureMessage,
    Server,
    connect,
    serve,
)

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def by_name(request: Any) -> str | None:
    name: str | None = request.headers.get("X-Name")
    return name


async def shout(message: SecureMessage) -> bytes:
    return message.payload.upper()


async def echo(message: SecureMessage) -> bytes:
    return message.payload


async def brief(message: SecureMessage) -> bytes:
    await asyncio.sleep(0.001)
    return message.payload


class Load:
    """Eight callers, one call after the other each, until the block is left.

    Attributes:
        over: no further call is made.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks = asyncio.TaskGroup()
        self._answered = 0
        self.over = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for _ in range(8):
            self._tasks.create_task(self._ask())
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.over = True
        await self._tasks.__aexit__(*raised)

    async def more(self, count: int) -> None:
        """Wait for so many further answers."""
        enough = self._answered + count
        while self._answered < enough:  # noqa: ASYNC110 - the load sets the pace
            await asyncio.sleep(0.001)

    async def _ask(self) -> None:
        while not self.over:
            assert (await self._client.send(message(b"hello"), timeout=20)).data == b"hello"
            self._answered += 1


class Endless:
    """A handler that waits until it is cancelled, and tells of both."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.deadlines: list[float | None] = []

    async def __call__(self, message: SecureMessage, call: Call) -> None:
        self.deadlines.append(call.deadline)
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture(params=["cbor", "json"])
def encoding(request: pytest.FixtureRequest) -> Any:
    return request.param


class TestNegotiation:
    @pytest.mark.parametrize(
        ("client", "server", "chosen"),
        [
            ("auto", "auto", "sage.1.cbor"),
            ("json", "auto", "sage.1.json"),
            ("auto", "json", "sage.1.json"),
            ("cbor", "json", None),
            ("auto", "plain", None),
            ("plain", "auto", None),
        ],
    )
    async def test_both_ends_have_a_say(self, client: Any, server: Any, chosen: str | None) -> None:
        async with serve(echo, encoding=server) as serving:
            async with connect(url(serving), encoding=client) as calling:
                sent = message(b"\x00\xff", metadata={"a": "ü"}, context_id="c", task_id="t", signature=b"s")
                assert (await calling.send(sent)).data == b"\x00\xff"
                (connection,) = serving.connections
                assert connection.subprotocol == chosen

    async def test_so_is_one_that_chooses_the_first_whatever_it_is(self, lying_server: Any) -> None:
        async def naive(peer: Any) -> None:
            head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            accepted = hashlib.sha1((fields["Sec-WebSocket-Key"] + GUID).encode()).digest()
            first = fields["Sec-WebSocket-Protocol"].split(", ")[0]
            peer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {base64.b64encode(accepted).decode()}\r\n".encode()
                + f"Sec-WebSocket-Protocol: {first}\r\n\r\n".encode()
            )
            asked = await peer.read_json()
            assert "kind" not in asked
            peer.answer(asked["id"], b"done")
            await peer.until_closed()

        async with lying_server(naive, handshake=False) as server, connect(server.url) as client:
            assert (await client.send(message())).data == b"done"

    async def test_a_peer_that_chooses_nothing_is_spoken_to_as_ever(self, lying_server: Any) -> None:
        async def stock(peer: Any) -> None:
            asked = await peer.read_json()
            assert "kind" not in asked
            peer.answer(asked["id"], b"done")
            await peer.until_closed()

        async with lying_server(stock) as server, connect(server.url, handler=echo) as client:
            assert (await client.send(message())).data == b"done"


class TestAServerAsks:
    async def test_by_connection_and_by_identity(self, encoding: Any) -> None:
        async with serve(echo, authorize=by_name, encoding=encoding) as server:
            async with connect(url(server), headers={"X-Name": "alice"}, handler=shout) as client:
                (connection,) = server.connections
                assert (await connection.send(message(b"a"))).data == b"A"
                answer = await connection.send(message(b"b", id="b", task_id="t"))
                assert answer == Response(message_id="b", task_id="t", data=b"B")
                assert (await server.send("alice", message(b"c"))).data == b"C"
                assert (server.stats()["asked"], client.stats()["served"]) == (3, 3)
                assert (server.stats()["received"], server.stats()["answered"]) == (0, 0)
                assert (client.stats()["sent"], client.stats()["answered"]) == (0, 0)

    async def test_the_newest_connection_comes_first_and_the_next_where_it_has_ended(
        self, eventually: Any
    ) -> None:
        def named(name: bytes) -> Callable[[SecureMessage], bytes]:
            return lambda message: name

        async with serve(echo, authorize=by_name) as server:
            options: dict[str, Any] = {"headers": {"X-Name": "alice"}}
            async with connect(url(server), handler=named(b"old"), **options):
                async with connect(url(server), handler=named(b"new"), **options):
                    async with connect(url(server), headers={"X-Name": "bob"}, handler=named(b"bob")):
                        assert (await server.send("alice", message())).data == b"new"
                        assert (await server.send("bob", message())).data == b"bob"
                await eventually(lambda: server.connection_count == 1)
                assert (await server.send("alice", message())).data == b"old"
            with pytest.raises(NotSentError):
                await server.send("bob", message(), timeout=1)

    async def test_what_a_client_cannot_do_is_said(self, encoding: Any) -> None:
        async def no(message: SecureMessage) -> bytes:
            raise HandlerError("not today") if message.payload == b"no" else LookupError("a bug")

        async with serve(echo, encoding=encoding) as server:
            async with connect(url(server)):
                response = await server.connections[0].send(message())  # type: ignore[index]
                assert response.error == "this client takes no requests"
        async with serve(echo, encoding=encoding) as server, connect(url(server), handler=no):
            (connection,) = server.connections
            assert (await connection.send(message(b"no"))).error == "not today"
            assert (await connection.send(message())).error == "internal error"
            assert (await connection.send(message(b""))).error == "payload is required"

    async def test_its_times(self, encoding: Any, growing: Any) -> None:
        endless = Endless()
        async with serve(echo, read_timeout=None, encoding=encoding) as server:
            async with connect(url(server), handler=endless) as client:
                (connection,) = server.connections
                for seconds in growing(0.05):
                    with pytest.raises(ReadTimeoutError) as raised:
                        await connection.send(message(id="1"), timeout=seconds)
                    assert raised.value.message_id == "1"
                    await client.ping()  # what was sent before has been read
                    if endless.started.is_set():
                        break
                await endless.cancelled.wait()
                with pytest.raises(TypeError, match="message must be a SecureMessage"):
                    await connection.send("x")  # type: ignore[arg-type]

    async def test_a_lost_connection_ends_its_calls(self) -> None:
        endless = Endless()
        async with serve(echo) as server:
            client = await connect(url(server), handler=endless)
            (connection,) = server.connections
            call = asyncio.create_task(connection.send(message(id="1")))
            await endless.started.wait()
            await client.close()
            with pytest.raises(ConnectionLostError):
                await call
            with pytest.raises(ClosedError):
                await connection.send(message())

    async def test_a_clients_handler_may_ask_back_and_close(self) -> None:
        async def handler(message: SecureMessage, call: Call) -> bytes:
            assert call.connection is not None
            assert (call.identity, call.connection.closed) == (None, False)
            if message.payload == b"close":
                await call.connection.close()
                return b"nobody hears this"
            return (await call.connection.send(message.replace(id="", payload=b"back"))).data

        async with serve(shout) as server:
            async with connect(url(server), handler=handler, backoff=lambda attempt: 0.001) as client:
                (connection,) = server.connections
                assert (await connection.send(message())).data == b"BACK"
                with pytest.raises(ConnectionLostError):
                    await connection.send(message(b"close"))
                assert (await client.send(message(b"again"))).data == b"AGAIN"
                assert client.stats()["reconnects"] == 1

    async def test_a_connection_without_a_handler_does_not_hide_an_older_one(self, encoding: Any) -> None:
        async with serve(echo, authorize=by_name, encoding=encoding) as server:
            named: dict[str, Any] = {"headers": {"X-Name": "alice"}}
            async with connect(url(server), handler=shout, **named), connect(url(server), **named):
                assert server.connection_count == 2
                assert (await server.send("alice", message(b"quiet"))).data == b"QUIET"
            async with connect(url(server), **named), connect(url(server), **named):
                assert (await server.send("alice", message())).error == "this client takes no requests"

    async def test_64_handlers_ask_back_at_once_over_their_own_connection(self, encoding: Any) -> None:
        """And so does each of those that they ask, three deep, with places for 64."""

        async def deeper(message: SecureMessage, call: Call) -> bytes:
            depth = int(message.payload)
            if depth == 0:
                return b"0"
            assert call.connection is not None
            answer = await call.connection.send(message.replace(id="", payload=b"%d" % (depth - 1)))
            return b"%d" % (int(answer.data) + 1)

        async with serve(deeper, encoding=encoding) as server:
            async with connect(url(server), handler=deeper) as client:
                async with asyncio.timeout(20):
                    answers = await asyncio.gather(*(client.send(message(b"3")) for _ in range(64)))
                assert {answer.data for answer in answers} == {b"3"}

    async def test_requests_beyond_the_queue_are_overloaded_while_a_handler_asks(self, encoding: Any) -> None:
        go_on = asyncio.Event()
        asked = asyncio.Event()

        async def slow(message: SecureMessage) -> bytes:
            asked.set()
            await go_on.wait()
            return b"done"

        async def handler(message: SecureMessage, call: Call) -> bytes:
            assert call.connection is not None
            if message.payload == b"ask":
                return (await call.connection.send(message.replace(id=""))).data
            await go_on.wait()
            return b"done"

        options: dict[str, Any] = {"max_concurrency": 1, "max_queue_bytes": 3000, "encoding": encoding}
        async with serve(handler, **options) as server, connect(url(server), handler=slow) as client:
            first = asyncio.create_task(client.send(message(b"ask")))
            await asked.wait()
            rest = [asyncio.create_task(client.send(message(b"x" * 500))) for _ in range(10)]
            done, waiting = await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
            assert {one.result().error for one in done} == {"overloaded"}
            go_on.set()
            assert (await first).data == b"done"
            outcomes = {(one.data, one.error) for one in await asyncio.gather(*rest)}
            assert outcomes == {(b"done", ""), (b"", "overloaded")}


class TestDeadlines:
    async def test_the_time_that_is_left_travels_and_the_handler_ends_with_it(
        self, encoding: Any, growing: Any, eventually: Any
    ) -> None:
        endless = Endless()
        loop = asyncio.get_running_loop()
        async with serve(endless, encoding=encoding) as server, connect(url(server)) as client:
            tries = 0
            for seconds in growing(0.1):
                tries += 1
                begun = loop.time()
                with pytest.raises(ReadTimeoutError):
                    await client.send(message(), timeout=seconds)
                await client.ping()  # what was sent before has been read
                await eventually(lambda: server.stats()["pending"] == 0)
                if endless.started.is_set():
                    break
            assert endless.cancelled.is_set()
            (deadline,) = endless.deadlines
            assert deadline is not None
            # in whole milliseconds; the server adds it to the time at which it has read the request
            assert begun + seconds - 0.002 <= deadline <= loop.time() + seconds
            assert server.stats()["expired"] + server.stats()["stopped"] == tries

    async def test_where_nothing_is_said_none_travels(self) -> None:
        seen: list[float | None] = []

        def handler(message: SecureMessage, call: Call) -> None:
            seen.append(call.deadline)

        async with serve(handler) as server, connect(url(server)) as client:
            await client.send(message())
            await client.send(message(), timeout=None)
            await client.send(message(), timeout=30)
        assert seen[:2] == [None, None]
        assert seen[2] is not None

    async def test_read_timeout_cancels_the_handler_too(
        self, encoding: Any, growing: Any, eventually: Any
    ) -> None:
        endless = Endless()
        async with serve(endless, encoding=encoding) as server:
            for seconds in growing(0.05):
                async with connect(url(server), read_timeout=seconds) as client:
                    with pytest.raises(ReadTimeoutError):
                        await client.send(message())
                    await client.ping()  # what was sent before has been read
                    if endless.started.is_set():
                        await endless.cancelled.wait()
                        await eventually(lambda: server.stats()["stopped"] >= 1)
                        break

    async def test_nested_calls_inherit_it_through_tasks_too(self, growing: Any) -> None:
        far = Endless()
        loop = asyncio.get_running_loop()
        async with serve(far) as bank, connect(url(bank)) as to_bank:

            async def agent(message: SecureMessage) -> bytes:
                async with asyncio.TaskGroup() as tasks:
                    for timeout in (30, None):
                        tasks.create_task(to_bank.send(message.replace(id=""), timeout=timeout))
                return b"never"

            async with serve(agent) as server, connect(url(server)) as client:
                for seconds in growing(0.15):
                    far.deadlines.clear()
                    with pytest.raises(ReadTimeoutError):
                        await client.send(message(), timeout=seconds)
                    await to_bank.ping()  # what was sent before has been read
                    if len(far.deadlines) == 2:
                        break
                await far.cancelled.wait()
                # what is left of it was added to the time at which the request was read
                assert all(one is not None and one <= loop.time() + seconds for one in far.deadlines)

    async def test_what_is_sent_after_it_is_refused_here(self, growing: Any) -> None:
        outcomes: asyncio.Queue[BaseException] = asyncio.Queue()
        begun = asyncio.Event()
        async with serve(echo) as bank, connect(url(bank)) as to_bank:

            async def agent(message: SecureMessage) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    try:
                        await to_bank.send(message)
                    except QueueTimeoutError as error:
                        outcomes.put_nowait(error)
                    raise

            async with serve(agent) as server, connect(url(server)) as client:
                for seconds in growing(0.05):
                    with pytest.raises(ReadTimeoutError):
                        await client.send(message(), timeout=seconds)
                    await client.ping()  # what was sent before has been read
                    if begun.is_set():
                        break
                assert "its time was over" in str(await outcomes.get())
            assert to_bank.stats()["pending"] == 0

    async def test_that_of_the_call_that_starts_a_server_is_not_its_own(self, growing: Any) -> None:
        async with serve(echo) as bank, connect(url(bank)) as to_bank, AsyncExitStack() as servers:
            started: asyncio.Queue[Server] = asyncio.Queue()

            async def passing_on(message: SecureMessage) -> bytes:
                return (await to_bank.send(message)).data

            async def starting(message: SecureMessage) -> None:
                started.put_nowait(await servers.enter_async_context(serve(passing_on)))
                await asyncio.Event().wait()

            async with serve(starting) as server, connect(url(server)) as client:
                for seconds in growing(0.1):
                    with pytest.raises(ReadTimeoutError):
                        await client.send(message(), timeout=seconds)
                    await client.ping()  # what was sent before has been read
                    if not started.empty():
                        break
            async with connect(url(started.get_nowait())) as client:
                assert (await client.send(message(b"later"))).data == b"later"

    async def test_one_that_passes_in_the_queue_is_never_run(self, encoding: Any, eventually: Any) -> None:
        go_on = asyncio.Event()
        ran: list[bytes] = []

        async def handler(message: SecureMessage) -> None:
            ran.append(message.payload)
            await go_on.wait()

        async with serve(handler, max_concurrency=1, encoding=encoding) as server:
            async with connect(url(server)) as client:
                first = asyncio.create_task(client.send(message(b"first")))
                await eventually(lambda: ran)
                with pytest.raises(ReadTimeoutError):
                    await client.send(message(b"second"), timeout=0.05)
                await eventually(
                    lambda: (
                        server.stats()["pending"] == 1
                        or server.stats()["stopped"] + server.stats()["expired"]
                    )
                )
                go_on.set()
                await first
                assert (await client.send(message(b"third"))).success
        assert ran == [b"first", b"third"]


class TestCancellation:
    async def test_cancelling_a_call_cancels_its_handler(self, encoding: Any, eventually: Any) -> None:
        endless = Endless()
        async with serve(endless, encoding=encoding) as server, connect(url(server)) as client:
            call = asyncio.create_task(client.send(message()))
            await endless.started.wait()
            call.cancel()
            await endless.cancelled.wait()
            await eventually(lambda: server.stats()["pending"] == 0)
            assert (server.stats()["stopped"], client.stats()["cancelled"], client.stats()["late"]) == (
                1,
                1,
                0,
            )

    async def test_and_what_that_handler_asked_for_in_turn(self) -> None:
        far = Endless()
        async with serve(far) as bank, connect(url(bank)) as to_bank:

            async def agent(message: SecureMessage) -> bytes:
                return (await to_bank.send(message)).data

            async with serve(agent) as server, connect(url(server)) as client:
                call = asyncio.create_task(client.send(message()))
                await far.started.wait()
                call.cancel()
                await far.cancelled.wait()

    async def test_one_that_has_not_taken_its_first_step(self, encoding: Any, eventually: Any) -> None:
        """Message and cancel in one read: the handler begins, and is cancelled where it first waits."""
        endless = Endless()
        async with serve(endless, encoding=encoding) as server, connect(url(server)) as client:
            calls = [asyncio.create_task(client.send(message())) for _ in range(3)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert (await client.ping()) > 0
            await eventually(lambda: server.stats()["pending"] == 0)
            assert client.stats()["pending"] == 0

    async def test_one_that_waits_undispatched(self, eventually: Any) -> None:
        endless = Endless()
        async with serve(endless, max_concurrency=1) as server, connect(url(server)) as client:
            first = asyncio.create_task(client.send(message()))
            await endless.started.wait()
            second = asyncio.create_task(client.send(message()))
            await eventually(lambda: server.stats()["pending"] == 2)
            second.cancel()
            await eventually(lambda: server.stats()["pending"] == 1)
            first.cancel()
            await eventually(lambda: server.stats()["pending"] == 0)
            assert server.stats()["stopped"] == 2
            assert len(endless.deadlines) == 1

    async def test_a_handler_that_ignores_it_keeps_its_place_and_its_answer_is_dropped(
        self, eventually: Any
    ) -> None:
        go_on, started = asyncio.Event(), asyncio.Event()

        async def stubborn(message: SecureMessage) -> bytes:
            started.set()
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue
            return b"done"

        async with serve(stubborn) as server, connect(url(server)) as client:
            call = asyncio.create_task(client.send(message(id="1")))
            await started.wait()
            call.cancel()
            await eventually(lambda: server.stats()["stopped"] == 1)
            assert server.stats()["pending"] == 1
            again = asyncio.create_task(client.send(message(id="1")))  # the id is free again
            go_on.set()
            assert (await again).data == b"done"
            await eventually(lambda: server.stats()["pending"] == 0)
            assert client.stats()["late"] == 0

    async def test_a_peer_that_cancels_what_it_never_sent_harms_nobody(self, encoding: Any) -> None:
        async with serve(echo, encoding=encoding) as server, connect(url(server)) as client:
            assert client._link is not None
            for _ in range(1000):
                client._link.connection.send_cancel("nothing")
            client._link.flush()
            assert (await client.send(message(b"on"))).data == b"on"
            assert server.stats()["stopped"] == 0


class TestGoingAway:
    async def test_a_client_at_rest_leaves_at_once_and_the_drain_ends(self) -> None:
        async with serve(echo) as server:
            client = await connect(url(server), backoff=lambda attempt: 0.01)
            async with asyncio.timeout(20):
                await server.drain()
            assert client.stats()["lost"] == 0
            await client.close()

    async def test_one_without_reconnect_ends(self) -> None:
        slow = Held()
        async with serve(slow) as server:
            client = await connect(url(server), reconnect=False)
            call = asyncio.create_task(client.send(message()))
            await slow.started.wait()
            draining = asyncio.create_task(server.drain())
            async with asyncio.timeout(20):
                while client.is_connected:  # noqa: ASYNC110 - it is told by a frame
                    await asyncio.sleep(0.001)
                with pytest.raises(ClosedError, match="the client is closed"):
                    await client.send(message())
                slow.go_on.set()
                assert (await call).data == b"done"
                await client.wait_closed()
                await draining
            await client.close()

    async def test_a_busy_one_moves_and_no_call_fails(self) -> None:
        """Two servers take turns on one port, and each drains under load."""
        import socket

        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        async def start() -> Server:
            own = socket.socket()
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            own.bind(("127.0.0.1", port))
            server = Server(brief)
            await server.start(sock=own)
            return server

        one = await start()
        async with connect(f"ws://127.0.0.1:{port}/", backoff=lambda attempt: 0.01) as client:
            async with Load(client) as load:
                for _ in range(2):
                    await load.more(50)
                    other = await start()
                    async with asyncio.timeout(20):
                        await one.drain()
                    one = other
            assert (client.stats()["failed"], client.stats()["lost"]) == (0, 0)
            assert client.stats()["reconnects"] == 2
        await one.close()
        held.close()

    async def test_while_no_other_is_to_be_had_calls_go_on_by_the_old_one(self) -> None:
        slow = Held()
        async with serve(slow) as server:
            client = await connect(url(server), backoff=lambda attempt: 0.01 if attempt == 0 else 60.0)
            call = asyncio.create_task(client.send(message()))
            await slow.started.wait()
            draining = asyncio.create_task(server.drain())
            async with asyncio.timeout(20):
                while client.stats()["dials"] < 2:  # noqa: ASYNC110 - it is refused with 503
                    await asyncio.sleep(0.001)
                late = asyncio.create_task(client.send(message(b"late")))  # by the old connection
                while server.stats()["received"] < 2:  # noqa: ASYNC110 - read by the draining server
                    await asyncio.sleep(0.001)
            slow.go_on.set()
            assert [one.data for one in await asyncio.gather(call, late)] == [b"done"] * 2
            await client.close()
            await asyncio.wait_for(draining, 20)

    async def test_a_server_that_is_alone_ends_under_load_and_calls_wait_for_the_next(self) -> None:
        server = Server(brief)
        await server.start()
        port = server.port
        async with connect(url(server), backoff=lambda attempt: 0.02) as client:
            async with Load(client) as load:
                await load.more(50)
                async with asyncio.timeout(20):  # of the 30 s that a drain may take
                    await server.drain()
                async with serve(brief, port=port):
                    await load.more(50)
                    load.over = True
                    await client.drain()
            assert (client.stats()["failed"], client.stats()["lost"]) == (0, 0)
