"""The native core's `Poller` by itself: socket pairs, a link and a transport that keep what they are told.

Which socket is ready, and in what order, is the test's to say here. What comes of it over real connections is
in tests/integration/test_direct_link.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from sage_ws._core import Connection, Poller, Response, SecureMessage, Socket as CoreSocket, has_poller

pytestmark = pytest.mark.skipif(not has_poller, reason="this core has no poller")

LIMIT = 16 * 1024 * 1024
MEGABYTE = 1 << 20


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


def answers_to(requests: Connection, data: bytes) -> bytes:
    """What a server that echoes says to these bytes."""
    for request in requests.receive_data(data):
        requests.send_response(request, Response(data=request.payload))
    return requests.data_to_send()


class End:
    """One direct socket with its link and transport in one, and the peer of its socket pair."""

    def __init__(self, poller: Poller, role: Any, pair: tuple[socket.socket, socket.socket] | None) -> None:
        ours, self.peer = pair or socket.socketpair()
        self.peer.setblocking(False)
        self.connection = Connection(role, max_message_size=LIMIT)
        other = "client" if role == "server" else "server"
        self.peer_connection = Connection(cast("Any", other), max_message_size=LIMIT)
        self.taken: list[bytes] = []
        self.told: list[Any] = []
        self.on_values: Callable[[], None] = lambda: None
        self.on_pause: Callable[[], None] = lambda: None
        self.socket: CoreSocket = poller.add(ours.fileno(), self.connection, self)
        ours.close()
        self.socket.limit(1000, float("inf"))
        self.socket.start(self)

    def request(self, payload: bytes) -> None:
        """The peer asks."""
        self.peer_connection.send_message(message(payload), object(), float("inf"))
        self.peer.send(self.peer_connection.data_to_send())

    def answer(self, connection: Connection | None = None) -> None:
        """The peer echoes what has come."""
        self.peer.send(answers_to(connection or self.peer_connection, self.peer.recv(MEGABYTE)))

    # the link's
    def values_received(self, values: list[Any] | None) -> None:
        self.taken += [value.payload for value in values or () if isinstance(value, SecureMessage)]
        self.on_values()

    def pause_writing(self) -> None:
        self.told.append("pause")
        self.connection.set_blocked(True)
        self.on_pause()

    # the transport's
    def drained(self) -> None:
        self.told.append("drained")
        self.connection.set_blocked(False)

    def ended(self, error: Exception | None) -> None:
        self.told.append(error)
        self.socket.close()


class Bench:
    """A poller of the running loop, which calls it only when the test says so."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self.loop)
        self.ends: list[End] = []

    def end(self, role: Any = "server", pair: tuple[socket.socket, socket.socket] | None = None) -> End:
        end = End(self.poller, role, pair)
        self.ends.append(end)
        return end

    async def poll(self) -> BaseException | None:
        """Call it as the loop does, from a callback; what it raised."""
        done: asyncio.Future[BaseException | None] = self.loop.create_future()

        def call() -> None:
            try:
                self.poller.poll()
            except BaseException as error:
                done.set_result(error)
            else:
                done.set_result(None)

        self.loop.call_soon(call)
        return await done

    @property
    def is_ready(self) -> bool:
        """Whether the loop would call it."""
        return bool(select.select([self.poller.fileno()], [], [], 0)[0])

    def close(self) -> None:
        for end in self.ends:
            end.socket.close()
            end.peer.close()


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    bench.close()
    assert len(bench.poller) == 0


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ValueError("a fault of ours")


class TestBatches:
    async def test_all_that_are_ready_are_served_in_one_call(self, bench: Bench) -> None:
        ends = [bench.end() for _ in range(200)]  # more than the kernel is asked for at once
        for number, end in enumerate(ends):
            end.request(b"%d" % number)
        assert await bench.poll() is None
        assert [end.taken for end in ends] == [[b"%d" % number] for number in range(200)]
        assert not bench.is_ready

    async def test_a_descriptor_used_again_in_a_batch_has_no_events_of_the_one_before(
        self, bench: Bench
    ) -> None:
        first, closed = bench.end(), bench.end()
        number = closed.socket.fileno()
        pair = socket.socketpair()
        lower = []
        while not lower or lower[-1] < number:  # the number shall be the lowest that is free
            lower.append(os.dup(number))
        newcomers: list[End] = []

        def replace() -> None:
            closed.socket.close()
            newcomers.append(bench.end(pair=pair))
            assert newcomers[0].socket.fileno() == number
            newcomers[0].request(b"for the newcomer")

        first.on_values = replace
        first.request(b"one")
        closed.request(b"for nobody")
        closed.peer.shutdown(socket.SHUT_RDWR)
        assert await bench.poll() is None
        (newcomer,) = newcomers
        assert newcomer.told == closed.told == []
        assert closed.taken == []
        assert await bench.poll() is None
        assert newcomer.taken == [b"for the newcomer"]
        for one in lower:
            os.close(one)

    async def test_one_that_a_batch_closed_is_told_nothing_more(self, bench: Bench) -> None:
        first, second = bench.end(), bench.end()
        first.on_values = second.socket.close
        second.on_values = first.socket.close
        first.request(b"one")
        second.request(b"two")
        assert await bench.poll() is None
        assert (first.taken, second.taken) == ([b"one"], [])
        assert first.told == second.told == []

    async def test_an_error_ends_the_connection_that_it_belongs_to(
        self, bench: Bench, loop_exceptions: list[dict[str, Any]]
    ) -> None:
        ends = [bench.end() for _ in range(3)]
        ends[1].on_values = fail
        for end in ends:
            end.request(b"x")
        assert await bench.poll() is None
        assert [end.taken for end in ends] == [[b"x"]] * 3
        assert [len(end.told) for end in ends] == [0, 1, 0]
        assert len(bench.poller) == 2
        (context,) = loop_exceptions
        assert context["exception"] is ends[1].told[0]
        loop_exceptions.clear()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    async def test_what_ends_the_process_goes_through_and_the_rest_is_served_later(
        self, bench: Bench, error: type[BaseException]
    ) -> None:
        ends = [bench.end() for _ in range(3)]

        def raising() -> None:
            raise error

        ends[1].on_values = raising
        for end in ends:
            end.request(b"x")
        assert type(await bench.poll()) is error
        assert bench.is_ready
        ends[1].on_values = lambda: None
        assert await bench.poll() is None
        assert [end.taken for end in ends] == [[b"x"]] * 3
        assert [end.told for end in ends] == [[], [], []]

    async def test_a_call_inside_a_call_does_nothing(self, bench: Bench) -> None:
        first, second = bench.end(), bench.end()
        first.on_values = bench.poller.poll
        first.request(b"one")
        second.request(b"two")
        assert await bench.poll() is None
        assert (first.taken, second.taken) == ([b"one"], [b"two"])


class TestWhatIsPutOff:
    async def test_an_interrupted_callback_does_not_cost_the_others_theirs(self, bench: Bench) -> None:
        called: list[int] = []
        end = bench.end()

        def put_off() -> None:
            bench.poller.call_later(lambda: called.append(1))
            bench.poller.call_later(interrupt)
            bench.poller.call_later(lambda: called.append(2))

        end.on_values = put_off
        end.request(b"x")
        assert isinstance(await bench.poll(), KeyboardInterrupt)
        await asyncio.sleep(0)
        assert called == [1, 2]

    async def test_a_failing_callback_is_reported_and_the_others_are_called(
        self, bench: Bench, loop_exceptions: list[dict[str, Any]]
    ) -> None:
        called: list[int] = []
        end = bench.end()

        def put_off() -> None:
            bench.poller.call_later(fail)
            bench.poller.call_later(lambda: called.append(2))

        end.on_values = put_off
        end.request(b"x")
        assert await bench.poll() is None
        assert called == [2]
        assert str(loop_exceptions.pop()["exception"]) == "a fault of ours"

    async def test_an_interrupted_flush_does_not_cost_the_others_theirs(self, bench: Bench) -> None:
        full, other, trigger = bench.end(), bench.end(), bench.end()
        full.on_pause = interrupt

        def put_off() -> None:
            for end, size in ((full, 4 * MEGABYTE), (other, 1)):
                end.connection.send_response(message(), Response(data=bytes(size)))
                end.socket.flush_soon()

        trigger.on_values = put_off
        trigger.request(b"x")
        assert isinstance(await bench.poll(), KeyboardInterrupt)
        await asyncio.sleep(0)
        assert other.peer.recv(MEGABYTE)

    async def test_a_connection_cut_while_its_flush_is_due_is_left_alone(self, bench: Bench) -> None:
        end, trigger = bench.end(), bench.end()

        def put_off_and_cut() -> None:
            end.connection.send_ping(b"")
            end.socket.flush_soon()
            end.socket.close()

        trigger.on_values = put_off_and_cut
        trigger.request(b"x")
        assert await bench.poll() is None
        assert end.peer.recv(100) == b""
        assert end.told == []


class TestReadiness:
    @pytest.mark.parametrize("how", ["end", "reset"])
    async def test_a_hang_up_while_reading_is_paused_wakes_nobody(self, bench: Bench, how: str) -> None:
        end = bench.end()
        end.socket.set_reading(False)
        end.request(b"unread" if how == "reset" else b"x")
        end.peer.close()
        assert not bench.is_ready
        assert await bench.poll() is None
        assert (end.taken, end.told) == ([], [])
        end.socket.set_reading(True)
        assert bench.is_ready
        await bench.poll()
        await bench.poll()
        assert end.taken
        assert end.told == [None]

    async def test_a_hang_up_under_unsent_bytes_ends_it_once(self, bench: Bench) -> None:
        end = bench.end()
        end.connection.send_response(message(), Response(data=bytes(4 * MEGABYTE)))
        end.socket.flush()
        assert end.told == ["pause"]
        end.socket.set_reading(False)
        assert not bench.is_ready
        end.peer.close()
        assert bench.is_ready
        await bench.poll()
        assert end.told[0] == "pause"
        assert isinstance(end.told[1], (BrokenPipeError, ConnectionResetError))
        assert len(end.told) == 2
        assert not bench.is_ready

    async def test_a_stall_is_told_once_and_everything_arrives_in_order(self, bench: Bench) -> None:
        end = bench.end()
        sent = [bytes([number]) * MEGABYTE for number in range(10)]
        requests = []
        for number in range(10):
            one = message(id=f"m-{number}")
            waiter = object()
            end.peer_connection.send_message(one, waiter, float("inf"))
            requests.append(one)
        end.peer_connection.data_to_send()
        for one, data in zip(requests, sent, strict=True):
            end.connection.send_response(one, Response(data=data))
            end.socket.flush()
        assert end.told == ["pause"]
        received: list[Any] = []
        while end.connection.buffered:
            received += end.peer_connection.receive_data(end.peer.recv(4096))
            await bench.poll()
        while len(received) < 10:
            received += end.peer_connection.receive_data(end.peer.recv(4096))
        assert [answer.data for _, answer in received] == sent
        assert end.told == ["pause", "drained"]

    async def test_reading_goes_on_while_writing_is_stuck(self, bench: Bench) -> None:
        end = bench.end()
        end.connection.send_response(message(), Response(data=bytes(4 * MEGABYTE)))
        end.socket.flush()
        end.request(b"still heard")
        await bench.poll()
        assert end.taken == [b"still heard"]


class TestCallers:
    """Those who wait for an answer are stepped in the batch that brought it."""

    @staticmethod
    def ask(end: End, *payloads: bytes) -> list[asyncio.Future[Response]]:
        return [end.socket.send(message(payload), float("inf")) for payload in payloads]

    async def test_one_that_is_interrupted_leaves_the_others_their_answers(self, bench: Bench) -> None:
        end = bench.end("client")
        got: list[bytes] = []

        async def caller(future: asyncio.Future[Response], *, interrupted: bool) -> None:
            got.append((await future).data)
            if interrupted:
                raise KeyboardInterrupt

        futures = self.ask(end, b"0", b"1", b"2")
        end.socket.flush()
        tasks = [asyncio.create_task(caller(one, interrupted=not at)) for at, one in enumerate(futures)]
        await asyncio.sleep(0)
        end.answer()
        assert isinstance(await bench.poll(), KeyboardInterrupt)
        await asyncio.wait(tasks)
        assert got == [b"0", b"1", b"2"]
        assert isinstance(tasks[0].exception(), KeyboardInterrupt)

    async def test_one_that_another_cancels_in_the_same_batch_is_cancelled(self, bench: Bench) -> None:
        end = bench.end("client")
        futures = self.ask(end, b"0", b"1")
        end.socket.flush()

        async def first() -> None:
            await futures[0]
            second_task.cancel()

        async def second() -> None:
            await futures[1]

        first_task = asyncio.create_task(first())
        second_task = asyncio.create_task(second())
        await asyncio.sleep(0)
        end.answer()
        assert await bench.poll() is None
        await asyncio.wait([first_task, second_task])
        assert second_task.cancelled()
        assert first_task.exception() is None

    async def test_one_cancelled_between_the_answer_and_its_step_is_cancelled(self, bench: Bench) -> None:
        end = bench.end("client")
        (future,) = self.ask(end, b"0")

        async def caller() -> None:
            await future

        task = asyncio.create_task(caller())
        await asyncio.sleep(0)
        end.answer()
        task.cancel()
        assert await bench.poll() is None
        await asyncio.wait([task])
        assert task.cancelled()
        assert end.connection.counters()["late"] in {0, 1}

    async def test_from_within_a_task_they_are_stepped_by_the_loop(self, bench: Bench) -> None:
        end = bench.end("client")
        (future,) = self.ask(end, b"0")
        stepped = asyncio.Event()

        async def caller() -> None:
            await future
            stepped.set()

        task = asyncio.create_task(caller())
        await asyncio.sleep(0)
        end.answer()
        bench.poller.poll()
        assert future.done()
        assert not stepped.is_set()
        await task


class TestDescriptors:
    async def test_what_is_no_descriptor_is_refused(self, bench: Bench) -> None:
        connection = Connection("server", max_message_size=LIMIT)
        for number in (-1, 1_000_000):
            with pytest.raises(OSError, match="Bad file descriptor"):
                bench.poller.add(number, connection, object())
        assert len(bench.poller) == 0

    async def test_a_closed_one_has_no_number_and_closes_once(self, bench: Bench) -> None:
        end = bench.end()
        assert len(bench.poller) == 1
        end.socket.close()
        end.socket.close()
        end.socket.flush()
        end.socket.set_reading(True)
        end.socket.shut_writing()
        assert (end.socket.fileno(), end.socket.closed, len(bench.poller)) == (-1, True, 0)

    async def test_forgotten_ones_are_collected_with_their_descriptors(self) -> None:
        bench = Bench()
        end = bench.end()
        number, peer = end.socket.fileno(), end.peer
        gone = weakref.ref(end)
        bench.ends.clear()
        del end, bench
        gc.collect()
        assert gone() is None
        assert peer.recv(1) == b""
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        peer.close()
