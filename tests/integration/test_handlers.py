"""A handler runs as in a Task of its own, though no message costs one: shapes, contexts, cancellation.

Over 500 lines: what holds in a Task is a long list, and each of its points is one case here.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from sage_ws import Connection, HandlerError, Response, SecureMessage, connect, serve
from sage_ws.aio.serving import ServerLink
from sage_ws.aio.workers import IDLE_WORKERS

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def ask(handler: Any, *payloads: bytes, **options: Any) -> list[Response]:
    """The answers of a server with this handler to these messages, sent all at once."""
    async with serve(handler, **options) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        return await asyncio.gather(*(client.send(message(payload)) for payload in payloads or (b"x",)))


def worker_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() == "sage_ws worker"}


class TestShapes:
    @staticmethod
    def shapes() -> dict[str, Any]:
        async def coroutine(one: Any) -> bytes:
            return one.payload  # type: ignore[no-any-return]

        async def suspending(one: Any) -> bytes:
            await asyncio.sleep(0)
            return one.payload  # type: ignore[no-any-return]

        async def with_call(one: Any, call: Any) -> bytes:
            assert isinstance(call.connection, Connection)
            return one.payload  # type: ignore[no-any-return]

        async def response(one: Any) -> Response:
            return Response(data=one.payload)

        async def generator(one: Any) -> AsyncIterator[bytes]:
            for byte in one.payload:
                await asyncio.sleep(0)
                yield bytes([byte])

        async def prompt_generator(one: Any) -> AsyncIterator[bytes]:
            yield one.payload

        async def generator_with_call(one: Any, call: Any) -> AsyncIterator[bytes]:
            assert call.identity is None
            yield one.payload

        def future(one: Any) -> Any:
            made = asyncio.get_running_loop().create_future()
            made.get_loop().call_soon(made.set_result, one.payload)
            return made

        class Instance:
            async def __call__(self, one: Any) -> bytes:
                return one.payload  # type: ignore[no-any-return]

            async def method(self, one: Any, call: Any) -> bytes:
                return one.payload  # type: ignore[no-any-return]

        class Awaitable:
            def __init__(self, one: Any) -> None:
                self.one = one

            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return self.one.payload

        return {
            "coroutine": coroutine,
            "suspending": suspending,
            "with-call": with_call,
            "response": response,
            "plain": lambda one: one.payload,
            "plain-with-call": lambda one, call: one.payload,
            "generator": generator,
            "prompt-generator": prompt_generator,
            "generator-with-call": generator_with_call,
            "future": future,
            "instance": Instance(),
            "method": Instance().method,
            "partial": functools.partial(lambda extra, one: one.payload, 1),
            "returns-a-coroutine": lambda one: coroutine(one),
            "awaitable": Awaitable,
            "task": lambda one: asyncio.get_running_loop().create_task(suspending(one)),
        }

    @pytest.mark.parametrize(
        "name",
        [
            "coroutine",
            "suspending",
            "with-call",
            "response",
            "plain",
            "plain-with-call",
            "generator",
            "prompt-generator",
            "generator-with-call",
            "future",
            "instance",
            "method",
            "partial",
            "returns-a-coroutine",
            "awaitable",
            "task",
        ],
    )
    async def test_every_shape_answers(self, name: str) -> None:
        answers = await ask(self.shapes()[name], b"one", b"two", b"three")
        assert [answer.data for answer in answers] == [b"one", b"two", b"three"]
        assert all(answer.success and answer.message_id for answer in answers)

    async def test_none_is_a_success_without_data(self) -> None:
        (answer,) = await ask(lambda one: None)
        assert (answer.success, answer.data, answer.error) == (True, b"", "")

    async def test_ids_are_filled_in_where_a_handler_leaves_them_empty(self) -> None:
        async def handler(one: SecureMessage) -> Response:
            return Response(task_id="t-own") if one.payload == b"own" else Response()

        async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
            answer = await client.send(message(id="m-1", task_id="t-1"))
            assert (answer.message_id, answer.task_id) == ("m-1", "t-1")
            answer = await client.send(message(b"own", id="m-2", task_id="t-1"))
            assert (answer.message_id, answer.task_id) == ("m-2", "t-own")

    @pytest.mark.parametrize("reply", ["text", 5, bytearray(b"x"), object()])
    async def test_a_wrong_reply_answers_internal_error(
        self, reply: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(one: SecureMessage) -> Any:
            return reply

        for shape in (handler, lambda one: reply):
            (answer,) = await ask(shape)
            assert (answer.success, answer.error) == (False, "internal error")
            assert f"must return a Response, bytes or None, not {type(reply).__name__}" in caplog.text

    async def test_a_part_that_is_not_bytes_answers_internal_error(self) -> None:
        async def handler(one: SecureMessage) -> AsyncIterator[Any]:
            yield b"fine"
            yield "text"

        (answer,) = await ask(handler)
        assert answer.error == "internal error"

    async def test_a_wrong_shape_is_refused_at_construction(self) -> None:
        with pytest.raises(TypeError, match="must take"):
            serve(lambda: None)  # type: ignore[arg-type, misc]


class TestErrors:
    @pytest.mark.parametrize("suspends", [False, True])
    async def test_a_handler_error_answers_its_text(self, suspends: bool) -> None:
        async def handler(one: SecureMessage) -> None:
            if suspends:
                await asyncio.sleep(0)
            raise HandlerError("no such agent: 에이전트")

        (answer,) = await ask(handler)
        assert (answer.success, answer.error) == (False, "no such agent: 에이전트")

    async def test_an_empty_text_is_a_failure_all_the_same(self) -> None:
        def handler(one: SecureMessage) -> None:
            raise HandlerError

        (answer,) = await ask(handler)
        assert (answer.success, answer.error) == (False, "")

    @pytest.mark.parametrize("suspends", [False, True])
    async def test_a_text_that_no_message_can_carry_is_answered_and_holds_no_place(
        self, suspends: bool
    ) -> None:
        async def handler(one: SecureMessage) -> None:
            if suspends:
                await asyncio.sleep(0)
            raise HandlerError("a file named \udcff")

        answers = await ask(handler, b"one", b"two", b"three", max_concurrency=1, read_timeout=10)
        assert [answer.error for answer in answers] == ["internal error"] * 3

    @pytest.mark.parametrize("suspends", [False, True])
    async def test_any_other_exception_says_nothing_and_is_logged_with_its_traceback(
        self, caplog: pytest.LogCaptureFixture, suspends: bool
    ) -> None:
        async def handler(one: SecureMessage) -> None:
            if suspends:
                await asyncio.sleep(0)
            raise KeyError("the password is hunter2")

        answers = await ask(handler, b"one", b"two")
        assert [answer.error for answer in answers] == ["internal error"] * 2
        records = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(records) == 2
        assert all(one.exc_info is not None and one.exc_info[0] is KeyError for one in records)

    @pytest.mark.parametrize(
        "error", [StopIteration, StopAsyncIteration, asyncio.CancelledError, TimeoutError]
    )
    async def test_no_exception_of_pythons_own_machinery_confuses_it(
        self, error: type[BaseException]
    ) -> None:
        async def handler(one: SecureMessage) -> None:
            await asyncio.sleep(0)
            raise error

        def plain(one: SecureMessage) -> None:
            raise error

        for shape in (handler, plain):
            answers = await ask(shape, b"one", b"two")
            assert [(answer.success, answer.error) for answer in answers] == [(False, "internal error")] * 2

    async def test_a_cancelled_task_of_its_own_is_an_internal_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(one: Any) -> None:
            waited = asyncio.ensure_future(asyncio.sleep(60))
            waited.cancel()
            await waited

        (answer,) = await ask(handler)
        assert (answer.success, answer.error) == (False, "internal error")
        (record,) = [one for one in caplog.records if one.name == "sage_ws.handler"]
        assert record.exc_info is not None

    @pytest.mark.parametrize("suspends", [False, True])
    async def test_an_error_beside_exception_is_an_internal_error(
        self, suspends: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Panic(BaseException):
            """What extension modules raise where their own code failed."""

        async def handler(one: Any) -> bytes:
            if suspends:
                await asyncio.sleep(0)
            if one.payload == b"panic":
                raise Panic
            return b"fine"

        answers = await asyncio.wait_for(ask(handler, b"panic", b"x"), 20)
        assert [one.error for one in answers] == ["internal error", ""]
        assert "handler failed" in caplog.text

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("suspends", [False, True])
    def test_what_ends_the_process_ends_it(self, error: type[BaseException], suspends: bool) -> None:
        seen: list[str] = []
        reported: list[Any] = []

        async def handler(one: SecureMessage) -> None:
            if suspends:
                await asyncio.sleep(0)
            seen.append("handler")
            raise error

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            async with serve(handler, close_timeout=0.1) as server:
                async with connect(f"ws://127.0.0.1:{server.port}", close_timeout=0.1) as client:
                    await client.send(message())

        with pytest.raises(error):
            asyncio.run(main())
        gc.collect()
        assert seen == ["handler"]
        assert reported == []


class TestAsInATask:
    async def test_current_task_is_one_and_stays_the_same(self) -> None:
        seen: list[Any] = []

        async def handler(one: SecureMessage) -> None:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

        await ask(handler)
        assert isinstance(seen[0], asyncio.Task)
        assert seen[0] is seen[1]

    async def test_asyncio_timeout_ends_a_wait(self) -> None:
        async def handler(one: SecureMessage) -> bytes:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                task = asyncio.current_task()
                assert task is not None
                return b"timed out, cancelling %d" % task.cancelling()
            return b"no"

        answers = await ask(handler, b"one", b"two")
        assert [answer.data for answer in answers] == [b"timed out, cancelling 0"] * 2

    async def test_a_task_group_waits_and_fails_as_it_should(self) -> None:
        async def child(number: int) -> int:
            await asyncio.sleep(0)
            if number < 0:
                raise LookupError("negative")
            return number

        async def handler(one: SecureMessage) -> bytes:
            try:
                async with asyncio.TaskGroup() as group:
                    children = [group.create_task(child(int(part))) for part in one.payload.split()]
            except ExceptionGroup as errors:
                return repr(errors.exceptions[0]).encode()
            return b"%d" % sum(each.result() for each in children)

        answers = await ask(handler, b"1 2 3", b"1 -1")
        assert [answer.data for answer in answers] == [b"6", b"LookupError('negative')"]

    async def test_locks_events_and_threads_work(self) -> None:
        lock, inside = asyncio.Lock(), 0

        async def handler(one: SecureMessage) -> bytes:
            nonlocal inside
            async with lock:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                doubled = await asyncio.to_thread(lambda: one.payload * 2)
                inside -= 1
            return doubled

        answers = await ask(handler, *(b"%d" % number for number in range(20)))
        assert [answer.data for answer in answers] == [b"%d" % number * 2 for number in range(20)]

    async def test_a_send_to_another_server_works(self) -> None:
        async with serve(lambda one: one.payload.upper()) as inner:

            async def handler(one: SecureMessage) -> bytes:
                return (await client.send(message(one.payload))).raise_for_error().data

            async with connect(f"ws://127.0.0.1:{inner.port}") as client:
                answers = await ask(handler, *(b"agent %d" % number for number in range(10)))
        assert [answer.data for answer in answers] == [b"AGENT %d" % number for number in range(10)]


class TestContexts:
    @pytest.mark.parametrize("suspends", [False, True])
    async def test_no_variable_leaks_from_message_to_message(self, suspends: bool) -> None:
        async def handler(one: SecureMessage) -> bytes:
            found = variable.get()
            variable.set(one.payload.decode())
            if suspends:
                await asyncio.sleep(0)
                assert variable.get() == one.payload.decode()
            return found.encode()

        answers = await ask(handler, *(b"%d" % number for number in range(30)))
        assert {answer.data for answer in answers} == {b"unset"}

    async def test_a_plain_handler_has_a_context_of_its_own_too(self) -> None:
        def handler(one: SecureMessage) -> bytes:
            found = variable.get()
            variable.set("leaked")
            return found.encode()

        answers = await ask(handler, b"one", b"two")
        assert [answer.data for answer in answers] == [b"unset"] * 2

    async def test_a_generator_keeps_its_context(self) -> None:
        async def handler(one: SecureMessage) -> AsyncIterator[bytes]:
            variable.set(one.payload.decode())
            await asyncio.sleep(0)
            yield variable.get().encode()
            await asyncio.sleep(0)
            yield variable.get().encode()

        answers = await ask(handler, b"a", b"b")
        assert [answer.data for answer in answers] == [b"aa", b"bb"]

    async def test_what_stood_when_the_server_started_is_seen(self) -> None:
        token = variable.set("from outside")
        try:
            async with serve(lambda one: variable.get().encode()) as server:
                variable.set("later")
                async with connect(f"ws://127.0.0.1:{server.port}") as client:
                    assert (await client.send(message())).data == b"from outside"
        finally:
            variable.reset(token)

    async def test_a_handlers_own_tasks_inherit_its_context(self) -> None:
        async def child() -> bytes:
            return variable.get().encode()

        async def handler(one: SecureMessage) -> bytes:
            variable.set(one.payload.decode())
            return await asyncio.get_running_loop().create_task(child())

        answers = await ask(handler, b"a", b"b")
        assert [answer.data for answer in answers] == [b"a", b"b"]


class TestCancellation:
    async def test_a_handler_sees_a_cancellation_and_may_answer(self) -> None:
        started: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()

        async def handler(one: SecureMessage) -> bytes:
            if one.payload == b"second":
                task = asyncio.current_task()
                assert task is not None
                return b"cancelling %d" % task.cancelling()
            started.set_result(asyncio.current_task())  # type: ignore[arg-type]
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                return b"was cancelled"
            return b"no"

        async with serve(handler) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
            sending = asyncio.create_task(client.send(message(b"first")))
            task = await started
            task.cancel()
            assert (await sending).data == b"was cancelled"
            # its count of cancellations stays with the Task, so the Task must not serve again
            assert (await client.send(message(b"second"))).data == b"cancelling 0"
            await asyncio.wait([task], timeout=20)
            assert task.done()
            assert not task.cancelled()

    async def test_one_that_lets_it_pass_answers_a_failure(self) -> None:
        async def handler(one: SecureMessage) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        answers = await ask(handler, b"one", b"two", b"three")
        assert [(answer.success, answer.error) for answer in answers] == [(False, "internal error")] * 3

    async def test_one_that_cancels_itself_and_returns_harms_nobody(self) -> None:
        def handler(one: SecureMessage) -> bytes:
            task = asyncio.current_task()
            assert task is not None
            if one.payload == b"self":
                task.cancel()
            return b"%d" % task.cancelling()

        answers = await ask(handler, b"one", b"self", b"two", b"three")
        assert [answer.data for answer in answers] == [b"0", b"1", b"0", b"0"]

    async def test_what_a_handler_cancels_of_its_own_is_its_own(self) -> None:
        async def handler(one: SecureMessage) -> bytes:
            child = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            await asyncio.sleep(0)
            child.cancel()
            try:
                await child
            except asyncio.CancelledError:
                return b"child cancelled"
            return b"no"

        answers = await ask(handler, b"one", b"two")
        assert [answer.data for answer in answers] == [b"child cancelled"] * 2

    async def test_close_cancels_what_still_runs(self, raw_client: Any) -> None:
        ended: list[str] = []
        running = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            running.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async with serve(handler, close_timeout=0.05) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            await running.wait()
            await server.close()
            assert ended == ["cancelled"]
            assert not worker_tasks()

    async def test_one_that_ignores_its_cancellation_does_not_hold_up_close(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, go = asyncio.Event(), asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            running.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue

        async with serve(handler, close_timeout=0.05) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            await running.wait()
            await asyncio.wait_for(server.close(), 20)
            go.set()
            await asyncio.wait(worker_tasks(), timeout=20)


class TestWorkers:
    @pytest.fixture
    def made(self) -> list[str]:
        """The names of the Tasks made from now on."""
        names: list[str] = []

        def factory(loop: Any, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
            names.append(coroutine.__qualname__)
            return task

        self._factory: Callable[..., Any] = factory
        return names

    async def test_no_task_per_message(self, made: list[str], raw_client: Any) -> None:
        async def handler(one: SecureMessage) -> bytes:
            return one.payload

        async with serve(handler) as server, raw_client(server.port) as peer:
            asyncio.get_running_loop().set_task_factory(self._factory)
            for number in range(500):
                peer.ask(f"m-{number}")
            assert [(await peer.read_json())["message_id"] for _ in range(500)] == [
                f"m-{number}" for number in range(500)
            ]
            for number in range(20):  # one after the other
                peer.ask(f"n-{number}")
                await peer.read_json()
            asyncio.get_running_loop().set_task_factory(None)
        assert made == ["Workers._work"]

    async def test_a_spare_starts_at_once_when_one_suspends(self, raw_client: Any) -> None:
        order: list[str] = []
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            order.append(f"{one.id} begins")
            if one.id == "slow":
                await go.wait()
            order.append(f"{one.id} ends")

        async with serve(handler) as server, raw_client(server.port) as peer:
            for name in ("a", "slow", "b", "c"):
                peer.ask(name)
            assert [(await peer.read_json())["message_id"] for _ in range(3)] == ["a", "b", "c"]
            go.set()
            assert (await peer.read_json())["message_id"] == "slow"
        assert order == [
            "a begins",
            "a ends",
            "slow begins",
            "b begins",
            "b ends",
            "c begins",
            "c ends",
            "slow ends",
        ]

    async def test_handlers_that_wait_for_each_other_do_not_block(self) -> None:
        events = [asyncio.Event() for _ in range(51)]
        events[50].set()

        async def handler(one: SecureMessage) -> None:
            number = int(one.payload)
            await events[number + 1].wait()
            events[number].set()

        answers = await ask(handler, *(b"%d" % number for number in range(50)))
        assert all(answer.success for answer in answers)

    async def test_connections_do_not_wait_for_each_other(self, raw_client: Any) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            if one.id == "slow":
                await go.wait()

        async with serve(handler) as server:
            async with raw_client(server.port) as first, raw_client(server.port) as second:
                first.ask("slow")
                second.ask("quick")
                assert (await second.read_json())["message_id"] == "quick"
                go.set()
                assert (await first.read_json())["message_id"] == "slow"

    async def test_workers_are_kept_for_the_next_burst_and_not_more(
        self, raw_client: Any, eventually: Any
    ) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            await go.wait()

        count = IDLE_WORKERS + 40
        async with serve(handler, max_concurrency=count) as server, raw_client(server.port) as peer:
            for number in range(count):
                peer.ask(f"m-{number}")
            await eventually(lambda: len(worker_tasks()) >= count)
            go.set()
            for _ in range(count):
                await peer.read_json()
            await eventually(lambda: len(worker_tasks()) <= IDLE_WORKERS)
            before = worker_tasks()
            for number in range(10):
                peer.ask(f"n-{number}")
                await peer.read_json()
            assert worker_tasks() <= before

    async def test_parked_ones_that_somebody_cancelled_are_replaced(self, raw_client: Any) -> None:
        async with serve(lambda one: one.payload) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            await peer.read_json()
            (parked,) = worker_tasks()
            parked.cancel()
            await asyncio.wait([parked])
            peer.ask("m-2")
            assert (await peer.read_json())["message_id"] == "m-2"
            assert worker_tasks() != {parked}

    async def test_a_fault_of_ours_in_one_answer_leaves_the_others_alone(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = ServerLink.answer

        def faulty(link: ServerLink, one: SecureMessage, reply: Any) -> bool:
            if one.id == "m-2":
                raise AssertionError("a fault of ours")
            return answer(link, one, reply)

        monkeypatch.setattr(ServerLink, "answer", faulty)
        async with serve(lambda one: one.payload, link="loop") as server, raw_client(server.port) as peer:
            for number in (1, 2, 3):
                peer.ask(f"m-{number}")
            assert [(await peer.read_json())["message_id"] for _ in range(2)] == ["m-1", "m-3"]
        assert "a worker failed" in caplog.text
        assert "a fault of ours" in caplog.text

    async def test_an_idle_connection_owns_no_task(self, raw_client: Any) -> None:
        async with serve(lambda one: b"x") as server:
            before = asyncio.all_tasks()
            async with raw_client(server.port):
                assert server.connection_count == 1
                assert asyncio.all_tasks() == before

    async def test_answers_of_one_batch_leave_in_sub_batches(self, raw_client: Any) -> None:
        async with serve(lambda one: one.payload, link="loop") as server, raw_client(server.port) as peer:
            (link,) = server.connections
            writes: list[int] = []
            transport = link._transport  # type: ignore[attr-defined]

            class Spy:
                def write(self, data: bytes) -> None:
                    writes.append(len(data))
                    transport.write(data)

                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

            link._transport = Spy()  # type: ignore[attr-defined]
            # one segment, so that it is one read
            body = b"".join(
                peer.frame(TEXT, b'{"id":"m-%03d","payload":"%s","did":"d"}' % (number, b"QUFB" * 100))
                for number in range(100)
            )
            peer.write(body)
            for _ in range(100):
                await peer.read_json()
        assert 4 <= len(writes) <= 20
        assert max(writes) < 16 * 1024

    async def test_a_slow_handlers_neighbours_answers_do_not_wait_for_it(self, raw_client: Any) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            if one.id == "slow":
                await go.wait()

        async with serve(handler) as server, raw_client(server.port) as peer:
            peer.write(
                peer.frame(TEXT, b'{"id":"a","payload":"eA==","did":"d"}')
                + peer.frame(TEXT, b'{"id":"slow","payload":"eA==","did":"d"}')
            )
            assert (await peer.read_json())["message_id"] == "a"
            go.set()
            assert (await peer.read_json())["message_id"] == "slow"


class TestConnectionOfAHandler:
    async def test_it_may_close_its_own(self, raw_client: Any, eventually: Any) -> None:
        closed: list[bool] = []

        async def handler(one: SecureMessage, call: Any) -> bytes:
            await call.connection.close()
            await call.connection.close()
            closed.append(call.connection.closed)
            return b"nobody hears this"

        async with serve(handler) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            assert await peer.until_closed() == (1000, "")
            assert await peer.read_end() == b""
            await eventually(lambda: closed == [True])
            await eventually(lambda: server.connection_count == 0)
            assert server.stats()["answered"] == 0
            assert server.stats()["pending"] == 0

    async def test_its_peer_may_leave_and_it_runs_on(self, raw_client: Any, eventually: Any) -> None:
        ended: list[bool] = []
        running, go = asyncio.Event(), asyncio.Event()

        async def handler(one: SecureMessage, call: Any) -> bytes:
            running.set()
            await go.wait()
            ended.append(call.connection.closed)
            return b"dropped"

        async with serve(handler) as server:
            async with raw_client(server.port) as peer:
                peer.ask("m-1")
                await running.wait()
            await eventually(lambda: server.connection_count == 0)
            assert server.stats()["pending"] == 1
            go.set()
            await eventually(lambda: ended == [True])
            await eventually(lambda: server.stats()["pending"] == 0)
            assert server.stats()["dropped"] == 1
            assert server.stats()["answered"] == 0

    async def test_requests_that_waited_when_their_peer_left_are_dropped(
        self, raw_client: Any, eventually: Any
    ) -> None:
        ran: list[str] = []
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            ran.append(one.id)
            await go.wait()

        async with serve(handler, max_concurrency=1) as server:
            async with raw_client(server.port) as peer:
                for number in range(3):
                    peer.ask(f"m-{number}")
                await eventually(lambda: server.stats()["pending"] == 3)
            await eventually(lambda: server.connection_count == 0)
            assert server.stats()["pending"] == 1
            go.set()
            await eventually(lambda: server.stats()["pending"] == 0)
            assert ran == ["m-0"]
            assert server.stats()["dropped"] == 3  # two requests and an answer


class TestAnswersOverTheLimit:
    async def test_too_big_an_answer_is_a_failure_that_says_so(self) -> None:
        (answer,) = await ask(lambda one: b"x" * 1000, max_message_size=1000)
        assert answer.success is False
        assert answer.error.endswith("is over max_message_size 1000")

    async def test_too_many_parts_are_a_failure_and_end_the_generator(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended: list[bool] = []

        async def parts(one: SecureMessage) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 300
            finally:
                ended.append(True)

        (answer,) = await ask(parts, max_message_size=1000)
        assert answer.error == "internal error"
        assert "response is over max_message_size 1000" in caplog.text
        assert ended == [True]

    async def test_an_id_that_leaves_no_room_for_an_answer_costs_no_place(
        self, raw_client: Any, eventually: Any
    ) -> None:
        async with (
            serve(lambda one: b"x", max_message_size=300, max_concurrency=1) as server,
            raw_client(server.port) as peer,
        ):
            for _ in range(3):  # each < is six bytes in an answer
                peer.send(TEXT, b'{"id":"%s","payload":"eA==","did":"d"}' % (b"<" * 200))
            peer.ask("m-1")
            assert (await peer.read_json())["message_id"] == "m-1"
            assert server.stats()["pending"] == 0
            assert server.stats()["dropped"] == 3


PARKED = """
import asyncio
from sage_ws import SecureMessage, connect, serve

async def handler(message):
    if message.payload == b"hang":
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(0)
    return message.payload

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault of ours
    server = await serve(handler)
    client = await connect(f"ws://127.0.0.1:{server.port}")
    await asyncio.gather(*(client.send(SecureMessage(payload=b"x", did="d")) for _ in range(50)))
    asyncio.get_running_loop().create_task(client.send(SecureMessage(payload=b"hang", did="d")))
    while not server.stats()["pending"]:
        await asyncio.sleep(0)
    print(len([task for task in asyncio.all_tasks() if task.get_name() == "sage_ws worker"]) > 1)

asyncio.run(main(){debug})
print("ended")
"""


@pytest.mark.parametrize("debug", ["", ", debug=True"])
def test_asyncio_run_ends_cleanly_with_workers_parked_and_busy(debug: str) -> None:
    """Nobody closed anything: the interpreter still ends, without a word."""
    shown = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", PARKED.replace("{debug}", debug)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "True\nended\n", "")
