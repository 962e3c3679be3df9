"""Interceptors: functions around every call, at either end.

Over 500 lines: handlers of each shape, streams and both directions, at both ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from sage_ws import (
    UNSET,
    ConnectionLostError,
    DedupeMemory,
    HandlerError,
    Interceptor,
    Next,
    NotSentError,
    QueueTimeoutError,
    ReadTimeoutError,
    Response,
    SecureMessage,
    Server,
    connect,
    current_call,
    serve,
)
from sage_ws.aio.intercepting import send_intercepted
from sage_ws.testing import MemoryTransport
from sage_ws.transports.http import HTTPTransport, http_app


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", **fields)


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws"


async def echo(message: SecureMessage) -> bytes:
    return message.payload


@pytest.fixture
def by_name() -> Any:
    """For ``authorize``: takes a header's word."""

    async def authorize(request: Any) -> str | None:
        name: str | None = request.headers.get("X-Name")
        return name

    return authorize


def wrapping(name: bytes) -> Interceptor:
    """Writes its name around the payload, and around the answer."""

    async def interceptor(message: SecureMessage, following: Next) -> Response:
        response = await following(message.replace(payload=name + message.payload))
        return Response(message_id=response.message_id, data=response.data + name)

    return interceptor


@pytest.mark.parametrize("end", ["client", "server"])
async def test_the_first_is_the_outermost(end: str) -> None:
    options: dict[str, Any] = {"interceptors": [wrapping(b"1"), wrapping(b"2")]}
    server_options, client_options = (options, {}) if end == "server" else ({}, options)
    async with serve(echo, **server_options) as server, connect(url(server), **client_options) as client:
        assert (await client.send(message(b"-"))).data == b"21-21"


class TestOfAServer:
    @pytest.mark.parametrize("shape", ["plain", "async", "with a call", "generator", "response"])
    async def test_every_shape_of_a_handler(self, shape: str) -> None:
        async def generator(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        async def with_call(message: SecureMessage, call: Any) -> bytes:
            assert call is current_call()
            assert call.connection in server.connections
            return b"ab"

        async def suspending(message: SecureMessage) -> bytes:
            await asyncio.sleep(0)
            return b"ab"

        handler: Any = {
            "plain": lambda message: b"ab",
            "async": suspending,
            "with a call": with_call,
            "generator": generator,
            "response": lambda message: Response(data=b"ab"),
        }[shape]
        async with serve(handler, interceptors=(wrapping(b""),)) as server:
            async with connect(url(server)) as client:
                assert (await client.send(message(id="7"))) == Response(message_id="7", data=b"ab")

    async def test_they_see_what_the_handler_raises_and_may_answer_for_it(self) -> None:
        async def handler(message: SecureMessage) -> bytes:
            raise HandlerError("not today") if message.payload == b"no" else LookupError("a bug")

        seen: list[BaseException] = []

        async def watch(message: SecureMessage, following: Next) -> Response:
            try:
                return await following(message)
            except LookupError as error:
                seen.append(error)
                return Response.failure("mended")
            except HandlerError as error:
                seen.append(error)
                raise

        async with serve(handler, interceptors=[watch]) as server, connect(url(server)) as client:
            assert (await client.send(message(b"no"))).error == "not today"
            assert (await client.send(message(b"bug"))).error == "mended"
        assert [type(error) for error in seen] == [HandlerError, LookupError]

    async def test_one_may_answer_by_itself(self) -> None:
        async def refuse(message: SecureMessage, following: Next) -> Response:
            call = current_call()
            assert call is not None
            return Response.failure(f"no entry for {call.identity}")

        async def authorize(request: Any) -> str:
            return "alice"

        async with serve(echo, interceptors=[refuse], authorize=authorize) as server:
            async with connect(url(server)) as client:
                assert (await client.send(message())).error == "no entry for alice"
        assert current_call() is None

    @pytest.mark.parametrize("fault", ["returns bytes", "returns nothing to wait for", "raises"])
    async def test_a_faulty_one_is_an_internal_error(
        self, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def returns_bytes(message: SecureMessage, following: Next) -> Any:
            return b"bytes"

        async def raises(message: SecureMessage, following: Next) -> Any:
            raise ValueError("a bug")

        interceptor: Any = {
            "returns bytes": returns_bytes,
            "returns nothing to wait for": lambda message, following: None,
            "raises": raises,
        }[fault]
        async with serve(echo, interceptors=[interceptor]) as server, connect(url(server)) as client:
            assert (await client.send(message())).error == "internal error"
        assert caplog.records

    async def test_one_is_cancelled_with_its_handler(self) -> None:
        cancelled = asyncio.Event()
        started = asyncio.Event()

        async def handler(message: SecureMessage) -> None:
            started.set()
            await asyncio.Event().wait()

        async def watch(message: SecureMessage, following: Next) -> Response:
            try:
                return await following(message)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with serve(handler, interceptors=[watch]) as server:
            async with connect(url(server), reconnect=False) as client:
                call = asyncio.create_task(client.send(message()))
                await started.wait()
                await server.close()
                with pytest.raises(ConnectionLostError):
                    await call
        assert cancelled.is_set()

    async def test_a_repeat_passes_them_and_not_the_handler(self) -> None:
        passed = ran = 0

        async def count(message: SecureMessage, following: Next) -> Response:
            nonlocal passed
            passed += 1
            return await following(message)

        async def handler(message: SecureMessage) -> bytes:
            nonlocal ran
            ran += 1
            return b"done"

        async with serve(handler, interceptors=[count], dedupe=DedupeMemory()) as server:
            async with connect(url(server)) as client:
                sent = message()
                assert [(await client.send(sent)).data for _ in range(2)] == [b"done"] * 2
        assert (passed, ran) == (2, 1)


class TestOfAClient:
    async def test_one_may_try_again(self) -> None:
        runs = 0

        async def handler(message: SecureMessage) -> Response:
            nonlocal runs
            runs += 1
            return Response.failure("busy") if runs < 3 else Response(data=b"done")

        async def patient(message: SecureMessage, following: Next) -> Response:
            while (response := await following(message)).error == "busy":
                pass
            return response

        async with serve(handler) as server, connect(url(server), interceptors=[patient]) as client:
            assert (await client.send(message())).data == b"done"
            assert client.stats()["sent"] == 3

    async def test_the_callers_time_is_for_all_of_it(self, growing: Any) -> None:
        async def endless(message: SecureMessage, following: Next) -> Response:
            if message.payload == b"first":
                await following(message)
            await asyncio.Event().wait()
            raise AssertionError

        async with serve(echo) as server, connect(url(server), interceptors=[endless]) as client:
            with pytest.raises(QueueTimeoutError, match="through the interceptors"):
                await client.send(message(id="1"), timeout=0.05)
            for seconds in growing(0.1):
                with pytest.raises((ReadTimeoutError, QueueTimeoutError)) as late:
                    await client.send(message(b"first", id="2"), timeout=seconds)
                assert late.value.message_id == "2"
                if client.stats()["sent"]:
                    break
            assert isinstance(late.value, ReadTimeoutError)
            assert "through the interceptors" in str(late.value)

    async def test_the_time_that_is_left_bounds_what_is_sent(self, growing: Any) -> None:
        async def never(message: SecureMessage) -> None:
            await asyncio.Event().wait()

        async def slow(message: SecureMessage, following: Next) -> Response:
            await asyncio.sleep(seconds / 3)
            return await following(message)

        async with serve(never) as server, connect(url(server), interceptors=[slow]) as client:
            for seconds in growing(0.15):
                with pytest.raises(TimeoutError) as raised:
                    await client.send(message(), timeout=seconds)
                if client.stats()["sent"]:
                    break
            assert isinstance(raised.value, ReadTimeoutError)
            assert client.stats()["pending"] == 0

    async def test_they_see_a_timeout_and_no_cancellation(self) -> None:
        seen: list[type[BaseException]] = []

        async def never(message: SecureMessage) -> None:
            await asyncio.Event().wait()

        async def watching(message: SecureMessage, following: Next) -> Response:
            try:
                return await following(message)
            except BaseException as error:
                seen.append(type(error))
                raise

        async with serve(never) as server, connect(url(server), interceptors=[watching]) as client:
            with pytest.raises(ReadTimeoutError, match="no answer came in time"):
                await client.send(message(), timeout=0.05)
        assert seen == [ReadTimeoutError]

    async def test_one_that_never_gives_up_is_ended_with_the_callers_time(self) -> None:
        async def never(message: SecureMessage) -> None:
            await asyncio.Event().wait()

        async def stubborn(message: SecureMessage, following: Next) -> Response:
            while True:
                with contextlib.suppress(TimeoutError):
                    return await following(message.replace(id=""))

        async with serve(never) as server, connect(url(server), interceptors=[stubborn]) as client:
            with pytest.raises(ReadTimeoutError, match="through the interceptors"):
                await client.send(message(), timeout=0.05)

    async def test_one_that_never_gives_up_is_ended_where_a_late_message_fails_at_once(self) -> None:
        async def sent(message: SecureMessage, timeout: Any) -> Response:
            await asyncio.sleep(timeout if timeout > 0.001 else -1)
            raise ReadTimeoutError("no answer came in time")

        async def late(message: SecureMessage, timeout: Any) -> Response:
            if timeout > 0.001:
                return await sent(message, timeout)
            raise ReadTimeoutError("no answer came in time")

        async def stubborn(message: SecureMessage, following: Next) -> Response:
            while True:
                with contextlib.suppress(TimeoutError):
                    return await following(message)

        for send in (sent, late):
            with pytest.raises(ReadTimeoutError, match="through the interceptors"):
                await send_intercepted(send, [stubborn], message(), 0.01)

    async def test_what_one_left_behind_goes_on(self) -> None:
        left: list[asyncio.Task[Response]] = []

        async def hasty(message: SecureMessage, following: Next) -> Response:
            left.append(asyncio.ensure_future(following(message)))
            await asyncio.sleep(0)
            return Response(data=b"at once")

        async with serve(echo) as server, connect(url(server), interceptors=[hasty]) as client:
            assert (await client.send(message(b"later"), timeout=10)).data == b"at once"
            assert (await left[0]).data == b"later"

    async def test_its_own_timeout_error_is_its_own(self) -> None:
        async def impatient(message: SecureMessage, following: Next) -> Response:
            raise TimeoutError("mine")

        async with serve(echo) as server, connect(url(server), interceptors=[impatient]) as client:
            for timeout in (None, 5):
                with pytest.raises(TimeoutError, match="^mine$"):
                    await client.send(message(), timeout=timeout)

    async def test_they_stand_around_repeats(self, lying_server: Any) -> None:
        seen: list[str] = []
        passed = 0

        async def losing(peer: Any) -> None:
            asked = await peer.read_json()
            seen.append(asked["id"])
            if len(seen) == 1:
                peer.writer.transport.abort()
                return
            peer.answer(asked["id"], b"done")
            await peer.until_closed()

        async def count(message: SecureMessage, following: Next) -> Response:
            nonlocal passed
            passed += 1
            return await following(message)

        async with lying_server(losing) as server:
            async with connect(server.url, interceptors=[count], backoff=lambda attempt: 0.001) as client:
                assert (await client.send(message(id="1"), idempotent=True)).data == b"done"
        assert (seen, passed) == (["1", "1"], 1)

    async def test_what_is_no_message_never_reaches_them(self) -> None:
        async def unreachable(message: SecureMessage, following: Next) -> Response:
            raise AssertionError

        async with serve(echo) as server, connect(url(server), interceptors=[unreachable]) as client:
            with pytest.raises(TypeError, match="message must be a SecureMessage"):
                await client.send("x")  # type: ignore[arg-type]


class TestOfWhatGoesTheOtherWay:
    """A server asks, the handler of a client answers: ``push_interceptors`` stand around both."""

    @pytest.mark.parametrize("asked", ["by connection", "by identity"])
    async def test_they_stand_around_both_ends_and_the_others_do_not(self, asked: str, by_name: Any) -> None:
        around_server: dict[str, Any] = {
            "interceptors": [wrapping(b"s")],
            "push_interceptors": [wrapping(b"1"), wrapping(b"2")],
        }
        around_client: dict[str, Any] = {
            "interceptors": [wrapping(b"c")],
            "push_interceptors": [wrapping(b"3"), wrapping(b"4")],
        }
        async with serve(echo, authorize=by_name, **around_server) as server:
            async with connect(
                url(server), headers={"X-Name": "alice"}, handler=echo, **around_client
            ) as client:
                (connection,) = server.connections
                send = connection.send if asked == "by connection" else partial(server.send, "alice")
                for timeout in (UNSET, None, 5):
                    response = await send(message(b"-", id="7"), timeout=timeout)
                    assert response == Response(message_id="7", data=b"4321-4321")
                assert (await client.send(message(b"-"))).data == b"sc-sc"
                with pytest.raises(TypeError, match="message must be a SecureMessage"):
                    await send("x")  # type: ignore[arg-type]

    @pytest.mark.parametrize("shape", ["plain", "async", "with a call", "generator"])
    async def test_every_shape_of_a_clients_handler(self, shape: str) -> None:
        seen: list[Any] = []

        async def generator(message: SecureMessage) -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        async def with_call(message: SecureMessage, call: Any) -> bytes:
            seen.append(call)
            return b"ab"

        async def suspending(message: SecureMessage) -> bytes:
            await asyncio.sleep(0)
            return b"ab"

        async def watch(message: SecureMessage, following: Next) -> Response:
            seen.append(current_call())
            return await following(message)

        handler: Any = {
            "plain": lambda message: b"ab",
            "async": suspending,
            "with a call": with_call,
            "generator": generator,
        }[shape]
        async with serve(echo) as server:
            async with connect(url(server), handler=handler, push_interceptors=[watch]):
                (connection,) = server.connections
                assert (await connection.send(message(id="7"))) == Response(message_id="7", data=b"ab")
        assert seen[0] is seen[-1] is not None
        assert current_call() is None

    async def test_they_see_what_fails_at_either_end(self, by_name: Any) -> None:
        seen: list[tuple[str, str]] = []

        async def broken(message: SecureMessage) -> bytes:
            raise LookupError("a bug")

        def watching(end: str) -> Interceptor:
            async def watch(message: SecureMessage, following: Next) -> Response:
                try:
                    response = await following(message)
                except Exception as error:
                    seen.append((end, type(error).__name__))
                    raise
                seen.append((end, response.error))
                return response

            return watch

        async with serve(echo, authorize=by_name, push_interceptors=[watching("server")]) as server:
            async with connect(
                url(server),
                headers={"X-Name": "alice"},
                handler=broken,
                push_interceptors=[watching("client")],
            ):
                assert (await server.send("alice", message())).error == "internal error"
                with pytest.raises(NotSentError, match="no connection has this identity"):
                    await server.send("bob", message())
        assert seen == [("client", "LookupError"), ("server", "internal error"), ("server", "NotSentError")]

    async def test_the_time_that_is_given_is_for_all_of_it(self) -> None:
        async def stuck(message: SecureMessage, following: Next) -> Response:
            await asyncio.Event().wait()
            return await following(message)

        async with serve(echo, push_interceptors=[stuck]) as server, connect(url(server), handler=echo):
            (connection,) = server.connections
            with pytest.raises(QueueTimeoutError, match="through the interceptors"):
                await connection.send(message(), timeout=0.01)
            assert server.stats()["asked"] == 0

    async def test_a_client_that_was_dialled_while_another_call_was_served_knows_its_own(self) -> None:
        seen: list[Any] = []

        async def looking(message: SecureMessage) -> bytes:
            seen.append(current_call())
            return b"done"

        async with serve(echo) as other, contextlib.AsyncExitStack() as clients:

            async def passing_on(message: SecureMessage) -> bytes:
                client = await clients.enter_async_context(connect(url(other), handler=looking))
                return (await client.send(message)).data

            async with serve(passing_on, interceptors=[wrapping(b"")]) as server:
                async with connect(url(server)) as client:
                    assert (await client.send(message(b"x"))).data == b"x"
            (connection,) = other.connections
            assert (await connection.send(message())).data == b"done"
        assert seen == [None]


class TestOfOtherTransports:
    @pytest.fixture
    async def base(self) -> AsyncIterator[str]:
        """The URL of an HTTP server whose handler echoes, within two interceptors."""
        runner = web.AppRunner(http_app(echo, interceptors=[wrapping(b"3"), wrapping(b"4")]), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()

    async def test_http_has_them_at_both_ends(self, base: str) -> None:
        async with HTTPTransport(base, interceptors=[wrapping(b"1"), wrapping(b"2")]) as transport:
            assert (await transport.send(message(b"-"))).data == b"4321-4321"

    async def test_a_timeout_over_http_is_for_interceptors_too(self, base: str) -> None:
        async def stuck(message: SecureMessage, following: Next) -> Response:
            await asyncio.Event().wait()
            return await following(message)

        async with HTTPTransport(base, interceptors=[stuck]) as transport:
            with pytest.raises(QueueTimeoutError):
                await transport.send(message(), timeout=0.01)

    async def test_memory_has_a_servers(self) -> None:
        async def refusing(message: SecureMessage, following: Next) -> Response:
            call = current_call()
            assert call is not None
            if call.identity != "alice":
                raise HandlerError("who are you?")
            return await following(message)

        async with MemoryTransport(echo, interceptors=[refusing, wrapping(b"1")]) as transport:
            assert (await transport.send(message(b"-"))).error == "who are you?"
        async with MemoryTransport(
            echo, interceptors=[refusing, wrapping(b"1")], identity="alice"
        ) as transport:
            assert (await transport.send(message(b"-"))).data == b"1-1"

    @pytest.mark.parametrize("make", [http_app, MemoryTransport])
    def test_what_is_no_function_is_refused(self, make: Any) -> None:
        with pytest.raises(TypeError, match="interceptors must hold functions, not int"):
            make(echo, interceptors=[1])

    def test_what_is_no_function_is_refused_by_a_client_over_http(self) -> None:
        with pytest.raises(TypeError, match="interceptors must hold functions, not int"):
            HTTPTransport("http://127.0.0.1", interceptors=[1])  # type: ignore[list-item]
