"""Who comes into a server and how: sockets, paths, origins, identities, limits of the opening handshake.

Over 500 lines: the arrows from accept to answer in their order, each with its cases.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    Connection,
    NotSentError,
    RefusedError,
    SecureMessage,
    Server,
    connect,
    serve,
)
from sage_ws.aio.opening import MAX_HEAD

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(one: SecureMessage) -> bytes:
    return one.payload


class TestSockets:
    async def test_a_free_port_is_told(self) -> None:
        async with serve(echo) as server:
            assert server.port > 0
            assert repr(server) == f"<sage_ws.Server 127.0.0.1:{server.port} connections=0>"
            async with connect(f"ws://127.0.0.1:{server.port}") as client:
                assert (await client.send(message(b"tcp"))).data == b"tcp"

    async def test_a_name_with_several_addresses_listens_on_each(self) -> None:
        async with serve(echo, None) as server:
            assert {one.getsockname()[1] for one in server.sockets} == {server.port}
            for one in server.sockets:
                host = "[::1]" if one.family == socket.AF_INET6 else "127.0.0.1"
                async with connect(f"ws://{host}:{server.port}") as client:
                    assert (await client.send(message())).success
            if len(server.sockets) > 1:
                assert f"[::]:{server.port}" in repr(server)

    async def test_a_free_port_that_another_address_lacks_is_asked_for_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop = asyncio.get_running_loop()
        create, asked = loop.create_server, []

        async def unlucky(make: Any, host: Any, port: int, **options: Any) -> Any:
            asked.append(port)
            if len(asked) == 2:
                raise OSError("taken on the other address")
            return await create(make, host, port, **options)

        server = Server(echo)
        monkeypatch.setattr(
            type(loop), "create_server", lambda self, *args, **options: unlucky(*args, **options)
        )
        await server.start(None)
        if len(server.sockets) > 1:
            # others on this machine may be in the way too: then it asks once more
            assert len(asked) >= 4
            assert set(asked[::2]) == {0}
            assert {one.getsockname()[1] for one in server.sockets} == {server.port} == {asked[-1]}
        await server.close()

    @pytest.mark.parametrize("unix", [False, True])
    async def test_a_start_that_is_cancelled_at_any_step_leaves_no_socket(
        self, unix: bool, tmp_path: Path, closed_port: int
    ) -> None:
        def is_left() -> bool:
            return any(tmp_path.iterdir())

        place: dict[str, Any] = {"unix": str(tmp_path / "agent.sock")} if unix else {"port": closed_port}
        for steps in range(20):
            server = Server(echo)
            start = asyncio.create_task(server.start(**place))
            for _ in range(steps):
                await asyncio.sleep(0)
            start.cancel()
            await asyncio.wait([start])
            if not start.cancelled():
                await server.close()
            await asyncio.sleep(0)  # uvloop lets go of a socket in its next round
            assert not is_left()
            async with serve(echo, **place):  # where one listens, another cannot
                pass

    async def test_a_bound_socket_is_taken(self) -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with serve(echo, sock=bound) as server:
            assert server.port == port
            async with connect(f"ws://127.0.0.1:{port}") as client:
                assert (await client.send(message())).success
        assert bound.fileno() == -1

    async def test_a_unix_socket(self, tmp_path: Path, raw_client: Any) -> None:
        place = tmp_path / "agent.sock"
        name = str(place)
        async with serve(echo, unix=name) as server:
            assert place.is_socket()
            assert f"unix:{name}" in repr(server)
            with pytest.raises(RuntimeError, match="listens on no TCP port"):
                _ = server.port
            async with raw_client(unix=name) as peer:
                peer.ask("m-1", b"unix")
                assert base64.b64decode((await peer.read_json())["data"]) == b"unix"
                (link,) = server.connections
                assert isinstance(link.request.remote_address, (str, type(None)))
        assert not place.exists()

    async def test_a_bound_unix_socket_is_taken(self, tmp_path: Path, raw_client: Any) -> None:
        name = str(tmp_path / "agent.sock")
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(name)
        async with serve(echo, sock=bound), raw_client(unix=name) as peer:
            peer.ask("m-1", b"unix")
            assert (await peer.read_json())["success"] is True

    async def test_a_taken_port_is_an_os_error_and_ends_the_lifespan(self) -> None:
        steps: list[str] = []

        class Around:
            async def __aenter__(self) -> None:
                steps.append("in")

            async def __aexit__(self, *exc: object) -> None:
                steps.append("out")

        async with serve(echo) as server:
            second = Server(echo, lifespan=lambda server: Around())
            with pytest.raises(OSError, match="."):
                await second.start("127.0.0.1", server.port)
        assert steps == ["in", "out"]

    async def test_it_starts_once(self) -> None:
        async with serve(echo) as server:
            with pytest.raises(RuntimeError, match="a server can be started once"):
                await server.start()

    async def test_a_closed_one_does_not_start(self) -> None:
        async with Server(echo) as served:
            pass
        unused = Server(echo)
        await unused.close()
        for server in (served, unused):
            with pytest.raises(RuntimeError, match="a server can be started once"):
                await server.start()
            with pytest.raises(RuntimeError, match="a server can be started once"):
                async with server:
                    pass
            assert not server.sockets

    async def test_closed_while_it_starts_it_listens_no_more(self, tmp_path: Path) -> None:
        steps: list[str] = []
        entered, go_on = asyncio.Event(), asyncio.Event()

        class Around:
            async def __aenter__(self) -> None:
                entered.set()
                await go_on.wait()
                steps.append("in")

            async def __aexit__(self, *exc: object) -> None:
                steps.append("out")

        server = Server(echo, lifespan=lambda server: Around())
        starting = asyncio.create_task(server.start(unix=str(tmp_path / "s")))
        await entered.wait()
        await server.close()
        go_on.set()
        with pytest.raises(RuntimeError, match="closed while it started"):
            await starting
        assert steps == ["in", "out"]
        assert not server.sockets
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240

    @pytest.mark.parametrize("method", ["close", "drain"])
    async def test_another_loop_cannot_end_it(self, method: str) -> None:
        async def in_another_loop() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await getattr(server, method)()

        async with serve(echo) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
            await asyncio.to_thread(asyncio.run, in_another_loop())
            assert (await client.send(message())).success

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"path": "ws"}, "path must start with a slash, not 'ws'"),
            ({"sock": "both", "unix": "x"}, "give sock= or unix=, not both"),
        ],
    )
    async def test_what_makes_no_sense_is_a_value_error(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            await Server(echo).start(**options)

    async def test_a_path_that_is_no_str_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="path must be a str or None, not int"):
            await Server(echo).start(path=5)  # type: ignore[arg-type]

    @pytest.mark.skipif(sys.platform != "linux", reason="Linux's alone")
    async def test_an_abstract_unix_socket_has_no_file_to_remove(self, raw_client: Any) -> None:
        if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
            pytest.skip("uvloop takes none")
        name = f"\0sage_ws-{os.getpid()}"
        async with serve(echo, unix=name) as server, raw_client(unix=name) as peer:
            peer.ask("m-1")
            assert (await peer.read_json())["success"]
        await server.wait_closed()

    async def test_async_with_a_server_starts_it(self) -> None:
        async with Server(echo) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
            assert (await client.send(message())).success
        server = Server(echo)
        await server.start()
        async with server as same:  # started already
            assert same is server

    async def test_await_serve(self) -> None:
        server = await serve(echo)
        async with connect(f"ws://127.0.0.1:{server.port}") as client:
            assert (await client.send(message())).success
        await server.close()

    def test_a_server_that_never_started_has_no_port(self) -> None:
        server = Server(echo)
        assert server.sockets == ()
        assert repr(server) == "<sage_ws.Server not listening connections=0>"
        with pytest.raises(RuntimeError):
            _ = server.port


class TestPath:
    async def test_none_serves_every_path(self, raw_client: Any) -> None:
        async with serve(echo) as server:
            for path in ("/", "/ws", "/deep/er?q=1"):
                async with raw_client(server.port, path) as peer:
                    peer.ask("m-1")
                    assert (await peer.read_json())["success"] is True

    async def test_one_serves_that_one(self, raw_client: Any, http_status: Any, opening_request: Any) -> None:
        async with serve(echo, path="/ws") as server:
            async with raw_client(server.port, "/ws?token=canary") as peer:
                peer.ask("m-1")
                assert (await peer.read_json())["success"] is True
                (link,) = server.connections
                assert link.request.path == "/ws?token=canary"
            for path in ("/", "/ws/", "/WS", "/wsx"):
                status, answer = await http_status(server.port, opening_request(path))
                assert status == 404
                assert b"no agent is served at" in answer
            assert server.stats()["refused"] == 4
            assert server.stats()["accepted"] == 1


class TestOpening:
    @pytest.mark.parametrize(
        ("request_line", "status"),
        [
            (b"POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"GET /ws HTTP/1.0\r\nHost: a\r\n\r\n", 400),
            (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426),
            (b"nonsense\r\n\r\n", 400),
            (b"GET /" + b"x" * 9000, 414),
            (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", 431),
            (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 4000 + b"\r\n") * 17, 431),
        ],
    )
    async def test_what_is_none_is_refused_with_its_status(
        self, http_status: Any, request_line: bytes, status: int
    ) -> None:
        async with serve(echo) as server:
            got, answer = await http_status(server.port, request_line)
            assert got == status
            assert b"\r\nConnection: close\r\n" in answer
            assert b"\r\nContent-Type: text/plain" in answer
            assert server.stats()["refused"] == 1
            assert server.connection_count == 0

    async def test_a_bad_key_is_refused(self, http_status: Any, opening_request: Any) -> None:
        async with serve(echo) as server:
            status, _ = await http_status(
                server.port, opening_request(headers={"Sec-WebSocket-Key": "short"})
            )
            assert status == 400
            assert server.connection_count == 0

    async def test_twenty_megabytes_of_header_are_refused_early(self, raw_client: Any) -> None:
        async with serve(echo) as server, raw_client(server.port, handshake=False) as peer:
            peer.write(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(20):
                peer.write(b"x" * 1024 * 1024)
            assert (await peer.read_end()).startswith(b"HTTP/1.1 431 ")
            assert server.stats()["refused"] == 1

    async def test_a_head_byte_by_byte(self, raw_client: Any, opening_request: Any) -> None:
        async with serve(echo) as server, raw_client(server.port, handshake=False) as peer:
            for byte in opening_request():
                peer.write(bytes([byte]))
                await peer.writer.drain()
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            peer.ask("m-1")
            assert (await peer.read_json())["success"] is True

    async def test_what_follows_the_head_in_its_segment_is_read(
        self, raw_client: Any, opening_request: Any
    ) -> None:
        async with serve(echo) as server, raw_client(server.port, handshake=False) as peer:
            peer.write(opening_request() + peer.frame(PING, b"early"))
            await peer.reader.readuntil(b"\r\n\r\n")
            assert await peer.read_frame() == (PONG, b"early", True, False)

    @pytest.mark.parametrize("sent", [b"", b"GET /ws HTTP/1.1\r\nHost: a\r\n"])
    async def test_a_slow_one_is_closed_after_open_timeout(
        self, raw_client: Any, opening_request: Any, sent: bytes, growing: Any
    ) -> None:
        for seconds in growing(0.05):
            async with serve(echo, open_timeout=seconds) as server:
                async with raw_client(server.port, handshake=False) as peer:
                    peer.write(sent)
                    answer = await peer.read_end()
                    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
                async with raw_client(server.port, handshake=False) as peer:  # others are not slowed
                    peer.write(opening_request())
                    head = await peer.reader.readuntil(b"\r\n\r\n")
                    if head.startswith(b"HTTP/1.1 101 "):
                        await asyncio.sleep(seconds + 0.01)
                        peer.ask("m-1")
                        assert (await peer.read_json())["success"] is True
                        break
                    assert head.startswith(b"HTTP/1.1 408 ")

    async def test_without_open_timeout_there_is_time(self, raw_client: Any, opening_request: Any) -> None:
        async with serve(echo, open_timeout=None) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(opening_request())
                assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    async def test_one_that_leaves_in_the_middle_costs_nothing(
        self, raw_client: Any, eventually: Any
    ) -> None:
        async with serve(echo) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(b"GET /ws")
                await eventually(lambda: server.openings)
            await eventually(lambda: not server.openings)
            assert server.connection_count == 0

    async def test_a_refused_peer_that_stays_is_dropped(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sage_ws.aio.accepting.LINGER", 0.05)
        async with serve(echo) as server, raw_client(server.port, handshake=False) as peer:
            peer.write(b"nonsense\r\n\r\n")
            assert await peer.read_end()

            async def staying() -> None:
                while True:
                    peer.write(b"still here")
                    await peer.writer.drain()
                    await asyncio.sleep(0.005)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(staying(), 20)

    async def test_close_leaves_no_socket_of_theirs(self, raw_client: Any, eventually: Any) -> None:
        server = await serve(echo, open_timeout=60, close_timeout=60)
        async with (
            raw_client(server.port, handshake=False) as refused,
            raw_client(server.port, handshake=False) as slow,
        ):
            refused.write(b"nonsense\r\n\r\n")
            assert await refused.read_end()
            slow.write(b"GET /")
            await eventually(lambda: len(server.openings) == 2)
            transports = [opening._transport for opening in server.openings]
            await asyncio.wait_for(server.close(), 20)
            assert server.openings == set()
            assert all(transport.is_closing() for transport in transports)


class TestOrigins:
    async def test_without_a_list_a_browser_must_come_from_this_host(
        self, http_status: Any, raw_client: Any, opening_request: Any
    ) -> None:
        async with serve(echo) as server:
            status, answer = await http_status(
                server.port, opening_request(headers={"Origin": "https://evil.example"})
            )
            assert status == 403
            assert b"https://evil.example" in answer
            own = {"Host": "agent.example", "Origin": "https://agent.example"}
            async with raw_client(server.port, headers=own):
                (link,) = server.connections
                assert link.request.origin == "https://agent.example"

    async def test_a_list_is_exact(self, http_status: Any, raw_client: Any, opening_request: Any) -> None:
        async with serve(echo, origins=["https://good.example"]) as server:
            async with raw_client(server.port, headers={"Origin": "https://good.example"}):
                pass
            for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
                status, _ = await http_status(server.port, opening_request(headers=headers))
                assert status == 403

    async def test_a_client_names_its_origin(self) -> None:
        async with serve(echo, origins=["https://good.example"]) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url, origin="https://good.example") as client:
                assert (await client.send(message())).success


class TestAuthorize:
    async def test_it_sees_the_request_and_names_the_peer(self) -> None:
        seen: list[Any] = []

        async def authorize(request: Any) -> str | None:
            seen.append(request)
            return "alice" if request.headers.get("authorization") == "Bearer canary-a" else None

        async def handler(one: SecureMessage, call: Any) -> bytes:
            assert isinstance(call.connection, Connection)
            assert call.identity == call.connection.identity
            assert call.deadline is None
            return str(call.identity).encode()

        async with serve(handler, authorize=authorize) as server:
            url = f"ws://127.0.0.1:{server.port}/ws?x=1"
            async with connect(url, headers={"Authorization": "Bearer canary-a"}) as client:
                assert (await client.send(message())).data == b"alice"
                (link,) = server.connections
                assert (link.identity, link.subprotocol, link.closed) == (
                    "alice",
                    "sage.1.cbor",
                    False,
                )
            async with connect(url) as client:
                assert (await client.send(message())).data == b"None"
        request = seen[0]
        assert request.path == "/ws?x=1"
        assert request.headers["AUTHORIZATION"] == "Bearer canary-a"
        assert request.remote_address[0] == "127.0.0.1"
        assert request.origin is None

    @pytest.mark.parametrize("status", [401, 403, 429, 503])
    async def test_it_refuses_with_its_status(
        self, http_status: Any, opening_request: Any, status: int
    ) -> None:
        async def authorize(request: Any) -> str | None:
            await asyncio.sleep(0)
            raise RefusedError(status, "not you")

        async with serve(echo, authorize=authorize) as server:
            got, answer = await http_status(server.port, opening_request())
            assert got == status
            assert answer.endswith(b"\r\n\r\nnot you\n")
            assert (b"WWW-Authenticate: Bearer" in answer) is (status == 401)
            assert server.stats()["refused"] == 1
            client = Client(f"ws://127.0.0.1:{server.port}")
            with pytest.raises(Exception, match="not you") as raised:
                await client.connect()
            assert raised.value.status == status  # type: ignore[attr-defined]

    async def test_a_text_that_utf_8_cannot_carry_refuses_all_the_same(
        self, http_status: Any, opening_request: Any
    ) -> None:
        async def authorize(request: Any) -> str | None:
            raise RefusedError(403, "not \udcff")

        async with serve(echo, authorize=authorize, open_timeout=None) as server:
            status, answer = await asyncio.wait_for(http_status(server.port, opening_request()), 10)
            assert status == 403
            assert answer.endswith(b"\r\n\r\nnot ?\n")

    async def test_one_whose_own_task_was_cancelled_refuses_at_once(
        self, http_status: Any, opening_request: Any
    ) -> None:
        async def authorize(request: Any) -> str | None:
            looking = asyncio.ensure_future(asyncio.sleep(60, "me"))
            looking.cancel()
            return await looking

        async with serve(echo, authorize=authorize, open_timeout=None) as server:
            status, _ = await asyncio.wait_for(http_status(server.port, opening_request()), 20)
            assert status == 500

    @pytest.mark.parametrize("fault", ["raises", "returns"])
    async def test_one_that_fails_refuses_and_says_nothing(
        self, http_status: Any, opening_request: Any, caplog: pytest.LogCaptureFixture, fault: str
    ) -> None:
        async def authorize(request: Any) -> Any:
            if fault == "raises":
                raise KeyError("the secret")
            return 5

        async with serve(echo, authorize=authorize) as server:
            status, answer = await http_status(server.port, opening_request())
            assert status == 500
            assert answer.endswith(b"internal error\n")
            assert server.connection_count == 0
        (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert record.exc_info is not None

    async def test_open_timeout_bounds_it(self, http_status: Any, opening_request: Any, growing: Any) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def authorize(request: Any) -> str | None:
            begun.set()
            try:
                return await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        for seconds in growing(0.05):
            async with serve(echo, authorize=authorize, open_timeout=seconds) as server:
                status, _ = await http_status(server.port, opening_request())
                assert status == 408
                if begun.is_set():
                    await asyncio.wait_for(cancelled.wait(), 20)
                    break

    async def test_a_peer_that_leaves_meanwhile_cancels_it(
        self, raw_client: Any, opening_request: Any
    ) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def authorize(request: Any) -> str | None:
            begun.set()
            try:
                return await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with serve(echo, authorize=authorize) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(opening_request())
                await begun.wait()
            await asyncio.wait_for(cancelled.wait(), 20)
            assert server.connection_count == 0

    async def test_what_the_peer_says_meanwhile_is_kept(
        self, raw_client: Any, opening_request: Any, eventually: Any
    ) -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def authorize(request: Any) -> str | None:
            begun.set()
            await go.wait()
            return None

        async with serve(echo, authorize=authorize) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(opening_request() + peer.frame(PING, b"1"))
                await begun.wait()
                (opening,) = server.openings
                big = peer.frame(PING, b"2") + peer.frame(BINARY, b" " * 300_000)
                peer.write(big + peer.frame(PING, b"3"))
                await eventually(lambda: len(opening._late) > MAX_HEAD)
                go.set()
                await peer.reader.readuntil(b"\r\n\r\n")
                assert [(await peer.read_frame()).payload for _ in range(2)] == [b"1", b"2"]
                assert b"ends early" in (await peer.read_frame()).payload
                assert (await peer.read_frame()).payload == b"3"

    async def test_what_it_says_without_end_is_not_collected(
        self, raw_client: Any, opening_request: Any, eventually: Any
    ) -> None:
        async def authorize(request: Any) -> str | None:
            return await asyncio.get_running_loop().create_future()

        async with serve(echo, authorize=authorize) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(opening_request())
                await eventually(lambda: server.openings)
                (opening,) = server.openings
                peer.writer.transport.set_write_buffer_limits(high=0)

                async def talking() -> None:
                    while True:  # until the kernel's buffers are full
                        peer.write(b"x" * 1_000_000)
                        await peer.writer.drain()

                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(talking(), 0.3)
                assert len(opening._late) < 1_000_000

    async def test_close_does_not_wait_for_it(self, raw_client: Any, opening_request: Any) -> None:
        begun = asyncio.Event()

        async def authorize(request: Any) -> str | None:
            begun.set()
            return await asyncio.get_running_loop().create_future()

        async with serve(echo, authorize=authorize, open_timeout=60, close_timeout=60) as server:
            async with raw_client(server.port, handshake=False) as peer:
                peer.write(opening_request())
                await begun.wait()
                await asyncio.wait_for(server.close(), 20)
                assert await peer.read_end() == b""

    async def test_push_goes_by_identity(self, raw_client: Any) -> None:
        async def authorize(request: Any) -> str | None:
            return request.headers.get("X-Who")  # type: ignore[no-any-return]

        async with serve(echo, authorize=authorize) as server:
            with pytest.raises(NotSentError, match="no connection has this identity") as raised:
                await server.send("alice", message(id="m-1"))
            assert raised.value.message_id == "m-1"
            with pytest.raises(TypeError, match="message must be a SecureMessage, not bytes"):
                await server.send("alice", b"hello")  # type: ignore[arg-type]
            async with (
                connect(
                    f"ws://127.0.0.1:{server.port}", headers={"X-Who": "alice"}, encoding="plain"
                ) as client,
                raw_client(server.port, headers={"X-Who": "bob"}),
            ):
                assert client.is_connected
                with pytest.raises(
                    NotSentError, match="no connection of this identity takes requests"
                ) as raised:
                    await server.send("alice", message(id="m-2"))
                assert raised.value.message_id == "m-2"
                link, _ = server.connections
                with pytest.raises(NotSentError, match="the peer speaks plain SAGE"):
                    await link.send(message())
                await link.close()
                assert link.closed
                with pytest.raises(ClosedError, match="has ended"):
                    await link.send(message())
                with pytest.raises(NotSentError, match="no connection has this identity"):
                    await server.send("alice", message())


class TestMaxConnections:
    async def test_one_too_many_is_refused_until_one_leaves(
        self, raw_client: Any, http_status: Any, opening_request: Any, eventually: Any
    ) -> None:
        async with serve(echo, max_connections=2) as server:
            async with raw_client(server.port):
                async with raw_client(server.port):
                    status, answer = await http_status(server.port, opening_request())
                    assert status == 503
                    assert b"\r\nRetry-After: 1\r\n" in answer
                    assert server.connection_count == 2
                await eventually(lambda: server.connection_count == 1)
                async with raw_client(server.port):
                    assert server.connection_count == 2
            assert server.stats()["refused"] == 1

    async def test_it_is_looked_at_again_after_authorize(self, eventually: Any) -> None:
        waiting: list[Any] = []
        go = asyncio.Event()

        async def authorize(request: Any) -> str | None:
            waiting.append(request)
            await go.wait()
            return None

        async with serve(echo, authorize=authorize, max_connections=1) as server:

            async def dial() -> Client:
                return await connect(f"ws://127.0.0.1:{server.port}")

            dials = [asyncio.create_task(dial()) for _ in range(3)]
            await eventually(lambda: len(waiting) == 3)
            go.set()
            results = await asyncio.gather(*dials, return_exceptions=True)
            clients = [one for one in results if isinstance(one, Client)]
            assert len(clients) == 1
            assert sorted(getattr(one, "status", 0) for one in results) == [0, 503, 503]
            await clients[0].close()


class TestHealth:
    async def test_it_answers_on_the_servers_port(self, http_status: Any) -> None:
        async with serve(echo, path="/ws", max_connections=1) as server:
            status, answer = await http_status(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status == 200
            assert answer.endswith(b"\r\n\r\nok\n")
            assert server.stats()["refused"] == 0

    async def test_it_says_when_it_drains(self, http_status: Any, raw_client: Any, eventually: Any) -> None:
        go = asyncio.Event()

        async def slow(one: SecureMessage) -> None:
            await go.wait()

        async with serve(slow) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            await eventually(lambda: server.stats()["pending"])
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            status, answer = await http_status(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status == 503
            assert answer.endswith(b"draining\n")
            go.set()
            await peer.read_json()
            await peer.until_closed()
            await draining

    async def test_it_may_move_or_be_off(self, http_status: Any) -> None:
        async with serve(echo, health_path="/alive") as server:
            assert (await http_status(server.port, b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200
            assert (await http_status(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 426
        async with serve(echo, health_path=None) as server:
            assert (await http_status(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 426


class TestFrames:
    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (b"\x81\x05hello", 1002),  # not masked
            (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
            (b"\x81\xff" + b"\xff" * 8, 1002),  # a length with its top bit set
            (b"\x81\xff\x7f" + b"\xff" * 7, 1009),  # 2^63 - 1 bytes
            (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
            (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping of 126 bytes
        ],
    )
    async def test_a_peer_that_breaks_the_rules_is_told_and_dropped(
        self, raw_client: Any, eventually: Any, frame: bytes, code: int
    ) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            peer.write(frame)
            assert (await peer.read_close())[0] == code
            assert await peer.read_end() == b""
            peer.writer.close()
            await eventually(lambda: server.connection_count == 0)

    async def test_binary_and_fragments_are_messages_too(self, raw_client: Any) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            body = b'{"id":"m-1","payload":"aGk=","did":"d"}'
            peer.send(BINARY, body)
            assert (await peer.read_json())["data"] == "aGk="
            peer.send(TEXT, body[:10], fin=False)
            peer.send(PING, b"between")
            peer.send(0, body[10:], fin=False)
            peer.send(0, b"", fin=True)
            assert await peer.read_frame() == (PONG, b"between", True, False)
            assert (await peer.read_json())["data"] == "aGk="

    async def test_an_answer_is_one_text_frame_as_go_writes_it(self, raw_client: Any) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            peer.ask("m-1", b"hi", task_id="t-1")
            frame = await peer.read_frame()
            assert frame == (
                TEXT,
                b'{"success":true,"message_id":"m-1","task_id":"t-1","data":"aGk="}\n',
                True,
                False,
            )

    async def test_three_undecodable_messages_in_a_row_close_with_1008(
        self, raw_client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            for text in (b"one", b"two"):
                peer.send(TEXT, text)
                assert (await peer.read_json())["success"] is False
            peer.ask("m-1")
            assert (await peer.read_json())["success"] is True
            for _ in range(3):
                peer.send(TEXT, b"\x1b[31mbad")
            for _ in range(3):
                answer = await peer.read_json()
                assert (answer["success"], answer["message_id"]) == (False, "")
            assert await peer.read_close() == (1008, "three undecodable messages in a row")
        assert all(record.getMessage().isprintable() for record in caplog.records)

    @pytest.mark.parametrize("code", [1000, 1001, 4321, None])
    async def test_a_close_is_answered_with_its_code_and_the_socket_shut(
        self, raw_client: Any, eventually: Any, code: int | None
    ) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            peer.close_frame(code, "" if code is None else "bye")
            assert await peer.read_close() == (code, "")
            assert await peer.read_end() == b""
            await eventually(lambda: server.connection_count == 0)

    async def test_a_peer_that_just_leaves_is_forgotten(self, raw_client: Any, eventually: Any) -> None:
        async with serve(echo) as server:
            async with raw_client(server.port) as peer:
                peer.writer.write_eof()
                assert await peer.read_end() == b""
            await eventually(lambda: server.connection_count == 0)


async def test_connections_are_listed_oldest_first(raw_client: Any, eventually: Any) -> None:
    async with serve(echo) as server:
        async with raw_client(server.port, "/1"), raw_client(server.port, "/2") as second:
            async with raw_client(server.port, "/3"):
                assert [link.request.path for link in server.connections] == ["/1", "/2", "/3"]
                second.abort()
                await eventually(lambda: server.connection_count == 2)
                assert [link.request.path for link in server.connections] == ["/1", "/3"]


async def test_stats_add_up_and_outlive_connections(raw_client: Any, eventually: Any) -> None:
    async with serve(echo) as server:
        async with raw_client(server.port) as peer:
            for number in range(3):
                peer.ask(f"m-{number}")
                await peer.read_json()
            peer.send_json({"id": "m-4"})
            await peer.read_json()
            during = dict(server.stats())
        await eventually(lambda: server.connection_count == 0)
        after = dict(server.stats())
    for stats in (during, after):
        assert stats.pop("bytes_in") > 200
        assert stats.pop("bytes_out") > 100
    assert during == {
        "connections": 1,
        "accepted": 1,
        "refused": 0,
        "abandoned": 0,
        "lost": 0,
        "pending": 0,
        "received": 3,
        "answered": 3,
        "invalid": 1,
        "dropped": 0,
        "duplicates": 0,
        "asked": 0,
        "stopped": 0,
        "expired": 0,
        "unknown": 0,
    }
    assert after == {**during, "connections": 0, "lost": 1}  # the peer above just leaves


async def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def failing(one: SecureMessage) -> None:
        raise ValueError("bad")

    async with serve(failing) as server:
        url = f"ws://127.0.0.1:{server.port}/ws?token=canary"
        async with connect(url, headers={"Authorization": "canary"}) as client:
            await client.send(message(b"canary", signature=b"canary"))
    assert "canary" not in caplog.text
    assert base64.b64encode(b"canary").decode() not in caplog.text
