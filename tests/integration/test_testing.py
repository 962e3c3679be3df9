"""What users test their own agents with: servers in threads, the fixture, a recording handler, memory.

A little over 500 lines: four tools, and a user's project that uses them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DialError,
    DuplicateIdError,
    HandlerError,
    MessageTooBigError,
    MessageTransport,
    ReadTimeoutError,
    Response,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.handler import DetachedCall
from sage_ws.testing import (
    MemoryTransport,
    RecordingHandler,
    plugin as testing_plugin,
    serve_in_thread,
    threads,
)

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

HELLO = SecureMessage(payload=b"hello", did="did:sage:me", id="m-1", task_id="t-1")


MESSAGE = b'{"id":"m-1","did":"did:x","payload":"aA=="}'
# An opening handshake and, behind it, one message; its masking key is zero, which leaves it as it is.
OPENING_AND_MESSAGE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    + bytes([0x81, 0x80 | len(MESSAGE), 0, 0, 0, 0])
    + MESSAGE
)

pytest_plugins = ["pytester"]


def ask(url: str, message: SecureMessage = HELLO, **options: Any) -> Response:
    """One message from a loop of its own, as code under test would have it."""

    async def talk() -> Response:
        async with connect(url, **options) as client:
            return await client.send(message)

    return asyncio.run(talk())


async def upper(message: SecureMessage) -> bytes:
    return message.payload.upper()


# ── serve_in_thread ────────────────────────────────────────────────────────────────────


def test_a_server_in_a_thread_answers_until_the_block_ends() -> None:
    threads_before = threading.active_count()
    with serve_in_thread(upper) as server:
        assert server.url == f"ws://127.0.0.1:{server.port}/ws"
        assert ask(server.url) == Response(True, "m-1", "t-1", b"HELLO")
        with pytest.raises(DialError) as caught:
            ask(server.url.replace("/ws", "/other"))
        assert caught.value.status == 404
    assert threading.active_count() == threads_before
    with pytest.raises(DialError):
        ask(server.url)


def test_it_takes_the_options_of_serve() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    with serve_in_thread(upper, "localhost", path=None, ssl=theirs) as server:
        assert server.url == f"wss://localhost:{server.port}/ws"
        assert ask(server.url, ssl=ours).data == b"HELLO"
        assert ask(server.url.replace("/ws", "/any/path"), ssl=ours).data == b"HELLO"
    with pytest.raises(TypeError, match="no option 'nonsense'"), serve_in_thread(upper, nonsense=1):  # type: ignore[call-arg]
        pass


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_stands_in_brackets() -> None:
    with serve_in_thread(upper, "::1") as server:
        assert server.url == f"ws://[::1]:{server.port}/ws"
        assert ask(server.url).success


def test_what_keeps_it_from_listening_is_raised_here() -> None:
    with serve_in_thread(upper) as server:
        with pytest.raises(OSError, match="in use"), serve_in_thread(upper, port=server.port):
            pass
        assert ask(server.url).success


def test_code_can_be_run_in_its_loop() -> None:
    async def connections(server: Server) -> int:
        return server.connection_count

    async def never() -> None:
        await asyncio.Event().wait()

    with serve_in_thread(upper) as server:
        assert server.run(connections(server.server)) == 0
        with pytest.raises(TimeoutError):
            server.run(never(), timeout=0.01)


def test_an_error_at_its_end_is_raised_here() -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        yield
        raise RuntimeError("could not shut down")

    with pytest.raises(RuntimeError, match="could not shut down"), serve_in_thread(upper, lifespan=lifespan):
        pass


def test_a_server_that_does_not_start_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        go_on.wait()
        yield

    monkeypatch.setattr(threads, "START_SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="did not listen"), serve_in_thread(upper, lifespan=lifespan):
        pass
    go_on.set()


def test_a_handler_that_blocks_its_thread_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def block(message: SecureMessage) -> None:
        arrived.set()
        go_on.wait()

    def serve_and_block() -> None:
        with serve_in_thread(block) as server, socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.sendall(OPENING_AND_MESSAGE)
            assert arrived.wait(5)

    monkeypatch.setattr(threads, "STOP_SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="a handler blocks it"):
        serve_and_block()
    go_on.set()


# ── the pytest plugin ──────────────────────────────────────────────────────────────────


@pytest.fixture
def sage_server() -> Any:
    """The plugin's own, found here too where the package is not installed."""
    yield from testing_plugin.sage_server.__wrapped__()


def test_the_fixture_is_a_server_that_echoes_and_records(sage_server: Any) -> None:
    assert ask(sage_server.url).data == b"hello"
    assert sage_server.handler.messages == [HELLO]
    assert f":{sage_server.port}/" in sage_server.url


def test_the_fixture_makes_servers_of_ones_own(sage_server: Any) -> None:
    first, second = sage_server(upper), sage_server(path="/in")
    assert ask(first.url).data == b"HELLO"
    assert ask(second.url).data == b"hello"
    assert second.url.endswith("/in")
    assert len({first.port, second.port, sage_server.port}) == 3


PROJECT_OF_A_USER = """
import asyncio
import pytest
from sage_ws import Client, SecureMessage

ports = []

def test_it(sage_server):
    async def talk():
        async with Client(sage_server.url) as client:
            return await client.send(SecureMessage(payload=b"hi", did="did:x"))
    assert asyncio.run(talk()).data == b"hi"
    ports.append(sage_server.port)

def test_it_is_closed_behind_each_test():
    import socket
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ports[0]))
"""


def test_a_project_of_a_user(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin is found by its entry point, as pyproject.toml has it; also in a tree never installed."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    info = pytester.mkdir("installed") / "sage_ws-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: sage-ws\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(
        f"[pytest11]\nsage_ws = {project['entry-points']['pytest11']['sage_ws']}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(info.parent), *sys.path]))
    pytester.makepyfile(PROJECT_OF_A_USER)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


# ── RecordingHandler ───────────────────────────────────────────────────────────────────


async def answers(handler: RecordingHandler, count: int) -> list[Response]:
    async with MemoryTransport(handler) as transport:
        return [await transport.send(HELLO.replace(id=f"m-{number}")) for number in range(count)]


@pytest.mark.parametrize(
    ("reply", "response"),
    [
        (None, Response(True)),
        (b"data", Response(True, data=b"data")),
        (Response(error="no"), Response(False, error="no")),
        (HandlerError("why"), Response(False, error="why")),
        (lambda message: message.payload, Response(True, data=b"hello")),
        (lambda message, call: repr(call.identity).encode(), Response(True, data=b"None")),
        (upper, Response(True, data=b"HELLO")),
    ],
)
async def test_one_reply_for_all(reply: Any, response: Response) -> None:
    handler = RecordingHandler(reply)
    expected = [
        Response(response.success, f"m-{number}", "t-1", response.data, response.error) for number in range(2)
    ]
    assert await answers(handler, 2) == expected
    assert [message.id for message in handler.messages] == ["m-0", "m-1"]


async def test_a_reply_for_each(caplog: pytest.LogCaptureFixture) -> None:
    handler = RecordingHandler([b"first", HandlerError("second"), None])
    told = [(one.success, one.data, one.error) for one in await answers(handler, 4)]
    assert told[:3] == [(True, b"first", ""), (False, b"", "second"), (True, b"", "")]
    assert told[3] == (False, b"", "internal error")
    assert "no reply was told for message 4" in caplog.text


def test_waiting_for_messages_from_another_thread() -> None:
    handler = RecordingHandler()
    with serve_in_thread(handler) as server:
        caller = threading.Thread(target=ask, args=(server.url,))
        caller.start()
        assert handler.wait() == [HELLO]
        caller.join()
        with pytest.raises(TimeoutError, match="1 of 2 messages arrived within 0.01 s"):
            handler.wait(2, timeout=0.01)


async def test_waiting_for_messages_in_a_loop() -> None:
    handler = RecordingHandler()
    waiting = asyncio.create_task(handler.wait_async(2))
    await asyncio.sleep(0)
    await answers(handler, 2)
    assert [message.id for message in await waiting] == ["m-0", "m-1"]
    assert len(await handler.wait_async(2)) == 2
    with pytest.raises(TimeoutError, match="2 of 3 messages arrived within 0.01 s"):
        await handler.wait_async(3, timeout=0.01)


async def test_waiting_in_a_loop_for_a_server_in_a_thread(sage_server: Any) -> None:
    async with Client(sage_server.url) as client:
        waiting = asyncio.create_task(sage_server.handler.wait_async(1))
        await client.send(HELLO)
        assert await waiting == [HELLO]


# ── MemoryTransport ────────────────────────────────────────────────────────────────────


async def test_memory_answers_as_a_server_does() -> None:
    """The same script against both; whatever differs is a bug of one."""
    replies = [
        b"data",
        Response(True, "", "", b"x"),
        Response(True, "other", "else"),
        Response(True, error="text"),
        HandlerError(""),
        HandlerError("no"),
        KeyError("secret"),
        3,
        b"x" * 500,
    ]
    script = [
        *(HELLO.replace(id=f"m-{number}") for number in range(len(replies))),
        SecureMessage(payload=b"", did="", id="m-a", task_id="t"),
        SecureMessage(payload=b"", did="did:x", id="m-b"),
    ]

    async def run(transport: MessageTransport) -> list[Response | type[BaseException]]:
        outcomes: list[Response | type[BaseException]] = []
        for message in script:
            try:
                outcomes.append(await transport.send(message, timeout=30))
            except ReadTimeoutError as error:
                outcomes.append(type(error))
        await transport.close()
        return outcomes

    # A reply to another id never reaches a WebSocket caller.
    replies[2] = Response(True, "", "else")
    in_memory = await run(MemoryTransport(RecordingHandler(replies), max_message_size=400))
    async with serve(RecordingHandler(replies), max_message_size=400) as server:
        by_socket = await run(Client(f"ws://127.0.0.1:{server.port}/ws", encoding="plain"))
    assert in_memory == by_socket
    assert in_memory[6] == Response(False, "m-6", "t-1", b"", "internal error")
    assert in_memory[-1] == Response(False, "m-b", "", b"", "payload is required")


async def test_memory_is_a_message_transport() -> None:
    assert isinstance(MemoryTransport(upper), MessageTransport)


async def test_memory_joins_the_parts_of_an_async_generator() -> None:
    async def parts(message: SecureMessage) -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with MemoryTransport(parts) as transport:
        assert (await transport.send(HELLO)).data == b"one two"


async def test_memory_tells_the_handler_who_calls() -> None:
    handler = RecordingHandler()
    async with MemoryTransport(handler, identity="agent-7") as transport:
        await transport.send(HELLO)
    (call,) = handler.calls
    assert isinstance(call, DetachedCall)
    assert (call.identity, call.connection, call.deadline) == ("agent-7", None, None)


@pytest.mark.parametrize(("own", "given"), [({"read_timeout": 0.01}, {}), ({}, {"timeout": 0.01})])
async def test_memory_times_out_and_the_handler_runs_on(own: dict[str, Any], given: dict[str, Any]) -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def slow(message: SecureMessage) -> None:
        await go_on.wait()
        done.set()

    async with MemoryTransport(slow, **own) as transport:
        with pytest.raises(ReadTimeoutError) as caught:
            await transport.send(HELLO, **given)
        assert caught.value.message_id == "m-1"
        assert transport.pending == 0
        go_on.set()
        await done.wait()


async def test_memory_refuses_a_second_message_with_an_id_in_flight() -> None:
    go_on = asyncio.Event()

    async def wait(message: SecureMessage) -> bytes:
        await go_on.wait()
        return b"first"

    handler = RecordingHandler(wait)
    async with MemoryTransport(handler) as transport:
        first = asyncio.create_task(transport.send(HELLO))
        await handler.wait_async()
        assert transport.pending == 1
        with pytest.raises(DuplicateIdError, match="a message with id 'm-1' is in flight") as caught:
            await transport.send(HELLO)
        assert caught.value.message_id == "m-1"
        go_on.set()
        assert (await first).data == b"first"
        assert (await transport.send(HELLO)).data == b"first"


async def test_memory_refuses_a_message_over_the_limit() -> None:
    handler = RecordingHandler()
    async with MemoryTransport(handler, max_message_size=50) as transport:
        with pytest.raises(MessageTooBigError, match=r"message of \d+ bytes is over max_message_size 50"):
            await transport.send(HELLO)
    assert handler.messages == []


async def test_closing_memory_ends_calls_and_handlers() -> None:
    cancelled = asyncio.Event()

    async def never(message: SecureMessage) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    handler = RecordingHandler(never)
    transport = MemoryTransport(handler)
    call = asyncio.create_task(transport.send(HELLO))
    await handler.wait_async()
    await transport.close()
    await transport.close()
    assert cancelled.is_set()
    with pytest.raises(ConnectionLostError) as caught:
        await call
    assert (caught.value.code, caught.value.message_id) == (1000, "m-1")
    with pytest.raises(ClosedError) as refused:
        await transport.send(HELLO)
    assert refused.value.message_id == "m-1"


async def test_closing_memory_does_not_wait_for_a_handler_that_ignores_its_cancellation() -> None:
    release, cancelled = asyncio.Event(), asyncio.Event()

    async def stubborn(message: SecureMessage) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled.set()

    handler = RecordingHandler(stubborn)
    transport = MemoryTransport(handler)
    call = asyncio.create_task(transport.send(HELLO))
    await handler.wait_async()
    closing = asyncio.create_task(transport.close())
    try:
        done, _ = await asyncio.wait({closing}, timeout=10)
        assert done == {closing}
        assert cancelled.is_set()
        with pytest.raises(ConnectionLostError):
            await call
    finally:
        release.set()
        await closing


async def test_a_handler_in_memory_may_close_its_own_transport() -> None:
    closed = asyncio.Event()

    async def closes(message: SecureMessage) -> None:
        await transport.close()
        closed.set()

    transport = MemoryTransport(closes)
    with pytest.raises(ConnectionLostError):
        await transport.send(HELLO)
    async with asyncio.timeout(10):
        await closed.wait()


async def test_a_cancelled_send_in_memory_is_forgotten() -> None:
    go_on = asyncio.Event()

    async def slow(message: SecureMessage) -> None:
        await go_on.wait()

    handler = RecordingHandler(slow)
    async with MemoryTransport(handler) as transport:
        call = asyncio.create_task(transport.send(HELLO))
        await handler.wait_async()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert transport.pending == 0
        go_on.set()
        assert (await transport.send(HELLO)).success


def test_memory_belongs_to_one_loop() -> None:
    transport = MemoryTransport(upper)
    assert asyncio.run(transport.send(HELLO)).success
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        asyncio.run(transport.send(HELLO))


def test_memory_checks_its_options() -> None:
    with pytest.raises(ValueError, match="read_timeout"):
        MemoryTransport(upper, read_timeout=0)
    with pytest.raises(TypeError, match="handler must be callable"):
        MemoryTransport(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(MemoryTransport(upper).send(HELLO, timeout=-1))
