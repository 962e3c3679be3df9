"""What becomes of connections under TLS: strangers at their port, their end, and much to write."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest

from sage_ws import ConnectionLostError, DialError, RefusedError, SecureMessage, connect, serve


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(one: SecureMessage) -> bytes:
    return one.payload


# ── a server's port ───────────────────────────────────────────────────────────────────
class TestStrangersAtATLSPort:
    @pytest.mark.parametrize(
        "said",
        [
            pytest.param(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", id="http"),
            pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="half-a-hello"),
            pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="an-alert"),
            pytest.param(b"\x00" * 70_000, id="zeros"),
            pytest.param(b"", id="nothing"),
        ],
    )
    async def test_they_disturb_nobody(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        raw_client: Any,
        eventually: Any,
        caplog: pytest.LogCaptureFixture,
        loop_exceptions: list[Any],
        said: bytes,
    ) -> None:
        async with serve(echo, ssl=theirs) as server:
            async with connect(f"wss://localhost:{server.port}", ssl=ours) as client:
                for leave in ("abort", "eof"):
                    async with raw_client(server.port, handshake=False) as stranger:
                        stranger.write(said)
                        if leave == "eof":
                            stranger.writer.write_eof()
                            assert b"HTTP" not in await stranger.read_end()
                        assert (await client.send(message())).success
                async with connect(f"wss://localhost:{server.port}", ssl=ours) as another:
                    assert (await another.send(message())).success
        assert loop_exceptions == []
        assert [one for one in caplog.records if one.levelname in {"WARNING", "ERROR"}] == []

    @pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
    async def test_a_tls_handshake_without_end_is_cut_after_open_timeout(
        self, theirs: ssl.SSLContext, raw_client: Any, loop_exceptions: list[Any], said: bytes
    ) -> None:
        async with serve(echo, ssl=theirs, open_timeout=0.1) as server:
            async with raw_client(server.port, handshake=False) as stranger:
                stranger.write(said)
                assert await stranger.read_end() == b""
            assert server.openings == set()
        assert loop_exceptions == []

    async def test_open_timeout_counts_from_the_accept(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, raw_client: Any, by_hand: Any, growing: Any
    ) -> None:
        for seconds in growing(0.2):
            async with serve(echo, ssl=theirs, open_timeout=seconds) as server:
                async with raw_client(server.port, handshake=False) as peer:
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                        await by_hand.speak(peer, ours, "localhost")
                        peer.write(b"GET /ws HTTP/1.1\r\n")
                        assert (await peer.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
                        break

    async def test_a_refusal_is_read_and_its_reader_dropped(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        raw_client: Any,
        by_hand: Any,
        monkeypatch: pytest.MonkeyPatch,
        eventually: Any,
        opening_request: Any,
    ) -> None:
        monkeypatch.setattr("sage_ws.aio.accepting.LINGER", 0.05)

        async def nobody(request: Any) -> str:
            raise RefusedError(401, "who are you?")

        async with serve(echo, ssl=theirs, authorize=nobody, close_timeout=None) as server:
            with pytest.raises(DialError, match="who are you") as raised:
                await connect(f"wss://localhost:{server.port}", ssl=ours)
            assert raised.value.status == 401
            async with raw_client(server.port, handshake=False) as peer:
                await by_hand.speak(peer, ours, "localhost")
                peer.write(opening_request())
                assert (await peer.read_end()).endswith(b"who are you?\n")
                await eventually(lambda: not server.openings)  # though no close_notify comes


# ── ending ────────────────────────────────────────────────────────────────────────────
class TestEnding:
    async def test_a_server_drains_and_a_client_closes(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, eventually: Any
    ) -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow(one: SecureMessage) -> bytes:
            begun.set()
            await go.wait()
            return one.payload

        async with serve(slow, ssl=theirs, close_timeout=60) as server:
            client = await connect(
                f"wss://localhost:{server.port}", ssl=ours, reconnect=False, close_timeout=60
            )
            call = asyncio.create_task(client.send(message(b"late")))
            await begun.wait()
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            go.set()
            assert (await call).data == b"late"
            await asyncio.wait_for(draining, 20)
            assert (server.connection_count, server.openings) == (0, set())
            await asyncio.wait_for(client.wait_closed(), 20)
            await client.close()

    async def test_a_client_closes_at_once_where_the_server_answers(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, eventually: Any
    ) -> None:
        async with serve(echo, ssl=theirs, close_timeout=None) as server:
            client = await connect(f"wss://localhost:{server.port}", ssl=ours, close_timeout=None)
            await asyncio.wait_for(client.close(), 20)
            await eventually(lambda: server.connection_count == 0)

    async def test_a_server_closes_though_no_close_notify_comes(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, raw_client: Any, by_hand: Any
    ) -> None:
        async with serve(echo, ssl=theirs, close_timeout=0.1) as server:
            async with raw_client(server.port, handshake=False) as peer:
                await by_hand.speak(peer, ours, "localhost")
                await peer.open_as_client("/ws", {})
                closing = asyncio.create_task(server.close())
                assert await peer.until_closed() == (1001, "going away")
                await asyncio.wait_for(closing, 20)
                assert (server.connection_count, server.openings) == (0, set())
                assert await peer.read_end() == b""

    async def test_a_peer_that_closes_and_says_no_close_notify_is_forgotten(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        raw_client: Any,
        by_hand: Any,
        eventually: Any,
    ) -> None:
        async with serve(echo, ssl=theirs, close_timeout=0.1) as server:
            async with raw_client(server.port, handshake=False) as peer:
                await by_hand.speak(peer, ours, "localhost")
                await peer.open_as_client("/ws", {})
                assert server.connection_count == 1
                peer.close_frame(1000)
                assert await peer.read_close() == (1000, "")
                await eventually(lambda: server.connection_count == 0)

    async def test_a_client_closes_though_no_close_notify_comes(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, lying_server: Any, by_hand: Any
    ) -> None:
        async def polite_until_the_end(peer: Any) -> None:
            await by_hand.speak(peer, theirs)
            await peer.open_as_server()
            await peer.until_closed()
            await peer.read_end()

        async with lying_server(polite_until_the_end, handshake=False) as server:
            client = await connect(f"wss://localhost:{server.port}", ssl=ours, close_timeout=0.1)
            await asyncio.wait_for(client.close(), 20)

    async def test_a_silent_peer_is_let_go_of_though_no_close_notify_comes(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, lying_server: Any, by_hand: Any
    ) -> None:
        async def silent(peer: Any) -> None:
            await by_hand.speak(peer, theirs)
            await peer.open_as_server()
            await peer.read_end()

        times = {"ping_interval": 0.05, "ping_timeout": 0.05, "close_timeout": 0.1}
        async with lying_server(silent, handshake=False) as server:
            client = await connect(f"wss://localhost:{server.port}", ssl=ours, reconnect=False, **times)
            with pytest.raises(ConnectionLostError, match="ping timeout"):
                await client.send(message())
            await asyncio.wait_for(client.wait_closed(), 20)

    async def test_a_stream_that_is_cut_short_ends_the_calls(
        self, theirs: ssl.SSLContext, ours: ssl.SSLContext, lying_server: Any, by_hand: Any
    ) -> None:
        async def cut(peer: Any) -> None:
            await by_hand.speak(peer, theirs)
            await peer.open_as_server()
            await peer.read_frame()

        async with lying_server(cut, handshake=False) as server:
            client = await connect(f"wss://localhost:{server.port}", ssl=ours, reconnect=False)
            with pytest.raises(ConnectionLostError):
                await asyncio.wait_for(client.send(message()), 20)
            await client.close()


# ── much ──────────────────────────────────────────────────────────────────────────────
class TestMuch:
    async def test_large_messages_64_in_flight(self, theirs: ssl.SSLContext, ours: ssl.SSLContext) -> None:
        payloads = [bytes([number]) * 1024 * 1024 for number in range(64)]
        async with serve(echo, ssl=theirs) as server:
            async with connect(f"wss://localhost:{server.port}", ssl=ours) as client:
                responses = await asyncio.gather(*(client.send(message(one)) for one in payloads))
                assert [one.data for one in responses] == payloads

    async def test_a_server_goes_on_when_its_peer_reads_again(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        raw_client: Any,
        by_hand: Any,
        eventually: Any,
    ) -> None:
        count, size = 200, 100_000

        async def big(one: SecureMessage) -> bytes:
            return b"x" * size

        async with serve(big, ssl=theirs) as server:
            async with raw_client(server.port, handshake=False) as peer:
                await by_hand.speak(peer, ours, "localhost")
                await peer.open_as_client("/ws", {})
                (link,) = server.connections
                peer.writer.transport.pause_reading()
                for number in range(count):
                    peer.ask(f"m-{number}")
                await eventually(
                    lambda: link.blocked and link.unfinished == count - server.stats()["answered"]
                )
                answered = server.stats()["answered"]
                assert 0 < answered < count, "the rest waits until the peer has read"
                peer.writer.transport.resume_reading()
                ids = {(await peer.read_json())["message_id"] for _ in range(count)}
                assert ids == {f"m-{number}" for number in range(count)}
                assert not link.blocked

    async def test_a_client_goes_on_when_its_peer_reads_again(
        self,
        theirs: ssl.SSLContext,
        ours: ssl.SSLContext,
        lying_server: Any,
        by_hand: Any,
        eventually: Any,
    ) -> None:
        count, size = 40, 500_000
        go = asyncio.Event()

        async def slow(peer: Any) -> None:
            await by_hand.speak(peer, theirs)
            await peer.open_as_server()
            peer.writer.transport.pause_reading()
            await go.wait()
            peer.writer.transport.resume_reading()
            for _ in range(count):
                peer.answer((await peer.read_json())["id"])
            await peer.until_closed()

        async with lying_server(slow, handshake=False) as server:
            async with connect(f"wss://localhost:{server.port}", ssl=ours) as client:
                calls = [asyncio.create_task(client.send(message(b"x" * size))) for _ in range(count)]
                await eventually(lambda: client._link is not None and client._link.blocked)
                assert client.stats()["answered"] == 0
                go.set()
                assert all(one.success for one in await asyncio.gather(*calls))
                assert not client._link.blocked  # type: ignore[union-attr]
