"""A handler's shape, and the way from what it returns or raises to one Response."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage_ws import HandlerError, MessageTooBigError, Response, SecureMessage
from sage_ws.handler import (
    DetachedCall,
    HandlerCaller,
    complete,
    failure,
    settle,
    takes_call,
    validate,
)

MESSAGE = SecureMessage(payload=b"hello", did="did:sage:a", id="m-1", task_id="t-1")


async def alone(message: Any) -> bytes:
    return b"alone"


async def with_call(message: Any, call: Any) -> bytes:
    return b"with call"


def plain(message: Any) -> bytes:
    return b"plain"


async def parts(message: Any) -> AsyncIterator[bytes]:
    yield b"one "
    yield b""
    yield b"two"


class Callable1:
    async def __call__(self, message: Any) -> None: ...


class Callable2:
    async def __call__(self, message: Any, call: Any) -> None: ...


class Methods:
    async def one(self, message: Any) -> None: ...

    async def two(self, message: Any, call: Any) -> None: ...

    @staticmethod
    def static(message: Any, call: Any) -> None: ...


class TestShape:
    @pytest.mark.parametrize(
        "handler",
        [
            alone,
            plain,
            parts,
            Callable1(),
            Methods().one,
            lambda message: None,
            lambda message, *, flag=False: None,
            lambda message, other=None: None,
            lambda *messages: None,
            functools.partial(with_call, call=None),
            bytes,  # a class, and a builtin
            print,
        ],
    )
    def test_a_message_alone(self, handler: Any) -> None:
        assert takes_call(handler) is False

    @pytest.mark.parametrize(
        "handler",
        [
            with_call,
            Callable2(),
            Methods().two,
            Methods.static,
            lambda message, context: None,
            lambda message, call=None: None,
            lambda message, other, *rest: None,
            functools.partial(lambda extra, message, call: None, 1),
        ],
    )
    def test_a_message_and_its_call(self, handler: Any) -> None:
        assert takes_call(handler) is True

    @pytest.mark.parametrize(
        ("handler", "name"),
        [
            (lambda: None, "<lambda>"),
            (lambda a, b, c: None, "<lambda>"),
            (lambda message, *, needed: None, "<lambda>"),
            (functools.partial(with_call, b"", None), "partial"),
        ],
    )
    def test_any_other_is_a_type_error_that_names_it(self, handler: Any, name: str) -> None:
        with pytest.raises(
            TypeError, match=rf"handler .*{name}.* must take \(message\) or \(message, call\)"
        ):
            takes_call(handler)

    def test_what_cannot_be_called_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match=r"^handler must be callable, not bytes$"):
            takes_call(b"")  # type: ignore[arg-type]

    def test_a_builtin_without_a_signature_takes_the_message_alone(self) -> None:
        with pytest.raises(ValueError, match="no signature found"):
            inspect.signature(type)
        assert takes_call(type) is False


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("m-1", "did:sage:a", b"x"), None),
        (("", "did:sage:a", b"x"), "message ID is required"),
        (("m-1", "", b"x"), "DID is required"),
        (("m-1", "did:sage:a", b""), "payload is required"),
        (("", "", b""), "message ID is required"),
        (("m-1", "", b""), "DID is required"),
    ],
)
def test_validation_texts_come_in_the_references_order(
    fields: tuple[str, str, bytes], text: str | None
) -> None:
    assert validate(*fields) == text


class TestSettle:
    async def test_a_reply_stays_itself(self) -> None:
        response = Response(data=b"x")
        assert await settle(response) is response
        assert await settle(None) is None

    async def test_an_awaitable_is_awaited(self) -> None:
        assert await settle(alone(MESSAGE)) == b"alone"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.set_result(b"future")
        assert await settle(future) == b"future"

    async def test_parts_are_joined(self) -> None:
        assert await settle(parts(MESSAGE)) == b"one two"

    async def test_parts_up_to_the_limit_pass(self) -> None:
        assert await settle(parts(MESSAGE), 7) == b"one two"

    async def test_parts_over_the_limit_stop_the_generator(self) -> None:
        ended: list[str] = []

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"1234"
            finally:
                ended.append("here")

        with pytest.raises(MessageTooBigError, match="over max_message_size 10"):
            await settle(endless(), 10)
        assert ended == ["here"]

    async def test_a_part_that_is_not_bytes_is_a_type_error_and_ends_the_generator(self) -> None:
        ended: list[str] = []

        async def texts() -> AsyncIterator[Any]:
            try:
                yield b"fine"
                yield "text"
            finally:
                ended.append("here")

        with pytest.raises(TypeError, match=r"^a handler's parts must be bytes, not str$"):
            await settle(texts())
        assert ended == ["here"]


class NoText:
    def __str__(self) -> str:
        raise ValueError("there is none")


class TestFailure:
    def test_a_handler_error_passes_its_text(self, caplog: pytest.LogCaptureFixture) -> None:
        assert failure(MESSAGE, HandlerError("no such agent")) == Response.failure("no such agent")
        assert caplog.records == []

    def test_a_handler_error_without_a_text_is_a_failure_all_the_same(self) -> None:
        answer = failure(MESSAGE, HandlerError())
        assert (answer.success, answer.error) == (False, "")

    @pytest.mark.parametrize("text", ["a file named \udcff", NoText()])
    def test_a_handler_errors_text_that_no_message_can_carry_is_an_internal_error(
        self, text: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert failure(MESSAGE, HandlerError(text)) == Response.failure("internal error")
        (record,) = caplog.records
        assert record.exc_info is not None

    def test_any_other_exception_says_nothing_to_the_peer_and_all_to_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        try:
            raise KeyError("the password is hunter2")
        except KeyError as error:
            answer = failure(MESSAGE, error)
        assert answer == Response.failure("internal error")
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.name == "sage_ws.handler"
        assert "'m-1'" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[0] is KeyError

    def test_the_log_line_escapes_a_peers_id(self, caplog: pytest.LogCaptureFixture) -> None:
        failure(SecureMessage(payload=b"x", did="d", id="a\nFAKE LOG LINE"), ValueError())
        assert "\n" not in caplog.records[0].getMessage()

    def test_the_log_holds_no_payload(self, caplog: pytest.LogCaptureFixture) -> None:
        failure(SecureMessage(payload=b"canary", did="d", signature=b"canary"), ValueError("bad"))
        assert "canary" not in caplog.text


class TestComplete:
    def test_bytes_are_a_success_with_that_data(self) -> None:
        assert complete(MESSAGE, b"x") == Response(message_id="m-1", task_id="t-1", data=b"x")

    def test_none_is_a_success_without_data(self) -> None:
        assert complete(MESSAGE, None) == Response(message_id="m-1", task_id="t-1")

    def test_empty_ids_are_filled_in(self) -> None:
        assert complete(MESSAGE, Response(data=b"x")) == Response(message_id="m-1", task_id="t-1", data=b"x")

    def test_ids_that_are_set_stay(self) -> None:
        given = Response(message_id="m-2", task_id="t-2", data=b"x")
        assert complete(MESSAGE, given) == given

    def test_success_beside_an_error_is_none(self) -> None:
        assert complete(MESSAGE, Response(success=True, error="no")).success is False

    @pytest.mark.parametrize("reply", ["text", 5, bytearray(b"x"), [b"x"]])
    def test_anything_else_is_a_type_error(self, reply: Any) -> None:
        name = type(reply).__name__
        with pytest.raises(
            TypeError, match=rf"^a handler must return a Response, bytes or None, not {name}$"
        ):
            complete(MESSAGE, reply)


class TestHandlerCaller:
    @pytest.mark.parametrize(
        ("handler", "data"),
        [(alone, b"alone"), (with_call, b"with call"), (plain, b"plain"), (parts, b"one two")],
    )
    async def test_every_shape_answers(self, handler: Any, data: bytes) -> None:
        assert await HandlerCaller(handler)(MESSAGE) == Response(message_id="m-1", task_id="t-1", data=data)

    async def test_the_call_is_handed_on(self) -> None:
        seen: list[Any] = []
        caller = HandlerCaller(lambda message, call: seen.append((message, call)))
        call = DetachedCall("alice", 12.5)
        await caller(MESSAGE, call)
        await caller(MESSAGE)
        assert seen[0] == (MESSAGE, call)
        assert (call.identity, call.deadline, call.connection) == ("alice", 12.5, None)
        own = seen[1][1]
        assert (own.identity, own.deadline, own.connection) == (None, None, None)

    async def test_a_handler_error_answers_its_text(self) -> None:
        async def handler(message: Any) -> None:
            raise HandlerError("not today")

        assert await HandlerCaller(handler)(MESSAGE) == Response(
            success=False, message_id="m-1", task_id="t-1", error="not today"
        )

    @pytest.mark.parametrize("reply", ["text", 1])
    async def test_a_wrong_reply_answers_internal_error(
        self, reply: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = await HandlerCaller(lambda message: reply)(MESSAGE)
        assert (answer.error, answer.message_id) == ("internal error", "m-1")
        assert "must return a Response" in caplog.text

    async def test_too_many_parts_answer_internal_error(self, caplog: pytest.LogCaptureFixture) -> None:
        answer = await HandlerCaller(parts, limit=3)(MESSAGE)
        assert answer.success is False
        assert "max_message_size 3" in caplog.text

    async def test_cancellation_of_its_task_passes(self) -> None:
        called = asyncio.Event()

        async def handler(message: Any) -> None:
            called.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(HandlerCaller(handler)(MESSAGE))
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_cancelled_task_that_it_waited_for_answers_internal_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(message: Any) -> None:
            inner = asyncio.ensure_future(asyncio.Event().wait())
            asyncio.get_running_loop().call_soon(inner.cancel)
            await inner

        answer = await HandlerCaller(handler)(MESSAGE)
        assert (answer.success, answer.error, answer.message_id) == (False, "internal error", "m-1")
        assert "handler failed for message 'm-1'" in caplog.text

    async def test_a_base_exception_answers_internal_error(self, caplog: pytest.LogCaptureFixture) -> None:
        class Panic(BaseException):
            """As an extension in Rust raises it."""

        def handler(message: Any) -> None:
            raise Panic("out of bounds")

        answer = await HandlerCaller(handler)(MESSAGE)
        assert (answer.success, answer.error, answer.message_id) == (False, "internal error", "m-1")
        assert "out of bounds" in caplog.text

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_ends_the_process_or_the_coroutine_passes(self, kind: type[BaseException]) -> None:
        def handler(message: Any) -> None:
            raise kind

        with pytest.raises(kind):  # outside of a loop, which would be ended by it
            HandlerCaller(handler)(MESSAGE).send(None)

    def test_a_wrong_shape_is_refused_at_construction(self) -> None:
        with pytest.raises(TypeError, match="must take"):
            HandlerCaller(lambda: None)  # type: ignore[arg-type, misc]
