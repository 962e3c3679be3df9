"""The doors of a server, a table each: Origin, path, authorize, max_connections, health; and their order."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from tests.integration.endings import aborts, breaks_a_rule, hangs_up, is_closed, says_goodbye

from sage_ws import Client, DialError, RefusedError, SecureMessage, Server, connect, serve
from sage_ws.aio.accepting import ServerOpening
from sage_ws.aio.head import RequestHead
from sage_ws.aio.opening import HeadReader

GOOD, EVIL = "https://good.example", "https://evil.example"
HOST = "agent.example:8080"


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(one: SecureMessage) -> bytes:
    return one.payload


async def refusal(url: str, **options: Any) -> DialError:
    """What a client of ours makes of a refusal."""
    client = Client(url, **options)
    with pytest.raises(DialError) as raised:
        await asyncio.wait_for(client.connect(), 10)
    await client.close()
    return raised.value


# ── Origin ────────────────────────────────────────────────────────────────────────────
# the list, then Origin and Host as sent, and whether they pass
LIST = [GOOD, "http://localhost:3000"]
ORIGINS: list[tuple[list[str | None] | None, str | None, str, bool]] = [
    # no list: absent passes, present must be the host that the request went to
    (None, None, HOST, True),
    (None, "http://agent.example:8080", HOST, True),
    (None, "https://agent.example:8080", HOST, True),  # a proxy before us may have ended TLS
    (None, "http://AGENT.EXAMPLE:8080", HOST, True),
    (None, "http://agent.example", "agent.example", True),
    (None, "http://agent.example:80", "agent.example", True),
    (None, "https://agent.example", "agent.example:443", True),
    (None, "http://agent.example", HOST, False),
    (None, "http://agent.example:8081", HOST, False),
    (None, "https://agent.example:443", "agent.example:80", False),
    (None, "http://agent.example:8080.evil.example", HOST, False),
    (None, "http://agent.example:8080@evil.example", HOST, False),
    (None, EVIL, HOST, False),
    (None, "null", HOST, False),
    (None, "null", "null", False),
    # a list: scheme, host and port alike, and nothing of the host
    (LIST, GOOD, HOST, True),
    (LIST, "https://good.example:443", HOST, True),
    (LIST, "https://GOOD.example", HOST, True),
    (LIST, "http://localhost:3000", HOST, True),
    (LIST, "http://good.example", HOST, False),
    (LIST, "https://good.example:8443", HOST, False),
    (LIST, "https://good.example:80", HOST, False),
    (LIST, "https://www.good.example", HOST, False),
    (LIST, "https://good.example.", HOST, False),
    (LIST, "https://good.example/", HOST, False),
    (LIST, "http://localhost", HOST, False),
    (LIST, "http://127.0.0.1:3000", HOST, False),
    (LIST, "http://agent.example:8080", HOST, False),
    (LIST, "null", HOST, False),
    (LIST, None, HOST, False),
    ([*LIST, None], None, HOST, True),
    ([*LIST, None], "null", HOST, False),
    ([*LIST, None], EVIL, HOST, False),
    ([None], "http://agent.example:8080", HOST, False),
    ([], None, HOST, False),
    ([], GOOD, HOST, False),
]


@pytest.mark.parametrize(("origins", "origin", "host", "passes"), ORIGINS)
async def test_an_origin_passes_or_is_refused_before_anything_else_happens(
    raw_client: Any,
    opening_request: Any,
    origins: list[str | None] | None,
    origin: str | None,
    host: str,
    passes: bool,
) -> None:
    asked: list[str | None] = []

    async def authorize(request: Any) -> None:
        asked.append(request.origin)

    async with serve(echo, origins=origins, authorize=authorize) as server:
        async with raw_client(server.port, handshake=False) as peer:
            peer.write(opening_request(headers={"Host": host, "Origin": origin or ""}))
            line = await peer.reader.readline()
            if passes:
                assert line.startswith(b"HTTP/1.1 101 ")
                assert asked == [origin]
                assert [one.request.origin for one in server.connections] == [origin]
            else:
                assert line.startswith(b"HTTP/1.1 403 ")
                assert b"\r\n\r\n" in await peer.read_end()
                assert (asked, server.stats()["accepted"], server.stats()["refused"]) == ([], 0, 1)


# ── path ──────────────────────────────────────────────────────────────────────────────
# the server's path, the request target as sent, the status, and the path that a handler sees
PATHS: list[tuple[str | None, str, int, str | None]] = [
    (None, "/", 101, "/"),
    (None, "/a/b?c=d&e", 101, "/a/b?c=d&e"),
    (None, "/caf%C3%A9%2F?x=%20", 101, "/caf%C3%A9%2F?x=%20"),
    (None, "//ws", 101, "//ws"),
    ("/ws", "/ws", 101, "/ws"),
    ("/ws", "/ws?token=a%2Fb&x", 101, "/ws?token=a%2Fb&x"),
    ("/ws", "/ws?", 101, "/ws?"),
    ("/ws", "http://agent.example/ws", 101, "/ws"),  # a whole URL: RFC 6455 §4.2.1, (1)
    ("/ws", "HTTPS://agent.example:443/ws?x=1", 101, "/ws?x=1"),
    ("/", "http://agent.example", 101, "/"),
    ("/", "http://agent.example?x=1", 101, "/?x=1"),
    ("/ws", "http://agent.example/other", 404, None),
    ("/ws", "/", 404, None),
    ("/ws", "/ws/", 404, None),
    ("/ws", "/WS", 404, None),
    ("/ws", "/wsx", 404, None),
    ("/ws", "//ws", 404, None),
    ("/ws", "/ws%3Fx", 404, None),
    ("/ws", "/%77s", 404, None),  # compared as sent: nobody decodes it behind our back
    ("/ws", "/a/../ws", 404, None),
    ("/ws", "/x?/ws", 404, None),
    ("/a%20b", "/a%20b", 101, "/a%20b"),
    ("/a%20b", "/a+b", 404, None),
    (None, "ws", 400, None),
    (None, "*", 400, None),
    (None, "agent.example:80", 400, None),
    (None, "?x=1", 400, None),
    (None, "ftp://agent.example/ws", 400, None),
]


@pytest.mark.parametrize(("path", "target", "status", "seen"), PATHS)
async def test_a_path_is_served_as_sent_or_unknown(
    raw_client: Any, opening_request: Any, path: str | None, target: str, status: int, seen: str | None
) -> None:
    async with serve(echo, path=path) as server:
        async with raw_client(server.port, handshake=False) as peer:
            peer.write(opening_request(target))
            assert (await peer.reader.readline()).startswith(b"HTTP/1.1 %d " % status)
            paths = [one.request.path for one in server.connections]
            assert paths == ([] if seen is None else [seen])


# ── authorize ─────────────────────────────────────────────────────────────────────────
class TestAuthorize:
    @pytest.mark.parametrize("text", ["", "come back with a token"])
    async def test_every_status_that_it_refuses_with_is_the_clients(self, text: str) -> None:
        async def authorize(request: Any) -> str:
            raise RefusedError(int(request.headers["X-Status"]), text)

        async with serve(echo, authorize=authorize) as server:
            url = f"ws://127.0.0.1:{server.port}"
            statuses = {int(one) for one in HTTPStatus if one >= 400} | {400, 420, 499, 599}
            for status in sorted(statuses):
                error = await refusal(url, headers={"X-Status": str(status)})
                phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"
                assert error.status == status
                assert str(error) == f"the server answered HTTP {status}: {(text or phrase)!a}"
            assert server.stats()["refused"] == len(statuses)
            assert server.stats()["accepted"] == 0

    async def test_its_text_is_shown_escaped_and_cut(self) -> None:
        async def authorize(request: Any) -> str:
            raise RefusedError(403, "\x1b[31mé\r\n" + "x" * 5000)

        async with serve(echo, authorize=authorize) as server:
            error = await refusal(f"ws://127.0.0.1:{server.port}")
        assert str(error).startswith(r"the server answered HTTP 403: '\x1b[31m\xe9\r\nxxx")
        assert str(error).isprintable()
        assert len(str(error)) < 400

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(lambda: RuntimeError("the database is down"), id="error"),
            pytest.param(lambda: TimeoutError(), id="timeout"),
            pytest.param(lambda: DialError("no way to the issuer", status=401), id="our-own-error"),
            pytest.param(lambda: ExceptionGroup("two", [ValueError("1"), ValueError("2")]), id="group"),
        ],
    )
    async def test_what_it_raises_is_logged_without_the_token_and_answered_500(
        self, caplog: pytest.LogCaptureFixture, fault: Callable[[], Exception]
    ) -> None:
        caplog.set_level(logging.DEBUG)

        async def authorize(request: Any) -> str:
            token = request.headers["Authorization"].partition(" ")[2]
            assert token == "canary"
            logging.getLogger("user").warning("about to fail for %r", request)
            raise fault()

        async with serve(echo, authorize=authorize) as server:
            error = await refusal(
                f"ws://127.0.0.1:{server.port}/ws",
                headers={"Authorization": "Bearer canary", "Cookie": "session=canary"},
            )
            assert str(error) == "the server answered HTTP 500: 'internal error'"
        (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert (record.name, record.getMessage()) == ("sage_ws.server", "authorize failed")
        assert record.exc_info is not None
        assert "ReceivedRequest(path='/ws'" in caplog.text
        assert "canary" not in caplog.text

    @pytest.mark.parametrize("refuses", [False, True])
    @pytest.mark.parametrize("ending", ["out of time", "gone"])
    async def test_one_that_ignores_its_cancellation_lets_nobody_in(
        self,
        raw_client: Any,
        opening_request: Any,
        eventually: Any,
        growing: Any,
        caplog: pytest.LogCaptureFixture,
        ending: str,
        refuses: bool,
    ) -> None:
        begun, returned = asyncio.Event(), asyncio.Event()

        async def authorize(request: Any) -> str:
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                returned.set()
            if refuses:
                raise RefusedError(401)
            return "alice"

        for seconds in growing(0.05):
            timeout = seconds if ending == "out of time" else None
            async with serve(echo, authorize=authorize, open_timeout=timeout) as server:
                async with raw_client(server.port, handshake=False) as peer:
                    peer.write(opening_request())
                    if ending == "out of time":
                        assert (await peer.read_end()).startswith(b"HTTP/1.1 408 ")
                        if not begun.is_set():
                            continue
                    else:
                        await begun.wait()
                await asyncio.wait_for(returned.wait(), 20)
                await eventually(lambda here=server: not here.openings)
                assert (server.stats()["accepted"], server.connection_count) == (0, 0)
                assert server.stats()["refused"] == (1 if ending == "out of time" else 0)
                break
        assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []

    async def test_a_slow_one_holds_up_nobody_else(self, eventually: Any) -> None:
        go, waiting = asyncio.Event(), 0

        async def authorize(request: Any) -> str | None:
            nonlocal waiting
            if request.path == "/slow":
                waiting += 1
                await go.wait()
            return request.path  # type: ignore[no-any-return]

        async with serve(echo, authorize=authorize) as server:
            url = f"ws://127.0.0.1:{server.port}"
            slow = [Client(f"{url}/slow") for _ in range(20)]
            dials = [asyncio.create_task(one.connect()) for one in slow]
            await eventually(lambda: waiting == 20)
            async with connect(f"{url}/fast") as client:
                assert (await client.send(message())).success
                assert [one.identity for one in server.connections] == ["/fast"]
                go.set()
                await asyncio.gather(*dials)
                assert [one.identity for one in server.connections] == ["/fast", *["/slow"] * 20]
            for one in slow:
                await one.close()


# ── what is kept ──────────────────────────────────────────────────────────────────────
def openings_left() -> list[object]:
    """What opening handshakes are made of, as far as it is still in memory."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in {ServerOpening, HeadReader, RequestHead}]


class TestWhatIsKept:
    @pytest.mark.parametrize("asked", [False, True])
    async def test_of_the_opening_handshake_only_the_request_is(
        self, raw_client: Any, eventually: Any, asked: bool
    ) -> None:
        async def authorize(request: Any) -> str:
            return request.headers["X-Token"]  # type: ignore[no-any-return]

        async with serve(echo, authorize=authorize if asked else None) as server:
            async with raw_client(server.port, headers={"X-Token": "alice"}):
                await eventually(lambda: server.connections and not openings_left())
                (connection,) = server.connections
                assert connection.identity == ("alice" if asked else None)
                assert connection.request.headers["x-token"] == "alice"

    async def test_headers_that_authorize_has_read_are_read_anew(self, raw_client: Any) -> None:
        seen: list[Any] = []

        async def authorize(request: Any) -> None:
            seen.extend([request, request.headers])

        async with serve(echo, authorize=authorize) as server:
            async with raw_client(server.port, headers={"X-A": "b", "Cookie": "c=d"}):
                request, headers = seen
                (connection,) = server.connections
                assert connection.request is request
                assert request.headers is not headers
                assert request.headers == headers
                assert request.headers is request.headers


# ── max_connections ───────────────────────────────────────────────────────────────────
class TestMaxConnections:
    @pytest.mark.parametrize("end", [says_goodbye, hangs_up, aborts, breaks_a_rule, is_closed])
    async def test_its_place_is_free_however_a_connection_ends(
        self, raw_client: Any, end: Callable[[Any, Server], Awaitable[None]]
    ) -> None:
        async with serve(echo, max_connections=1) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with raw_client(server.port) as peer:
                error = await refusal(url)
                assert str(error) == "the server answered HTTP 503: 'the server has its 1 connections'"
                assert error.status == 503
                waiting = Client(url, wait_for_ready=True, backoff=lambda attempt: 0.005)
                call = asyncio.create_task(waiting.send(message(b"at last")))
                await end(peer, server)
                assert (await asyncio.wait_for(call, 20)).data == b"at last"
                assert server.connection_count == 1
                await waiting.close()

    async def test_it_is_exact(self) -> None:
        async with serve(echo, max_connections=20) as server:
            clients = [Client(f"ws://127.0.0.1:{server.port}") for _ in range(30)]
            outcomes = await asyncio.gather(*(one.connect() for one in clients), return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, DialError) and one.status == 503]
            assert (outcomes.count(None), len(refused), server.connection_count) == (20, 10, 20)
            for one in clients:
                await one.close()

    async def test_who_is_not_in_takes_no_place(
        self, raw_client: Any, http_status: Any, opening_request: Any, eventually: Any
    ) -> None:
        async with serve(echo, max_connections=1) as server:
            async with raw_client(server.port, handshake=False) as slow:
                slow.write(b"GET /")
                assert (await http_status(server.port, opening_request("/", {"Origin": EVIL})))[0] == 403
                await eventually(lambda: server.openings)
                async with raw_client(server.port):
                    assert server.connection_count == 1


# ── all of them ───────────────────────────────────────────────────────────────────────
class TestOrder:
    @pytest.mark.parametrize(
        ("request_line", "headers", "status"),
        [
            ("POST /other HTTP/1.1", {}, 405),
            ("GET /other HTTP/1.0", {}, 400),
            ("GET /other HTTP/1.1", {"Upgrade": ""}, 426),
            ("GET /other HTTP/1.1", {"Origin": EVIL}, 404),
            ("GET /ws HTTP/1.1", {"Origin": EVIL}, 403),
            ("GET /ws HTTP/1.1", {"Origin": GOOD}, 503),
            ("GET /healthz HTTP/1.1", {"Origin": EVIL, "Upgrade": ""}, 200),
            ("GET /healthz HTTP/1.1", {"Origin": EVIL}, 404),
        ],
    )
    async def test_the_first_door_that_is_shut_answers_and_authorize_is_the_last(
        self,
        raw_client: Any,
        http_status: Any,
        opening_request: Any,
        request_line: str,
        headers: dict[str, str],
        status: int,
    ) -> None:
        asked: list[str] = []

        async def authorize(request: Any) -> None:
            asked.append(request.path)

        options: dict[str, Any] = {"origins": [GOOD], "authorize": authorize, "max_connections": 1}
        async with serve(echo, path="/ws", **options) as server:
            async with raw_client(server.port, headers={"Origin": GOOD}):
                request = opening_request("/", headers).replace(b"GET / HTTP/1.1", request_line.encode())
                assert (await http_status(server.port, request))[0] == status
                assert asked == ["/ws"]

    async def test_while_the_server_drains_nobody_comes_in(self, eventually: Any) -> None:
        go = asyncio.Event()

        async def slow(one: SecureMessage) -> None:
            await go.wait()

        async with serve(slow) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url) as client:
                call = asyncio.create_task(client.send(message()))
                await eventually(lambda: server.stats()["pending"])
                draining = asyncio.create_task(server.drain())
                await asyncio.sleep(0)
                error = await refusal(url)
                assert str(error) == "the server answered HTTP 503: 'the server is draining'"
                go.set()
                assert (await call).success
                await draining
            gone = await refusal(url)
            assert gone.status is None


class TestHealth:
    @pytest.mark.parametrize(
        ("line", "status"),
        [
            ("GET /healthz HTTP/1.1", 200),
            ("GET /healthz?verbose=1 HTTP/1.1", 200),
            ("GET http://agent.example/healthz HTTP/1.1", 200),
            ("GET /healthz/ HTTP/1.1", 426),
            ("GET /health HTTP/1.1", 426),
            ("HEAD /healthz HTTP/1.1", 405),
            ("POST /healthz HTTP/1.1", 405),
            ("GET /healthz HTTP/1.0", 400),
        ],
    )
    async def test_it_is_a_plain_get_of_one_path(self, http_status: Any, line: str, status: int) -> None:
        async with serve(echo) as server:
            request = f"{line}\r\nHost: agent.example\r\n\r\n".encode()
            assert (await http_status(server.port, request))[0] == status
            assert server.stats()["refused"] == (0 if status == 200 else 1)
