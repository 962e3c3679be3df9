"""The direct link over real connections: that it is one, and each danger of reading and writing for oneself.

What is asked of both links runs on both. The poller by itself, with batches that the test arranges, is in
tests/unit/aio/test_poller.py.

Over 500 lines: the dangers are a long list, and each of them is a case here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import ssl
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trustme

from sage_ws import ConnectionLostError, SecureMessage, connect, serve
from sage_ws._core import has_poller
from sage_ws.aio.hub import Hub, hub_of
from sage_ws.aio.link import Loss
from sage_ws.aio.serving import ServerLink

LINKS = ("direct", "loop") if has_poller else ("loop",)
MEGABYTE = 1 << 20
direct_only = pytest.mark.skipif(not has_poller, reason="this core has no direct link")


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


def echo(one: SecureMessage) -> bytes:
    return one.payload


def descriptors() -> Counter[str]:
    """What the process holds open: each socket by its inode, each epoll."""
    held: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            held[str(entry.readlink())] += 1
        except FileNotFoundError:  # the one of the listing itself
            continue
    return held


def inode(number: int) -> str:
    return str(Path(f"/proc/self/fd/{number}").readlink())


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> str:
    """Each way to the socket."""
    return str(request.param)


class TestChoice:
    @direct_only
    @pytest.mark.parametrize("option", ["auto", "direct"])
    async def test_both_ends_are_direct_and_hold_one_descriptor(
        self, option: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SAGE_WS_LINK", raising=False)
        async with (
            serve(echo, link=option) as server,
            connect(f"ws://127.0.0.1:{server.port}", link=option) as client,
        ):
            assert (await client.send(message(b"hi"))).data == b"hi"
            ends: list[Any] = [client._link, *server.connections]
            assert [end.socket.closed for end in ends] == [False, False]
            names = [inode(end.socket.fileno()) for end in ends]
            # the loop's own transport and its descriptor are gone
            await eventually(lambda: [descriptors()[name] for name in names] == [1, 1])

    async def test_by_the_option_it_is_not(self) -> None:
        async with (
            serve(echo, link="loop") as server,
            connect(f"ws://127.0.0.1:{server.port}", link="loop") as client,
        ):
            assert (await client.send(message(b"hi"))).data == b"hi"
            ends: list[Any] = [client._link, *server.connections]
            assert [end.socket for end in ends] == [None, None]

    @pytest.mark.skipif(has_poller, reason="this core has a direct link")
    @pytest.mark.parametrize("way", ["option", "variable"])
    def test_where_it_cannot_be_it_is_refused(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        options: dict[str, Any] = {"link": "direct"} if way == "option" else {}
        if way == "variable":
            monkeypatch.setenv("SAGE_WS_LINK", "direct")
        for make in (lambda: serve(echo, **options), lambda: connect("ws://localhost", **options)):
            with pytest.raises(ValueError, match="needs the native core, and Linux"):
                make()

    def test_a_variable_without_sense_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAGE_WS_LINK", "epoll")
        with pytest.raises(ValueError, match="SAGE_WS_LINK must be auto, direct or loop, not 'epoll'"):
            connect("ws://localhost")
        connect("ws://localhost", link="loop")  # an option is asked first

    async def test_never_under_tls(self, either: Any) -> None:
        authority = trustme.CA()
        ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(ours)
        authority.configure_trust(theirs)
        async with serve(echo, ssl=ours, link=either) as server:
            url = f"wss://localhost:{server.port}"
            async with connect(url, ssl=theirs, link=either) as client:
                assert (await client.send(message(b"hi"))).data == b"hi"
                ends: list[Any] = [client._link, *server.connections]
                assert [end.socket for end in ends] == [None, None]

    @direct_only
    async def test_one_epoll_for_all_and_none_is_watched_after_the_last(self, eventually: Any) -> None:
        loop = asyncio.get_running_loop()
        hub = hub_of(loop)
        gc.collect()  # epolls of loops that are no more
        before = descriptors()["anon_inode:[eventpoll]"]
        async with serve(echo, link="direct") as server:
            clients = [connect(f"ws://127.0.0.1:{server.port}", link="direct") for _ in range(20)]
            await asyncio.gather(*(client.connect() for client in clients))
            assert hub._poller is not None
            assert len(hub._poller) == 40
            assert descriptors()["anon_inode:[eventpoll]"] == before + 1
            await asyncio.gather(*(client.close() for client in clients))
        await eventually(lambda: len(hub._poller) == 0)
        assert not hub._watched
        assert not loop.remove_reader(hub._poller.fileno())
        async with serve(echo, link="direct") as server:  # and it is watched again
            async with connect(f"ws://127.0.0.1:{server.port}", link="direct") as client:
                assert (await client.send(message(b"again"))).data == b"again"

    async def test_no_descriptor_is_left_of_200_connections(self, either: Any, eventually: Any) -> None:
        async with serve(echo, link=either) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url, link=either):
                pass
            await eventually(lambda: server.connection_count == 0)
            held = sum(descriptors().values())
            for _ in range(200):
                async with connect(url, link=either) as client:
                    await client.send(message())
            await eventually(lambda: server.connection_count == 0)
            gc.collect()
            await eventually(lambda: sum(descriptors().values()) <= held)

    @direct_only
    @pytest.mark.parametrize("missing", ["epoll", "socket"])
    async def test_without_a_descriptor_for_it_the_loops_transport_stays(
        self, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = hub_of(asyncio.get_running_loop())
        if missing == "socket":
            assert hub.poller() is not None
        begun = ServerLink.start

        def start(link: ServerLink, *arguments: Any) -> None:
            lowest = os.dup(0)
            os.close(lowest)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                begun(link, *arguments)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        monkeypatch.setattr(ServerLink, "start", start)
        async with (
            serve(echo, link="direct") as server,
            connect(f"ws://127.0.0.1:{server.port}", link="loop") as client,
        ):
            assert (await client.send(message(b"hi"))).data == b"hi"
            (end,) = server.connections
            assert end.socket is None  # type: ignore[attr-defined]
        hub.socket_closed()


class TestFullSockets:
    async def test_what_a_peer_does_not_read_waits_and_arrives_in_order(
        self, either: Any, raw_client: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        for name in ("pause_writing", "resume_writing"):
            original = getattr(ServerLink, name)

            def spy(link: ServerLink, name: str = name, original: Any = original) -> None:
                told.append(name)
                original(link)

            monkeypatch.setattr(ServerLink, name, spy)

        async with serve(lambda one: one.payload * MEGABYTE, link=either) as server:
            async with raw_client(server.port) as peer:
                (end,) = server.connections
                for number in range(10):
                    peer.ask(f"m-{number}", bytes([number + 65]))
                await eventually(lambda: end.blocked)
                assert told == ["pause_writing"]
                received = end.connection.bytes_in
                peer.ask("m-10", b"Z")  # it is still heard
                await eventually(lambda: end.connection.bytes_in > received)
                for number in range(11):
                    answer = await peer.read_json()
                    assert answer["message_id"] == f"m-{number}"
                    assert len(answer["data"]) == 4 * -(-MEGABYTE // 3)
                await eventually(lambda: not end.blocked)
                assert told == ["pause_writing", "resume_writing"] * (len(told) // 2)

    async def test_both_sides_full_is_no_deadlock(self, either: Any) -> None:
        async with (
            serve(echo, link=either) as server,
            connect(f"ws://127.0.0.1:{server.port}", link=either, max_pending=64) as client,
        ):
            payloads = [os.urandom(MEGABYTE // 2) for _ in range(48)]
            answers = await asyncio.gather(*(client.send(message(payload)) for payload in payloads))
            assert [answer.data for answer in answers] == payloads

    async def test_a_half_closed_peer_gets_what_was_unsent(
        self, either: Any, raw_client: Any, eventually: Any
    ) -> None:
        async with serve(lambda one: one.payload * 4 * MEGABYTE, link=either) as server:
            async with raw_client(server.port) as peer:
                (end,) = server.connections
                peer.ask("m-1", b"y")
                await eventually(lambda: end.blocked)
                peer.writer.write_eof()
                assert (await peer.read_json())["message_id"] == "m-1"
                assert await peer.read_end() == b""
            await eventually(lambda: server.connection_count == 0)


class TestEnds:
    async def test_a_reset_ends_the_calls_with_its_error(self, either: Any, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            for _ in range(2):
                await peer.read_frame()
            held = peer.writer.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.abort()

        async with (
            lying_server(script) as server,
            connect(server.url, link=either, reconnect=False) as client,
        ):
            calls = [client.send(message(b"%d" % number)) for number in range(2)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
            for error in errors:
                assert isinstance(error, ConnectionLostError)
                assert "Connection reset by peer" in str(error)

    async def test_an_end_without_a_close_frame_ends_the_calls(self, either: Any, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            await peer.read_frame()

        async with (
            lying_server(script) as server,
            connect(server.url, link=either, reconnect=False) as client,
        ):
            with pytest.raises(ConnectionLostError, match="the connection was lost"):
                await client.send(message())
            assert client.stats()["pending"] == 0

    @pytest.mark.parametrize("when", ["at once", "after an await"])
    @pytest.mark.parametrize("how", ["cut", "begin_close", "close"])
    @pytest.mark.parametrize("whose", ["its own", "another's"])
    async def test_a_handler_closes_a_connection(
        self, either: Any, eventually: Any, when: str, how: str, whose: str
    ) -> None:
        tasks: list[asyncio.Task[None]] = []

        async def handler(one: SecureMessage, call: Any) -> bytes:
            if one.payload == b"close":
                if when == "after an await":
                    await asyncio.sleep(0)
                links: Any = server.connections
                (target,) = (link for link in links if (link is call.connection) is (whose == "its own"))
                if how == "cut":
                    target.cut(Loss("cut by the test"))
                elif how == "begin_close":
                    target.begin_close()
                else:
                    tasks.append(asyncio.ensure_future(target.close()))
            return one.payload

        async with serve(handler, link=either) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with (
                connect(url, link=either, reconnect=False) as first,
                connect(url, link=either, reconnect=False) as second,
            ):
                outcomes = await asyncio.gather(
                    first.send(message(b"close")),
                    *(client.send(message(b"x")) for client in (second, first, second)),
                    return_exceptions=True,
                )
                for outcome in outcomes:
                    if isinstance(outcome, BaseException):
                        assert isinstance(outcome, ConnectionLostError)
                    else:
                        assert outcome.data in {b"close", b"x"}
                ended, alive = (first, second) if whose == "its own" else (second, first)
                await ended.wait_closed()
                assert (await alive.send(message(b"y"))).data == b"y"
            await eventually(lambda: server.connection_count == 0)
            await asyncio.gather(*tasks)

    async def test_a_server_is_closed_from_within_a_batch(self, either: Any) -> None:
        tasks: list[asyncio.Task[None]] = []

        def handler(one: SecureMessage) -> bytes:
            if one.payload == b"3":
                tasks.append(asyncio.ensure_future(server.close()))
            return one.payload

        async with serve(handler, link=either) as server:
            url = f"ws://127.0.0.1:{server.port}"
            clients = [connect(url, link=either, reconnect=False) for _ in range(8)]
            await asyncio.gather(*(client.connect() for client in clients))
            calls = [client.send(message(b"%d" % at)) for at, client in enumerate(clients)]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert not isinstance(outcome, BaseException) or isinstance(outcome, ConnectionLostError)
            await asyncio.gather(*tasks, *(client.wait_closed() for client in clients))

    async def test_a_client_is_closed_by_a_caller_that_an_answer_stepped(
        self, either: Any, lying_server: Any
    ) -> None:
        async def script(peer: Any) -> None:
            asked = [await peer.read_json() for _ in range(3)]
            peer.answer(asked[0]["id"])
            await peer.until_closed()

        async with lying_server(script) as server:
            client = connect(server.url, link=either, reconnect=False)
            await client.connect()

            async def first() -> None:
                await client.send(message())
                await client.close()

            outcomes = await asyncio.gather(
                first(), client.send(message()), client.send(message()), return_exceptions=True
            )
            assert outcomes[0] is None
            assert [type(outcome) for outcome in outcomes[1:]] == [ConnectionLostError] * 2
            assert client.stats()["pending"] == 0

    async def test_who_comes_after_a_cut_connection_gets_nothing_of_it(
        self, either: Any, raw_client: Any
    ) -> None:
        def handler(one: SecureMessage, call: Any) -> bytes:
            if one.payload == b"cut":
                links: Any = server.connections
                for link in links:
                    if link is not call.connection:
                        link.cut(Loss("cut by the test"))
            return one.payload

        async with serve(handler, link=either) as server, raw_client(server.port) as cutter:
            for number in range(20):
                async with raw_client(server.port) as victim:
                    cutter.ask(f"cut-{number}", b"cut")
                    victim.ask("of the victim")
                    await victim.read_end()
                    async with raw_client(server.port) as newcomer:
                        newcomer.ask("of the newcomer")
                        assert (await newcomer.read_json())["message_id"] == "of the newcomer"
                assert (await cutter.read_json())["message_id"] == f"cut-{number}"


class TestErrors:
    async def test_one_connections_fault_is_its_own(
        self, raw_client: Any, monkeypatch: pytest.MonkeyPatch, loop_exceptions: list[dict[str, Any]]
    ) -> None:
        original = ServerLink._take

        def faulty(link: ServerLink, values: list[Any] | None) -> None:
            if any(isinstance(one, SecureMessage) and one.payload == b"bad" for one in values or ()):
                raise ValueError("a fault of ours")
            original(link, values)

        monkeypatch.setattr(ServerLink, "_take", faulty)
        async with serve(echo) as server, raw_client(server.port) as bad, raw_client(server.port) as good:
            ends: Any = server.connections
            for end in ends:
                end.watch_answers()  # else the native core takes requests before their link sees them
            bad.ask("m-1", b"bad")
            good.ask("m-2")
            assert (await good.read_json())["message_id"] == "m-2"
            assert await bad.read_end() == b""
            good.ask("m-3")
            assert (await good.read_json())["message_id"] == "m-3"
        (context,) = loop_exceptions
        assert str(context["exception"]) == "a fault of ours"
        loop_exceptions.clear()


class TestCancellation:
    async def test_20_000_cancelled_calls_leave_nothing(self, either: Any, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            while await peer.reader.read(MEGABYTE):
                pass

        async with lying_server(script) as server:
            async with connect(server.url, link=either, max_pending=2000, close_timeout=0.1) as client:
                for _ in range(20):
                    calls = [asyncio.ensure_future(client.send(message())) for _ in range(1000)]
                    await asyncio.sleep(0)
                    for call in calls:
                        call.cancel()
                    await asyncio.wait(calls)
                assert client.stats()["pending"] == 0
                assert client.stats()["queued"] == 0


@pytest.fixture
def spins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Turns of the loop that were spent awake."""
    counted: list[int] = []
    original = Hub._spin

    def spin(hub: Hub) -> None:
        counted.append(1)
        original(hub)

    monkeypatch.setattr(Hub, "_spin", spin)
    return counted


class TestBusyPolling:
    @pytest.mark.parametrize("where", ["client", "server"])
    async def test_it_serves_everybody_and_stops(
        self, either: Any, where: str, spins: list[int], eventually: Any
    ) -> None:
        hub = hub_of(asyncio.get_running_loop())
        polling: dict[str, Any] = {"busy_poll": 0.02}
        async with serve(echo, link=either, **(polling if where == "server" else {})) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with (
                connect(url, link=either, **(polling if where == "client" else {})) as client,
                connect(url, link=either) as other,
            ):
                for number in range(20):
                    payload = b"%d" % number
                    answers = await asyncio.gather(
                        client.send(message(payload)), other.send(message(payload))
                    )
                    assert [answer.data for answer in answers] == [payload] * 2
                assert spins
                await eventually(lambda: not hub._spinning)
                counted = len(spins)
                for _ in range(100):
                    await asyncio.sleep(0)
                assert len(spins) == counted

    async def test_without_it_nothing_spins(self, either: Any, spins: list[int]) -> None:
        async with (
            serve(echo, link=either) as server,
            connect(f"ws://127.0.0.1:{server.port}", link=either) as client,
        ):
            await client.send(message())
        assert spins == []
