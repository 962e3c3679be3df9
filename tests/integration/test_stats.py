"""`stats()` of both ends: each event that is a sign of trouble is counted, and counted once."""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Mapping
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DecodeError,
    DialError,
    DuplicateIdError,
    QueueTimeoutError,
    ReadTimeoutError,
    RefusedError,
    SecureMessage,
    Server,
    connect,
    serve,
)

TEXT, CLOSE = 0x1, 0x8


def message(payload: bytes = b"canary", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(one: SecureMessage) -> bytes:
    return one.payload


def counted(stats: Mapping[str, int | float]) -> dict[str, int | float]:
    """What is not 0, but for bytes."""
    return {key: count for key, count in stats.items() if count and not key.startswith("bytes")}


@pytest.mark.parametrize("end", [Client("ws://host"), Server(echo)], ids=["client", "server"])
def test_every_key_is_explained_where_it_is_made(end: Client | Server) -> None:
    assert set(end.stats()) <= set(re.findall(r"``(\w+)``", str(type(end).stats.__doc__)))


class TestAClient:
    async def test_calls_that_fail(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            await peer.read_json()  # in flight until the end
            await peer.read_json()  # of the one that runs out of time
            request = await peer.read_json()
            peer.answer(request["id"], success="no")  # cannot be read
            peer.answer("late")
            peer.send(TEXT, b"{")
            await peer.read_json()
            peer.writer.transport.abort()

        async with lying_server(script) as server, connect(server.url, reconnect=False) as client:
            first = asyncio.ensure_future(client.send(message(id="m-1")))
            with pytest.raises(ReadTimeoutError):
                await client.send(message(id="m-2"), timeout=0.01)
            with pytest.raises(DuplicateIdError):
                await client.send(message(id="m-1"))
            with pytest.raises(DecodeError):
                await client.send(message())
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            with pytest.raises(ConnectionLostError):
                await first
            with pytest.raises(ClosedError):
                await client.send(message())
        assert counted(client.stats()) == {
            "sent": 4,
            "failed": 6,
            "late": 1,
            "invalid": 2,
            "dials": 1,
            "lost": 1,
        }

    async def test_calls_that_are_cancelled(self, lying_server: Any, eventually: Any) -> None:
        async def script(peer: Any) -> None:
            request = await peer.read_json()
            await go.wait()
            peer.answer(request["id"])
            peer.answer((await peer.read_json())["id"])
            await peer.until_closed()

        go = asyncio.Event()
        async with lying_server(script) as server, connect(server.url, max_pending=1) as client:
            calls = [asyncio.ensure_future(client.send(message())) for _ in range(2)]
            await eventually(lambda: client.stats()["queued"] == 1)
            for call in reversed(calls):  # the one that waits in line first
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert counted(client.stats()) == {"sent": 1, "cancelled": 2, "dials": 1}
            with pytest.raises(QueueTimeoutError):
                await asyncio.gather(client.send(message()), client.send(message(), timeout=0.01))
            go.set()
            await eventually(lambda: client.stats()["answered"] == 1)
        assert counted(client.stats()) == {
            "sent": 2,
            "cancelled": 2,
            "failed": 1,
            "late": 1,
            "answered": 1,
            "dials": 1,
        }

    async def test_an_answer_in_the_same_moment_as_the_cancellation(self, lying_server: Any) -> None:
        """It comes when the call is cancelled, and its task has not heard of that yet."""

        async def script(peer: Any) -> None:
            await peer.read_json()
            if link.socket is not None:
                peer.write(answer)
                await peer.writer.drain()
            asked.set()
            await peer.until_closed()

        body = b'{"success":true,"message_id":"m-1"}'
        answer = bytes([0x81, len(body)]) + body
        asked = asyncio.Event()
        async with lying_server(script) as server, connect(server.url) as client:
            link: Any = client._link
            call = asyncio.ensure_future(client.send(message(id="m-1")))
            await asyncio.sleep(0)
            link.pause_reading()
            await asked.wait()
            call.cancel()
            link.resume_reading()
            if link.socket is None:
                link.data_received(answer)
            else:
                assert select.select([link.socket.fileno()], [], [], 30)[0]
                link._hub.poller().poll()
            await asyncio.gather(call, return_exceptions=True)
            assert call.cancelled()
        assert counted(client.stats()) == {"sent": 1, "cancelled": 1, "late": 1, "dials": 1}

    async def test_dials(self, lying_server: Any) -> None:
        async def script(peer: Any) -> None:
            if server.accepted == 2:
                peer.write(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
                return
            await peer.open_as_server()
            await peer.read_json()
            peer.close_frame(1012) if server.accepted == 1 else peer.answer("m-2")
            await peer.until_closed()

        async with lying_server(script, handshake=False) as server:
            client = Client(server.url, backoff=lambda _: 0.0)
            with pytest.raises(ConnectionLostError):
                await client.send(message(id="m-1"))
            await client.send(message(id="m-2"))
            await client.close()
            assert counted(client.stats()) == {
                "sent": 2,
                "failed": 1,
                "answered": 1,
                "dials": 3,
                "lost": 1,
                "reconnects": 1,
            }

    async def test_a_first_dial_that_fails(self) -> None:
        client = Client("ws://127.0.0.1:9/ws", headers=lambda: [("bad name", "x")])
        with pytest.raises(DialError):
            await client.send(message())
        assert counted(client.stats()) == {"failed": 1, "dials": 1}


class TestAServer:
    async def test_openings(self, raw_client: Any, opening_request: Any, eventually: Any) -> None:
        begun = asyncio.Event()

        async def authorize(request: Any) -> str:
            if request.path == "/never":
                begun.set()
                await asyncio.Event().wait()
            raise RefusedError(403)

        async with serve(echo, authorize=authorize, health_path="/health") as server:
            async with raw_client(server.port, handshake=False) as refused:
                refused.write(opening_request("/ws"))
                await refused.read_end()
            async with raw_client(server.port, handshake=False) as malformed:
                malformed.write(b"\x16\x03\x01")
                await malformed.read_end()
            async with raw_client(server.port, handshake=False) as healthy:
                healthy.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                await healthy.read_end()
            async with raw_client(server.port, handshake=False) as silent:
                await eventually(lambda: server.openings)
                silent.writer.write_eof()
                await eventually(lambda: server.stats()["abandoned"] == 1)
            async with raw_client(server.port, handshake=False) as waiting:
                waiting.write(opening_request("/never"))
                await begun.wait()
                waiting.abort()
                await eventually(lambda: server.stats()["abandoned"] == 2)
            async with raw_client(server.port, handshake=False):
                await eventually(lambda: server.openings)
                await server.close()
        assert counted(server.stats()) == {"refused": 2, "abandoned": 3}

    async def test_ends_of_connections(self, raw_client: Any, eventually: Any) -> None:
        async with serve(echo, ping_interval=None) as server:
            async with raw_client(server.port) as closing:
                closing.close_frame()
                await closing.read_end()
            async with raw_client(server.port):
                pass  # just gone
            async with raw_client(server.port) as breaking:
                breaking.send(TEXT, b"x", masked=False)
                await breaking.read_end()
            await eventually(lambda: not server.connection_count)
            assert counted(server.stats()) == {"accepted": 3, "lost": 2}
            async with raw_client(server.port) as left:
                closed = asyncio.ensure_future(server.close())
                assert (await left.until_closed())[0] == 1001
                await closed
        assert counted(server.stats()) == {"accepted": 4, "lost": 2}

    async def test_messages_that_are_dropped(self, raw_client: Any, eventually: Any) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> bytes:
            await go.wait()
            return b"x"

        async with serve(handler, max_concurrency=1) as server:
            async with raw_client(server.port) as gone:
                gone.ask("runs")
                gone.ask("waits")
                await eventually(lambda: server.stats()["pending"] == 2)
            await eventually(lambda: server.stats()["dropped"] == 1)
            async with raw_client(server.port) as closing:
                closing.ask("m-1")
                await eventually(lambda: server.stats()["pending"] == 2)
                closed = asyncio.ensure_future(server.connections[0].close())
                assert await closing.read_close() == (1000, "")
                closing.ask("m-2")  # behind our close frame
                await eventually(lambda: server.stats()["dropped"] == 2)
                go.set()  # the answers to "runs" and to "m-1" have nowhere to go
                await eventually(lambda: server.stats()["dropped"] == 4)
                closing.close_frame()
                await closed
        assert counted(server.stats()) == {"accepted": 2, "received": 3, "lost": 1, "dropped": 4}

    async def test_messages_that_come_during_a_drain(self, raw_client: Any, eventually: Any) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> bytes:
            await go.wait()
            return b"x"

        async with serve(handler) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            await eventually(lambda: server.stats()["pending"] == 1)
            drained = asyncio.ensure_future(server.drain(timeout=30))
            await eventually(lambda: server.draining)
            peer.ask("m-2")
            await eventually(lambda: server.stats()["dropped"] == 1)
            go.set()
            await peer.until_closed()
            await drained
        assert counted(server.stats()) == {"accepted": 1, "received": 2, "answered": 1, "dropped": 1}

    async def test_messages_that_are_answered_here(self, raw_client: Any) -> None:
        async with serve(echo) as server, raw_client(server.port) as peer:
            peer.send(TEXT, b"{")
            peer.ask("m-1", did="")
            peer.ask("m-2")
            for _ in range(3):
                await peer.read_frame()
            stats = counted(server.stats())
        assert stats == {"connections": 1, "accepted": 1, "received": 1, "answered": 1, "invalid": 2}
