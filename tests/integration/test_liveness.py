"""Who is still there: pings, silence, keepalives towards plain peers, peers that take no bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import Any

import pytest

from sage_ws import (
    Client,
    ConnectionLostError,
    SecureMessage,
    TransportError,
    WriteTimeoutError,
    connect,
    serve,
)

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


class TestPings:
    async def test_a_client_pings_a_quiet_peer_and_fails_one_that_does_not_answer(
        self, lying_server: Any
    ) -> None:
        async def frozen(peer: Any) -> None:
            await peer.read_json()
            assert await peer.read_frame() == (PING, b"", True, True)
            assert await peer.read_close() == (1011, "ping timeout")
            assert await peer.read_end() == b""

        async with lying_server(frozen) as server:
            client = Client(server.url, ping_interval=0.03, ping_timeout=0.05, reconnect=False)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(ConnectionLostError, match="ping timeout") as raised:
                await client.send(message(id="m-1"))
            assert 0.07 <= loop.time() - begun < 0.08 + 15
            assert raised.value.message_id == "m-1"
            assert raised.value.code is None
            await client.close()

    async def test_a_server_does_too(self, raw_client: Any, eventually: Any) -> None:
        async with (
            serve(lambda one: None, ping_interval=0.03, ping_timeout=0.05) as server,
            raw_client(server.port) as peer,
        ):
            assert await peer.read_frame() == (PING, b"", True, False)
            assert await peer.read_close() == (1011, "ping timeout")
            assert await peer.read_end() == b""
            await eventually(lambda: server.connection_count == 0)

    async def test_pongs_keep_a_quiet_connection_alive(self, raw_client: Any, growing: Any) -> None:
        for seconds in growing(0.05):
            async with (
                serve(lambda one: None, ping_interval=seconds / 2, ping_timeout=seconds) as server,
                raw_client(server.port) as peer,
            ):
                for _ in range(5):  # longer than interval and timeout together
                    frame = await peer.read_frame()
                    if frame.opcode == CLOSE:  # the pong came too late
                        break
                    assert frame.opcode == PING
                    peer.send(PONG, frame.payload)
                else:
                    assert server.connection_count == 1
                    break

    async def test_one_that_takes_no_bytes_either_is_cut_without_a_word(
        self, raw_client: Any, eventually: Any
    ) -> None:
        async with serve(
            lambda one: b"x" * 9_000_000, ping_interval=0.05, ping_timeout=0.05, write_timeout=None
        ) as server:
            async with raw_client(server.port) as peer:
                peer.writer.transport.pause_reading()
                peer.ask("m-1")
                await eventually(lambda: server.stats()["received"] == 1)
                await eventually(lambda: server.connection_count == 0)

    async def test_any_byte_is_life(self, raw_client: Any, growing: Any) -> None:
        for seconds in growing(0.1):
            async with (
                serve(lambda one: None, ping_interval=seconds / 2, ping_timeout=seconds) as server,
                raw_client(server.port) as peer,
            ):
                slow = peer.frame(TEXT, b'{"id":"m-1","payload":"eA==","did":"d"}')
                for position in range(0, len(slow), 3):  # no pong can stand in the middle of a frame
                    peer.write(slow[position : position + 3])
                    await asyncio.sleep(seconds / 5)
                frame = await peer.read_frame()
                while frame.opcode == PING:
                    frame = await peer.read_frame()
                if frame.opcode == TEXT:
                    assert json.loads(frame.payload)["message_id"] == "m-1"
                    break
                assert frame.opcode == CLOSE  # a byte came too late

    async def test_busy_connections_are_not_pinged(self, lying_server: Any, growing: Any) -> None:
        opcodes: list[int] = []

        async def recording(peer: Any) -> None:
            while (frame := await peer.read_frame()).opcode != CLOSE:
                opcodes.append(frame.opcode)
                if frame.opcode == TEXT:
                    peer.answer(json.loads(frame.payload)["id"])
            peer.send(CLOSE, frame.payload)

        for seconds in growing(0.2):
            opcodes.clear()
            async with lying_server(recording) as server:
                async with connect(server.url, ping_interval=seconds) as client:
                    for _ in range(50):
                        await client.send(message())
                        await asyncio.sleep(seconds / 20)
            if PING not in opcodes:
                break

    async def test_off_nobody_pings(self, lying_server: Any) -> None:
        opcodes: list[int] = []

        async def recording(peer: Any) -> None:
            while (frame := await peer.read_frame()).opcode != CLOSE:
                opcodes.append(frame.opcode)
            peer.send(CLOSE, frame.payload)

        async with lying_server(recording) as server:
            async with connect(server.url, ping_interval=None, keepalive_interval=None) as client:
                link = client._link
                assert link is not None
                assert link._due == float("inf")  # nothing can come due
        assert opcodes == []

    async def test_without_ping_timeout_a_peer_is_only_pinged(self, lying_server: Any) -> None:
        pings = asyncio.Event()

        async def deaf_to_pings(peer: Any) -> None:
            for _ in range(4):
                assert (await peer.read_frame()).opcode == PING
            pings.set()
            await peer.until_closed()

        async with (
            lying_server(deaf_to_pings) as server,
            connect(server.url, ping_interval=0.02, ping_timeout=None) as client,
        ):
            await asyncio.wait_for(pings.wait(), 20)
            assert client.is_connected

    async def test_two_of_ours_keep_each_other_alive(self, growing: Any) -> None:
        for seconds in growing(0.2):
            options: dict[str, Any] = {"ping_interval": seconds / 10, "ping_timeout": seconds}
            async with serve(lambda one: b"yes", read_timeout=seconds, **options) as server:
                async with connect(f"ws://127.0.0.1:{server.port}", **options) as client:
                    await asyncio.sleep(2 * seconds)  # longer than every timeout
                    with contextlib.suppress(ConnectionLostError):
                        assert (await client.send(message())).data == b"yes"
                    if client.stats()["lost"] == 0:
                        break

    async def test_a_ping_is_answered_while_a_handler_runs(self, raw_client: Any) -> None:
        go = asyncio.Event()

        async def handler(one: SecureMessage) -> None:
            await go.wait()

        async with serve(handler) as server, raw_client(server.port) as peer:
            peer.ask("m-1")
            peer.send(PING, b"still there?")
            assert await peer.read_frame() == (PONG, b"still there?", True, False)
            go.set()
            assert (await peer.read_json())["message_id"] == "m-1"

    async def test_a_lost_peer_costs_the_calls_and_the_client_dials_again(
        self, lying_server: Any, eventually: Any
    ) -> None:
        async def freezing(peer: Any) -> None:
            if server.accepted == 1:
                await peer.read_end()
            else:
                await peer.until_closed()

        async with lying_server(freezing) as server:
            client = Client(
                server.url,
                ping_interval=0.03,
                ping_timeout=0.03,
                backoff=lambda attempt: 0.0,
                close_timeout=0.1,
            )
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            await eventually(lambda: client.stats()["reconnects"] == 1)
            await client.close()


class TestSilence:
    async def test_a_server_ends_a_silent_connection(self, raw_client: Any, eventually: Any) -> None:
        async with (
            serve(lambda one: None, read_timeout=0.05, ping_interval=None) as server,
            raw_client(server.port) as peer,
        ):
            assert await peer.read_close() == (1011, "read timeout")
            assert await peer.read_end() == b""
            await eventually(lambda: server.connection_count == 0)

    async def test_none_waits(self, raw_client: Any) -> None:
        async with (
            serve(lambda one: None, read_timeout=None, ping_interval=None, keepalive_interval=None) as server,
            raw_client(server.port) as peer,
        ):
            (link,) = server.connections
            assert link._due == float("inf")  # type: ignore[attr-defined]  # nothing can come due
            peer.ask("m-1")
            assert (await peer.read_json())["success"] is True

    async def test_a_client_calls_no_silence_death(self, lying_server: Any) -> None:
        async def slow(peer: Any) -> None:
            request = await peer.read_json()
            await asyncio.sleep(0.1)
            peer.answer(request["id"])
            await peer.until_closed()

        async with (
            lying_server(slow) as server,
            connect(server.url, read_timeout=0.03, ping_interval=None) as client,
        ):
            assert (await client.send(message(), timeout=30)).success


class TestKeepalive:
    async def test_a_client_sends_an_empty_message_that_its_peer_refuses(self, lying_server: Any) -> None:
        sent: list[dict[str, Any]] = []
        enough = asyncio.Event()

        async def plain_go_server(peer: Any) -> None:
            while (frame := await peer.read_frame()).opcode != CLOSE:
                if frame.opcode != TEXT:
                    continue
                sent.append(json.loads(frame.payload))
                if sent[-1]["payload"]:
                    peer.answer(sent[-1]["id"])
                else:
                    peer.answer(sent[-1]["id"], success=False, error="payload is required")
                if len(sent) == 3:
                    enough.set()
            peer.send(CLOSE, frame.payload)

        async with (
            lying_server(plain_go_server) as server,
            connect(server.url, keepalive_interval=0.05, ping_interval=None) as client,
        ):
            await client.send(message())
            await asyncio.wait_for(enough.wait(), 20)
            stats = client.stats()
            assert (stats["sent"], stats["answered"], stats["late"], stats["invalid"]) == (1, 1, 0, 0)
        first, second, third = sent[:3]
        assert second["payload"] is None
        assert second["did"] == first["did"] == "did:sage:test"
        assert len({first["id"], second["id"], third["id"]}) == 3

    async def test_one_of_ours_refuses_it_and_does_not_call_its_handler(self, eventually: Any) -> None:
        called: list[SecureMessage] = []
        async with serve(called.append) as server:  # type: ignore[arg-type]
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(url, keepalive_interval=0.02, ping_interval=None, encoding="plain") as client:
                await client.send(message())
                await eventually(lambda: server.stats()["invalid"] >= 3)
                assert len(called) == 1
                assert client.stats()["late"] == 0

    async def test_a_server_sends_an_answer_to_nobody(self, raw_client: Any) -> None:
        async with (
            serve(lambda one: None, keepalive_interval=0.05, ping_interval=None) as server,
            raw_client(server.port) as peer,
        ):
            peer.ask("m-1")
            assert (await peer.read_json())["message_id"] == "m-1"
            for _ in range(2):
                assert await peer.read_json() == {"success": True, "message_id": ""}
            assert server.stats()["answered"] == 1

    async def test_a_client_of_ours_takes_no_notice(self, eventually: Any) -> None:
        async with serve(lambda one: None, keepalive_interval=0.02, ping_interval=None) as server:
            async with connect(f"ws://127.0.0.1:{server.port}", encoding="plain") as client:
                await client.send(message())
                heard = client.stats()["bytes_in"]
                await eventually(lambda: client.stats()["bytes_in"] > heard + 60)
                assert (await client.send(message())).success
                assert client.stats()["late"] == client.stats()["invalid"] == 0

    @pytest.mark.parametrize("spoken", [False, True])
    async def test_a_peer_that_has_not_spoken_sage_gets_none(self, raw_client: Any, spoken: bool) -> None:
        async with (
            serve(
                lambda one: None, keepalive_interval=0.02, ping_interval=None if spoken else 0.15
            ) as server,
            raw_client(server.port) as peer,
        ):
            if spoken:
                peer.send_json({"id": "m-1"})  # a decodable message is enough
                await peer.read_json()
            frame = await peer.read_frame()
            assert frame.opcode == (TEXT if spoken else PING)

    async def test_off_none_is_sent(self, raw_client: Any) -> None:
        async with (
            serve(lambda one: None, keepalive_interval=None, ping_interval=0.1) as server,
            raw_client(server.port) as peer,
        ):
            peer.ask("m-1")
            await peer.read_json()
            assert (await peer.read_frame()).opcode == PING

    async def test_traffic_makes_it_needless(self, raw_client: Any, growing: Any) -> None:
        for seconds in growing(0.2):
            async with (
                serve(lambda one: None, keepalive_interval=seconds, ping_interval=None) as server,
                raw_client(server.port) as peer,
            ):
                for number in range(30):
                    peer.ask(f"m-{number}")
                    if (await peer.read_json())["message_id"] != f"m-{number}":
                        break
                    await asyncio.sleep(seconds / 20)
                else:
                    break


def small_buffer(held: Any, which: int) -> None:
    """Let the kernel hold little, so that what it takes is what the peer reads."""
    with socket.socket(fileno=os.dup(held.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, which, 65536)


class TestPeersThatTakeNoBytes:
    async def test_a_client_cuts_one_after_write_timeout(self, lying_server: Any) -> None:
        async def stalled(peer: Any) -> None:
            peer.writer.transport.pause_reading()
            await asyncio.get_running_loop().create_future()

        async with lying_server(stalled) as server:
            client = Client(server.url, write_timeout=0.1, reconnect=False, ping_interval=None)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(WriteTimeoutError, match=r"the peer took no bytes for 0\.1 s") as raised:
                await client.send(message(b"x" * 11_000_000, id="m-1"))
            assert loop.time() - begun < 20
            assert raised.value.message_id == "m-1"
            assert isinstance(raised.value, TimeoutError)
            assert not client.is_connected
            await client.close()

    async def test_a_server_cuts_one_after_write_timeout(self, raw_client: Any, eventually: Any) -> None:
        async with serve(lambda one: one.payload, write_timeout=0.1, ping_interval=None) as server:
            async with raw_client(server.port) as peer:
                peer.writer.transport.pause_reading()
                peer.ask("m-1", b"x" * 11_000_000)
                await eventually(lambda: server.stats()["received"] == 1)
                await eventually(lambda: server.connection_count == 0)

    async def test_a_server_waits_no_longer_for_one_that_has_ended_its_side(
        self, raw_client: Any, eventually: Any
    ) -> None:
        options: dict[str, Any] = {"write_timeout": None, "ping_interval": None, "read_timeout": None}
        async with serve(lambda one: one.payload, close_timeout=0.1, **options) as server:
            async with raw_client(server.port) as peer:
                peer.writer.transport.pause_reading()
                peer.ask("m-1", b"x" * 11_000_000)
                await eventually(lambda: any(link.blocked for link in server._links))
                peer.writer.write_eof()
                await eventually(lambda: server.connection_count == 0)

    async def test_one_that_takes_them_slowly_lives(self, lying_server: Any, growing: Any) -> None:
        async def slow(peer: Any) -> None:
            small_buffer(peer.writer.get_extra_info("socket"), socket.SO_RCVBUF)
            head = await peer.read_exactly(14)
            left = int.from_bytes(head[2:10], "big")
            while left:
                left -= len(await peer.reader.read(min(left, 150_000)))
                await asyncio.sleep(seconds / 40)
            while (frame := await peer.read_frame()).opcode == PING:
                peer.send(PONG, frame.payload)
            assert frame.opcode == TEXT
            peer.answer(json.loads(frame.payload)["id"])
            await peer.until_closed()

        answered = False
        for seconds in growing(0.4):
            times = {"write_timeout": seconds, "ping_interval": seconds / 8, "ping_timeout": seconds / 3}
            async with (
                lying_server(slow) as server,
                connect(server.url, max_message_size=None, reconnect=False, **times) as client,
            ):
                link = client._link
                assert link is not None
                small_buffer(link.socket or link._transport.get_extra_info("socket"), socket.SO_SNDBUF)
                first = asyncio.create_task(client.send(message(b"x" * 6_000_000)))
                await asyncio.sleep(0)
                with contextlib.suppress(TransportError):
                    answered = (await client.send(message())).success  # waited behind the big one
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            if answered:
                break

    async def test_while_blocked_further_sends_wait(self, lying_server: Any, eventually: Any) -> None:
        go = asyncio.Event()

        async def pausing(peer: Any) -> None:
            peer.writer.transport.pause_reading()
            await go.wait()
            peer.writer.transport.resume_reading()
            for _ in range(3):
                peer.answer((await peer.read_json())["id"])
            await peer.until_closed()

        async with lying_server(pausing) as server, connect(server.url) as client:
            link = client._link
            assert link is not None
            first = asyncio.create_task(client.send(message(b"x" * 11_000_000)))
            await eventually(lambda: link.blocked)
            others = [asyncio.create_task(client.send(message())) for _ in range(2)]
            await asyncio.sleep(0)
            stats = client.stats()
            assert (stats["pending"], stats["queued"], stats["sent"]) == (1, 2, 1)
            go.set()
            assert all(response.success for response in await asyncio.gather(first, *others))
