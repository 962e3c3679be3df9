"""SAGE over HTTP on real sockets: ours with ours, ours with bytes that Go would send, and what goes wrong.

Over 500 lines: the second transport has its client and its server in one place, as its rules have.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

import sage_ws
from sage_ws import (
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DialError,
    DialTimeoutError,
    HandlerError,
    MessageTooBigError,
    QueueTimeoutError,
    ReadTimeoutError,
    RefusedError,
    Response,
    SecureMessage,
)
from sage_ws.testing import RecordingHandler
from sage_ws.transports.http import HTTPTransport, http_app

HELLO = SecureMessage(payload=b"hello", did="did:sage:me", id="m-1", task_id="t-1")
HELLO_BODY = {"id": "m-1", "task_id": "t-1", "payload": "aGVsbG8=", "did": "did:sage:me", "signature": None}

Serve = Callable[..., Awaitable[str]]
ServeBytes = Callable[..., Awaitable[str]]


async def upper(message: SecureMessage) -> bytes:
    return message.payload.upper()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: AsyncExitStack) -> Serve:
    """Serve a handler, or an aiohttp application; returns the base URL."""

    async def serve(handler: Any, *, tls: ssl.SSLContext | None = None, **options: Any) -> str:
        app = handler if isinstance(handler, web.Application) else http_app(handler, **options)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme, name = ("https", "localhost") if tls else ("http", "127.0.0.1")
        return f"{scheme}://{name}:{runner.addresses[0][1]}"

    return serve


@pytest.fixture
def serve_bytes(stack: AsyncExitStack) -> ServeBytes:
    """A server that answers each request with these bytes and hangs up; ``None`` never answers."""

    async def serve_bytes(answer: bytes | None) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                if answer is None:
                    await reader.read()
                else:
                    writer.write(answer)
                    await writer.drain()
            except asyncio.IncompleteReadError:
                pass  # whoever dialled had no time left to ask
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    return serve_bytes


@pytest.fixture
def transport(stack: AsyncExitStack) -> Callable[..., HTTPTransport]:
    def transport(url: str, **options: Any) -> HTTPTransport:
        one = HTTPTransport(url, **options)
        stack.push_async_callback(one.close)
        return one

    return transport


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(
    session: aiohttp.ClientSession, url: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(f"{url}/messages", data=data, headers=headers) as response:
        return response.status, await response.text()


def answer_with(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


# ── ours with ours ─────────────────────────────────────────────────────────────────────


async def test_a_message_is_answered(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    one = transport(await serve(upper))
    assert isinstance(one, sage_ws.MessageTransport)
    assert await one.send(HELLO) == Response(True, "m-1", "t-1", b"HELLO")


async def test_every_field_arrives(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    handler = RecordingHandler()
    message = SecureMessage(
        b"\x00\xff",
        "did:sage:mé",
        "m\n1",
        b"sig",
        "c",
        "t",
        {"a": " x ", "b ä": "ß", "": "", "A": "y"},
        "agent",
    )
    response = await transport(await serve(handler)).send(message)
    assert response == Response(True, "m\n1", "t")
    assert handler.messages == [message]
    assert handler.calls[0].connection is None


async def test_many_messages_share_few_connections(
    serve: Serve, transport: Callable[..., HTTPTransport]
) -> None:
    one = transport(await serve(upper), max_connections=3)
    messages = [SecureMessage(payload=b"m%d" % number, did="did:x") for number in range(50)]
    responses = await asyncio.gather(*(one.send(message) for message in messages))
    assert [response.data for response in responses] == [b"M%d" % number for number in range(50)]


async def test_the_base_may_have_a_path(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    outer = web.Application()
    outer.add_subapp("/agents/", http_app(upper))
    url = await serve(outer)
    assert (await transport(f"{url}/agents/").send(HELLO)).data == b"HELLO"


async def test_https(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    url = await serve(upper, tls=theirs)
    assert (await transport(url, ssl=ours).send(HELLO)).data == b"HELLO"
    with pytest.raises(DialError, match="certificate verify failed"):
        await transport(url).send(HELLO)


async def test_a_handlers_errors(
    serve: Serve, transport: Callable[..., HTTPTransport], caplog: pytest.LogCaptureFixture
) -> None:
    one = transport(
        await serve(RecordingHandler([HandlerError("no"), KeyError("secret"), Response(error="bad")]))
    )
    assert await one.send(HELLO) == Response(False, "m-1", "t-1", b"", "no")
    assert await one.send(HELLO) == Response(False, "m-1", "t-1", b"", "internal error")
    assert "secret" in caplog.text
    assert await one.send(HELLO) == Response(False, "m-1", "t-1", b"", "bad")


async def test_the_validation_texts(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    handler = RecordingHandler()
    url = await serve(handler)
    one = transport(url)
    no_did = SecureMessage(payload=b"", did="", id="m", task_id="t")
    assert await one.send(no_did) == Response(False, "m", "t", b"", "DID is required")
    no_payload = SecureMessage(payload=b"", did="did:x", id="m", task_id="t")
    assert await one.send(no_payload) == Response(False, "m", "t", b"", "payload is required")
    assert handler.messages == []


async def test_headers_of_ones_own(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    tokens = iter(["Bearer canary-1", "Bearer canary-2"])
    seen = []

    async def authorize(request: sage_ws.UpgradeRequest) -> str:
        seen.append(request.headers["authorization"])
        return "agent"

    async def fresh() -> dict[str, str]:
        return {"Authorization": next(tokens)}

    url = await serve(upper, authorize=authorize)
    one = transport(url, headers=fresh)
    await one.send(HELLO)
    await one.send(HELLO)
    await transport(url, headers=[("Authorization", "fixed")]).send(HELLO)
    await transport(url, headers=lambda: {"Authorization": "made"}).send(HELLO)
    once = transport(url, headers=iter([("Authorization", "iterated")]))
    await once.send(HELLO)
    await once.send(HELLO)
    assert seen == ["Bearer canary-1", "Bearer canary-2", "fixed", "made", "iterated", "iterated"]


async def test_headers_that_fail_are_a_dial_error(
    transport: Callable[..., HTTPTransport], closed_port: int
) -> None:
    def broken() -> dict[str, str]:
        raise LookupError("no token")

    one = transport(f"http://127.0.0.1:{closed_port}", headers=broken)
    with pytest.raises(DialError, match="headers= failed: LookupError: no token") as raised:
        await one.send(HELLO)
    assert raised.value.message_id == HELLO.id
    assert isinstance(raised.value.__cause__, LookupError)


# ── the server ─────────────────────────────────────────────────────────────────────────


async def test_what_a_go_client_posts_is_answered_as_go_would(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    headers = {
        "Content-Type": "application/json",
        "X-Sage-Did": "did:sage:me",
        "X-Sage-Message-Id": "m-1",
        "X-Sage-Task-Id": "t-1",
        "X-Sage-Context-Id": "",
        "X-Sage-Meta-Action": "run",
        "X-Sage-Meta-Long": "x" * 10_000,
        "X-Sage-Other": "whatever",
    }
    body = {**HELLO_BODY, "metadata": {"action": " run\t", "ACTION": "stop", "long": "x" * 10_000}}
    url = await serve(upper)
    assert await post(session, url, body, headers) == (
        200,
        '{"success":true,"message_id":"m-1","task_id":"t-1","data":"SEVMTE8="}\n',
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-SAGE-DID", "did:sage:other"),
        ("X-SAGE-Message-ID", "m-2"),
        ("X-SAGE-Context-ID", "c"),
        ("X-SAGE-Task-ID", "t-2"),
        ("X-SAGE-Meta-Action", "stop"),
        ("X-SAGE-Meta-Absent", "x"),
    ],
)
async def test_a_header_that_contradicts_the_body_is_refused(
    serve: Serve, session: aiohttp.ClientSession, name: str, value: str
) -> None:
    handler = RecordingHandler()
    body = {**HELLO_BODY, "metadata": {"action": "run"}}
    url = await serve(handler)
    assert await post(session, url, body, {name: value}) == (400, f"header {name!r} contradicts the body")
    assert handler.messages == []


async def test_a_message_without_an_id(serve: Serve, session: aiohttp.ClientSession) -> None:
    status, text = await post(session, await serve(upper), {**HELLO_BODY, "id": ""})
    assert status == 200
    assert json.loads(text) == {"success": False, "message_id": "", "error": "message ID is required"}


async def test_bytes_that_are_no_message(serve: Serve, session: aiohttp.ClientSession) -> None:
    url = await serve(upper)
    status, text = await post(session, url, b"{")
    assert status == 200
    assert json.loads(text) == {"success": False, "message_id": "", "error": "not JSON: ends early at byte 1"}
    status, text = await post(session, url, {**HELLO_BODY, "did": 5})
    assert json.loads(text)["error"] == "did: expected a string, found number"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_other_methods_are_refused(serve: Serve, session: aiohttp.ClientSession, method: str) -> None:
    async with session.request(method, f"{await serve(upper)}/messages") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


async def test_other_paths_are_unknown(serve: Serve, session: aiohttp.ClientSession) -> None:
    url = await serve(upper, path="/in")
    assert (await post(session, url, HELLO_BODY))[0] == 404
    async with session.post(f"{url}/in", json=HELLO_BODY) as response:
        assert response.status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(
    serve: Serve, session: aiohttp.ClientSession, chunked: bool
) -> None:
    body = json.dumps(HELLO_BODY).encode()

    async def chunks(extra: bytes) -> AsyncIterator[bytes]:
        yield body
        yield extra

    url = await serve(upper, max_message_size=len(body) + 1)
    for extra, status in ((b"\n", 200), (b"\n\n", 413)):
        data = chunks(extra) if chunked else body + extra
        async with session.post(f"{url}/messages", data=data) as response:
            assert response.status == status
            text = await response.text()
    assert text == f"message over {len(body) + 1} bytes"


async def test_without_a_limit_large_bodies_pass(
    serve: Serve, transport: Callable[..., HTTPTransport]
) -> None:
    payload = os.urandom(3_000_000)
    handler = RecordingHandler(lambda message: message.payload)
    one = transport(await serve(handler, max_message_size=None), max_message_size=None)
    assert (await one.send(SecureMessage(payload=payload, did="did:x"))).data == payload


async def test_an_answer_over_the_limit_is_replaced_by_a_failure(
    serve: Serve, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = await post(
        session, await serve(RecordingHandler(b"x" * 1000), max_message_size=500), HELLO_BODY
    )
    error = "response of 1398 bytes is over max_message_size 500"
    assert json.loads(text) == {"success": False, "message_id": "m-1", "task_id": "t-1", "error": error}
    assert error in caplog.text


async def test_a_compressed_body_is_not_unpacked(serve: Serve, session: aiohttp.ClientSession) -> None:
    async with session.post(f"{await serve(upper)}/messages", json=HELLO_BODY, compress="gzip") as response:
        assert "not UTF-8 at byte" in json.loads(await response.text())["error"]


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, None, 200),
        (None, "http://{host}", 200),
        (None, "http://evil.example", 403),
        (["https://app.example"], "https://app.example", 200),
        (["https://app.example"], "https://evil.example", 403),
        (["https://app.example"], None, 403),
        (["https://app.example", None], None, 200),
    ],
)
async def test_a_browsers_origin(
    serve: Serve,
    session: aiohttp.ClientSession,
    origins: list[str | None] | None,
    origin: str | None,
    status: int,
) -> None:
    url = await serve(upper, origins=origins)
    headers = {} if origin is None else {"Origin": origin.format(host=url.partition("://")[2])}
    assert (await post(session, url, HELLO_BODY, headers))[0] == status


async def test_authorize_proves_who_calls(serve: Serve, session: aiohttp.ClientSession) -> None:
    seen: list[Any] = []

    async def authorize(request: sage_ws.UpgradeRequest) -> str:
        seen.append((request.path, request.remote_address[0], request.origin))
        if "authorization" not in request.headers:
            raise RefusedError(401, "who are you?")
        return "agent-7"

    handler = RecordingHandler()
    url = await serve(handler, authorize=authorize)
    assert await post(session, url, HELLO_BODY) == (401, "who are you?")
    assert handler.messages == []
    assert (await post(session, url, HELLO_BODY, {"Authorization": "yes"}))[0] == 200
    assert handler.calls[0].identity == "agent-7"
    assert seen == [("/messages", "127.0.0.1", None)] * 2


@pytest.mark.parametrize(
    ("trusted", "told", "host"),
    [
        ([], ["192.0.2.1"], "127.0.0.1"),
        (["10.0.0.0/8"], ["192.0.2.1"], "127.0.0.1"),
        (["127.0.0.1"], ["192.0.2.1"], "192.0.2.1"),
        (["127.0.0.0/8"], ["198.51.100.9, 192.0.2.1", "127.0.0.5"], "192.0.2.1"),
        (["127.0.0.1"], [], "127.0.0.1"),
    ],
)
async def test_who_calls_is_told_by_trusted_proxies_alone(
    serve: Serve, session: aiohttp.ClientSession, trusted: list[str], told: list[str], host: str
) -> None:
    seen: list[str] = []

    async def authorize(request: sage_ws.UpgradeRequest) -> None:
        seen.append(request.remote_address[0])

    url = await serve(upper, authorize=authorize, trusted_proxies=trusted)
    headers = [("X-Forwarded-For", one) for one in told]
    async with session.post(f"{url}/messages", json=HELLO_BODY, headers=headers) as response:
        assert response.status == 200
    assert seen == [host]


async def test_a_broken_authorize_lets_nobody_in(
    serve: Serve, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(request: sage_ws.UpgradeRequest) -> str:
        raise KeyError("secret")

    assert await post(session, await serve(upper, authorize=authorize), HELLO_BODY) == (500, "internal error")
    assert "secret" in caplog.text


def test_the_servers_options_are_checked() -> None:
    with pytest.raises(TypeError, match="handler must be callable"):
        http_app(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_message_size must be at least 1"):
        http_app(upper, max_message_size=0)
    with pytest.raises(ValueError, match="trusted_proxies must hold addresses or networks"):
        http_app(upper, trusted_proxies=["proxy"])


# ── the client ─────────────────────────────────────────────────────────────────────────


async def test_what_the_client_posts(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(request)
        bodies.append(await request.read())
        return web.json_response({"success": True, "message_id": "", "data": "eA=="})

    app = web.Application()
    app.router.add_post("/messages", look)
    message = SecureMessage(
        b"hello",
        "did:sage:me",
        "m-1",
        b"",
        "c-1",
        "",
        {
            "action": "run",
            "not legal": "x",
            "newline": "a\nb",
            "edge": " a",
            "umlaut": "ä",
            "long": "x" * 5000,
        },
    )
    response = await transport(await serve(app)).send(message)
    assert response == Response(True, "m-1", "", b"x")
    request = seen[0]
    assert request.headers["Content-Type"] == "application/json"
    ours = {name: value for name, value in request.headers.items() if name.upper().startswith("X-SAGE")}
    assert ours == {
        "X-SAGE-DID": "did:sage:me",
        "X-SAGE-Message-ID": "m-1",
        "X-SAGE-Context-ID": "c-1",
        "X-SAGE-Meta-action": "run",
    }
    assert json.loads(bodies[0])["metadata"] == dict(message.metadata)


async def test_metadata_in_bulk_fits_into_another_servers_header_limit(
    serve: Serve, transport: Callable[..., HTTPTransport]
) -> None:
    handler = RecordingHandler()
    message = SecureMessage(payload=b"x", did="did:x", metadata={f"k{number}": "v" for number in range(500)})
    outer = web.Application()  # with aiohttp's own limit of 128 headers, which a subapplication cannot lift
    outer.add_subapp("/agents/", http_app(handler))
    response = await transport(f"{await serve(outer)}/agents").send(message)
    assert response.success
    assert len(handler.messages[0].metadata) == 500


async def test_any_status_but_200_is_a_failure_with_go_s_text(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport]
) -> None:
    url = await serve_bytes(answer_with(b"out of \xff order\n", "503 Service Unavailable"))
    assert await transport(url).send(HELLO) == Response(
        False, "m-1", "t-1", b"", "HTTP 503: out of \N{REPLACEMENT CHARACTER} order\n"
    )


async def test_redirects_are_not_followed(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async def elsewhere(request: web.Request) -> web.Response:
        raise AssertionError("followed")

    app = web.Application()
    app.router.add_post("/messages", redirect)
    app.router.add_post("/elsewhere", elsewhere)
    response = await transport(await serve(app)).send(HELLO)
    assert response.error == "HTTP 307: 307: Temporary Redirect"


@pytest.mark.parametrize(
    ("body", "response"),
    [
        (b'{"success":true,"message_id":"other","task_id":"t-2"}', Response(True, "other", "t-2")),
        (b'{"success":true,"message_id":"m-1","error":"no"}', Response(False, "m-1", "t-1", b"", "no")),
        (b"null", Response(False, "m-1", "t-1")),
    ],
)
async def test_answers_as_go_reads_them(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport], body: bytes, response: Response
) -> None:
    assert await transport(await serve_bytes(answer_with(body))).send(HELLO) == response


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (answer_with(b"[]"), "expected an object, found array"),
        (answer_with(b""), "not JSON: ends early at byte 0"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP: "),
    ],
)
async def test_an_answer_that_cannot_be_read(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport], answer: bytes, text: str
) -> None:
    with pytest.raises(DecodeError, match=text):
        await transport(await serve_bytes(answer)).send(HELLO)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"HTTP/1.1 2"])
async def test_a_connection_lost_after_the_message_left(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport], answer: bytes
) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        await transport(await serve_bytes(answer)).send(HELLO)
    assert caught.value.message_id == "m-1"


async def test_an_answer_over_the_limit_is_cut(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport]
) -> None:
    url = await serve_bytes(answer_with(b" " * 2000))
    with pytest.raises(ConnectionLostError, match="message over 1000 bytes") as caught:
        await transport(url, max_message_size=1000).send(HELLO)
    assert caught.value.reason == "message over 1000 bytes"
    assert caught.value.message_id == "m-1"


async def test_a_message_over_the_limit_does_not_leave(transport: Callable[..., HTTPTransport]) -> None:
    text = r"message of \d+ bytes is over max_message_size 50"
    with pytest.raises(MessageTooBigError, match=text) as caught:
        await transport("http://127.0.0.1:1", max_message_size=50).send(HELLO)
    assert caught.value.message_id == "m-1"


async def test_nobody_listens(transport: Callable[..., HTTPTransport], closed_port: int) -> None:
    with pytest.raises(DialError, match="could not reach ") as caught:
        await transport(f"http://127.0.0.1:{closed_port}").send(HELLO)
    assert caught.value.message_id == "m-1"
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_name_that_nobody_has(transport: Callable[..., HTTPTransport]) -> None:
    with pytest.raises(DialError, match="could not reach "):
        await transport("http://no-such-host.invalid").send(HELLO)


@pytest.mark.parametrize("whose", ["transport", "call"])
async def test_no_answer_in_time(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport], whose: str, growing: Any
) -> None:
    url = await serve_bytes(None)
    for seconds in growing(0.05):
        one = transport(url, timeout=seconds if whose == "transport" else None)
        times = {} if whose == "transport" else {"timeout": seconds}
        with pytest.raises((ReadTimeoutError, DialTimeoutError)) as caught:
            await one.send(HELLO, **times)
        if not isinstance(caught.value, DialTimeoutError):
            break
    assert caught.value.message_id == "m-1"


@pytest.mark.parametrize("options", [{"timeout": 0.05}, {"dial_timeout": 0.05}])
async def test_no_connection_in_time(
    transport: Callable[..., HTTPTransport], stack: AsyncExitStack, options: dict[str, float]
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    # TLS that is never answered: the dial hangs with the TCP connection open.
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(DialTimeoutError) as caught:
        await transport(f"https://127.0.0.1:{port}", **options).send(HELLO)
    assert caught.value.message_id == "m-1"


async def test_no_free_connection_in_time(
    serve: Serve, transport: Callable[..., HTTPTransport], growing: Any
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: SecureMessage) -> bytes:
        arrived.set()
        await go_on.wait()
        return b"done"

    one = transport(await serve(slow), max_connections=1)
    first = asyncio.create_task(one.send(HELLO))
    await arrived.wait()
    for seconds in growing(0.05):
        with pytest.raises((QueueTimeoutError, DialTimeoutError)) as caught:
            await one.send(HELLO.replace(id="m-2"), timeout=seconds)
        assert caught.value.message_id == "m-2"
        if isinstance(caught.value, QueueTimeoutError):
            break
    go_on.set()
    assert (await first).data == b"done"
    assert (await one.send(HELLO)).data == b"done"


async def test_close_ends_calls_in_flight(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: SecureMessage) -> bytes:
        arrived.set()
        await go_on.wait()
        return b""

    one = transport(await serve(slow))
    call = asyncio.create_task(one.send(HELLO))
    await arrived.wait()
    await one.close()
    await one.close()
    with pytest.raises(ConnectionLostError, match="the connection was closed here"):
        await call
    go_on.set()
    with pytest.raises(ClosedError, match="the transport is closed") as caught:
        await one.send(HELLO)
    assert caught.value.message_id == "m-1"


async def test_close_ends_calls_that_have_not_left(
    serve: Serve, transport: Callable[..., HTTPTransport], growing: Any
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: SecureMessage) -> bytes:
        arrived.set()
        await go_on.wait()
        return b""

    one = transport(await serve(slow), max_connections=1)
    sent = asyncio.create_task(one.send(HELLO))
    await arrived.wait()
    waiting = asyncio.create_task(one.send(HELLO.replace(id="m-2")))
    for seconds in growing(0.05):  # this one begins to wait after m-2 did
        with pytest.raises((QueueTimeoutError, DialTimeoutError)) as caught:
            await one.send(HELLO.replace(id="m-3"), timeout=seconds)
        if isinstance(caught.value, QueueTimeoutError):
            break
    await one.close()
    with pytest.raises(ConnectionLostError):
        await sent
    with pytest.raises(ClosedError):
        await waiting
    go_on.set()


async def test_close_before_the_first_send() -> None:
    async with HTTPTransport("http://127.0.0.1:1") as one:
        pass
    with pytest.raises(ClosedError):
        await one.send(HELLO)


async def test_a_fork_s_transport_is_closed(
    serve: Serve, transport: Callable[..., HTTPTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = transport(await serve(upper))
    await one.send(HELLO)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ClosedError, match="before a fork"):
            await one.send(HELLO)


def test_it_belongs_to_the_loop_of_its_first_send(closed_port: int) -> None:
    one = HTTPTransport(f"http://127.0.0.1:{closed_port}")

    async def send(*, close: bool) -> None:
        try:
            await one.send(HELLO)
        finally:
            if close:
                await one.close()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        with pytest.raises(DialError):
            first.run(send(close=False))
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            second.run(send(close=False))
        with pytest.raises(DialError):
            first.run(send(close=True))


@pytest.mark.parametrize(
    "url", ["ws://host", "host:80", "http://", "http://me:canary@host", "http://host?x=1", "http://host#x"]
)
def test_a_url_that_is_no_base_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must be") as caught:
        HTTPTransport(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, "timeout must be over 0"),
        ({"dial_timeout": -1}, "dial_timeout must be over 0"),
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_message_size": 0}, "max_message_size must be at least 1"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        HTTPTransport("http://host", **options)


@pytest.mark.parametrize(
    ("headers", "error", "text"),
    [
        ({"X-A": "1\r\nX-B: 2"}, ValueError, "header X-A holds a control character"),
        ([("X-A", "\x00")], ValueError, "header X-A holds a control character"),
        ([("X-Fine", "a\tb"), ("X-A", "\x7f")], ValueError, "header X-A holds a control character"),
        ({"X-A": "\ud800"}, ValueError, "header X-A holds half of a surrogate pair"),
        ({"X-A\r\nX-B": "2"}, ValueError, r"header name 'X-A\\r\\nX-B' is not a token"),
        ({"X-A:": "1"}, ValueError, "header name 'X-A:' is not a token"),
        ({"": "1"}, ValueError, "header name '' is not a token"),
        ({"X-A": b"1"}, TypeError, "headers must be pairs of str"),
        ({1: "1"}, TypeError, "headers must be pairs of str"),
    ],
)
async def test_what_no_header_may_hold(
    transport: Callable[..., HTTPTransport], headers: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        HTTPTransport("http://host", headers=headers)
    made = transport("http://127.0.0.1:1", headers=lambda: headers)
    with pytest.raises(DialError, match=f"headers= failed: {error.__name__}: {text}"):
        await made.send(HELLO)


async def test_headers_may_hold_any_text(serve: Serve, transport: Callable[..., HTTPTransport]) -> None:
    seen: list[str] = []

    async def authorize(request: sage_ws.UpgradeRequest) -> None:
        seen.append(request.headers["X-Name"])

    one = transport(await serve(upper, authorize=authorize), headers={"X-Name": "Zoë\t€"})
    await one.send(HELLO)
    assert seen == ["Zoë\t€"]


async def test_a_senseless_timeout_is_refused(transport: Callable[..., HTTPTransport]) -> None:
    with pytest.raises(ValueError, match="timeout must be over 0"):
        await transport("http://127.0.0.1:1").send(HELLO, timeout=-1)


async def test_a_cancelled_send_is_cancelled(
    serve_bytes: ServeBytes, transport: Callable[..., HTTPTransport]
) -> None:
    one = transport(await serve_bytes(None))
    call = asyncio.create_task(one.send(HELLO))
    with pytest.raises((ReadTimeoutError, DialTimeoutError)):  # it began after the call did
        await one.send(HELLO, timeout=0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
