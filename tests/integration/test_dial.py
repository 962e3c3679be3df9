"""How a client dials: once for all who wait, failing fast at first, again by itself after a loss.

Over 500 lines: first dials, later ones and what cannot heal share one peer that fails in so many ways.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import math
import os
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DialError,
    DialTimeoutError,
    QueueTimeoutError,
    SecureMessage,
    State,
    connect,
    serve,
)
from sage_ws.aio.link import Loss

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def message(payload: bytes = b"x", **fields: Any) -> SecureMessage:
    return SecureMessage(**{"payload": payload, "did": "did:sage:test", "signature": b"canary", **fields})


async def echo(peer: Any) -> None:
    while (frame := await peer.read_frame()).opcode != CLOSE:
        request = json.loads(frame.payload)
        peer.answer(request["id"], base64.b64decode(request["payload"]))
    peer.send(CLOSE, frame.payload[:2])


class Backoff:
    """A ``backoff`` without waiting, which remembers what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.attempts: list[int] = []
        self._seconds = seconds

    def __call__(self, attempt: int) -> float:
        self.attempts.append(attempt)
        return self._seconds


class TestFirstDial:
    async def test_the_first_sends_share_one(self, lying_server: Any) -> None:
        async with lying_server(echo) as server:
            client = Client(server.url)
            responses = await asyncio.gather(*(client.send(message(b"%d" % n)) for n in range(100)))
            assert [response.data for response in responses] == [b"%d" % n for n in range(100)]
            assert server.accepted == client.stats()["dials"] == 1
            await client.close()

    async def test_connect_joins_it_and_may_be_called_again(self, lying_server: Any) -> None:
        async with lying_server(echo) as server:
            client = Client(server.url)
            await asyncio.gather(client.connect(), client.send(message()), client.connect())
            await client.connect()
            assert client.state is State.OPEN
            assert server.accepted == 1
            await client.close()

    async def test_connect_does_not_wait_for_room(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.until_closed()

        async with lying_server(silent) as server:
            client = Client(server.url, max_pending=1)
            sends = [asyncio.create_task(client.send(message())) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.wait_for(client.connect(), 20)
            await client.close()
            await asyncio.gather(*sends, return_exceptions=True)

    async def test_await_and_async_with_connect(self, lying_server: Any) -> None:
        async with lying_server(echo) as server:
            client = await connect(server.url)
            assert client.is_connected
            await client.close()
            async with connect(server.url) as client:
                assert client.state is State.OPEN
            assert client.state is State.CLOSED

    async def test_nothing_leaves_before_the_101(self, lying_server: Any, opening_answer: Any) -> None:
        before: list[bytes] = []

        async def patient(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            sends.append(asyncio.create_task(client.send(message())))
            for _ in range(5):
                await asyncio.sleep(0)
            before.append(bytes(peer.reader._buffer))
            peer.write(opening_answer(head))
            await echo(peer)

        sends: list[Any] = []
        async with lying_server(patient, handshake=False) as server:
            client = Client(server.url)
            await client.send(message())
            await sends[0]
            await client.close()
        assert before == [b""]

    async def test_what_follows_the_101_in_its_segment_is_read(
        self, lying_server: Any, opening_answer: Any
    ) -> None:
        async def eager(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(opening_answer(head) + peer.frame(PING, b"early"))
            assert await peer.read_frame() == (PONG, b"early", True, True)
            await echo(peer)

        async with lying_server(eager, handshake=False) as server, connect(server.url) as client:
            assert (await client.send(message())).success

    async def test_an_opening_answer_byte_by_byte(self, lying_server: Any, opening_answer: Any) -> None:
        async def slow(peer: Any) -> None:
            for byte in opening_answer(await peer.reader.readuntil(b"\r\n\r\n")):
                peer.write(bytes([byte]))
                await peer.writer.drain()
            await echo(peer)

        async with lying_server(slow, handshake=False) as server, connect(server.url) as client:
            assert (await client.send(message())).success

    async def test_the_request_carries_headers_origin_and_path(self, lying_server: Any) -> None:
        heads: list[bytes] = []

        async def keep(peer: Any) -> None:
            heads.append(peer.head)
            await echo(peer)

        async with lying_server(keep) as server:
            url = server.url + "?a=b"
            async with connect(url, headers={"Authorization": "Bearer canary-t"}, origin="https://a.example"):
                pass
        lines = heads[0].decode().split("\r\n")
        assert lines[0] == "GET /ws?a=b HTTP/1.1"
        assert {"Authorization: Bearer canary-t", "Origin: https://a.example"} <= set(lines)
        assert f"Host: 127.0.0.1:{server.port}" in lines

    @pytest.mark.parametrize(
        ("encoding", "offered"),
        [
            ("auto", b"\r\nsec-websocket-protocol: sage.0.json, sage.1.cbor, sage.1.json\r\n"),
            ("cbor", b"\r\nsec-websocket-protocol: sage.0.json, sage.1.cbor\r\n"),
            ("json", b"\r\nsec-websocket-protocol: sage.0.json, sage.1.json\r\n"),
            ("plain", b""),
        ],
    )
    async def test_no_extension_is_offered_and_the_subprotocols_of_its_encoding(
        self, lying_server: Any, encoding: Any, offered: bytes
    ) -> None:
        heads: list[bytes] = []

        async def keep(peer: Any) -> None:
            heads.append(peer.head.lower())
            await echo(peer)

        async with lying_server(keep) as server, connect(server.url, encoding=encoding):
            pass
        assert (offered or b"\r\n") in heads[0]
        assert (b"sec-websocket-protocol" in heads[0]) is bool(offered)
        assert b"sec-websocket-extensions" not in heads[0]


class TestFailingFast:
    async def test_a_refused_connection_is_a_dial_error_at_once(self, closed_port: int) -> None:
        client = Client(f"ws://127.0.0.1:{closed_port}")
        with pytest.raises(DialError) as raised:
            await client.connect()
        why = os.strerror(errno.ECONNREFUSED)  # on either loop
        assert str(raised.value) == f"could not reach 127.0.0.1:{closed_port}: {why}"
        assert raised.value.status is None
        assert isinstance(raised.value.__cause__, OSError)
        with pytest.raises(DialError) as raised:
            await client.send(message(id="m-1"))
        assert raised.value.message_id == "m-1"
        assert client.state is State.IDLE
        assert client.stats()["dials"] == 2  # the next send dials anew
        assert client.stats()["failed"] == 1
        await client.close()

    async def test_all_who_wait_are_told_each_by_an_error_of_its_own(self, closed_port: int) -> None:
        client = Client(f"ws://127.0.0.1:{closed_port}")
        errors = await asyncio.gather(
            *(client.send(message(id=f"m-{number}")) for number in range(10)), return_exceptions=True
        )
        assert all(isinstance(error, DialError) for error in errors)
        assert [error.message_id for error in errors] == [f"m-{number}" for number in range(10)]  # type: ignore[union-attr]
        assert client.stats()["dials"] == 1
        assert client.stats()["queued"] == 0

    async def test_a_silent_peer_costs_dial_timeout(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.reader.read(-1)

        async with lying_server(silent, handshake=False) as server:
            client = Client(server.url, dial_timeout=0.05)
            with pytest.raises(DialTimeoutError, match=r"within 0\.05 s") as raised:
                await client.send(message(id="m-1"))
            assert raised.value.message_id == "m-1"
            assert client.state is State.IDLE

    async def test_a_calls_timeout_may_be_shorter_than_the_dials(self, lying_server: Any) -> None:
        async def silent(peer: Any) -> None:
            await peer.reader.read(-1)

        async with lying_server(silent, handshake=False) as server:
            client = Client(server.url)
            with pytest.raises(QueueTimeoutError) as raised:
                await client.send(message(id="m-1"), timeout=0.05)
            assert raised.value.message_id == "m-1"
            assert client.state is State.DIALING
            await client.close()

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (b"", "the connection ended during the opening handshake"),
            (b"HTTP/1.1 101 Swi", "the connection ended during the opening handshake"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP: 'SSH-2.0-OpenSSH'"),
            (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", "the 101 answer is not a WebSocket's: "),
            (b"HTTP/1.0 200 OK\r\n\r\n", "the answer is HTTP/1.0, not HTTP/1.1"),
            (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP: 'SSH-2.0-OpenSSH'"),
            (b"x" * 9000, "the answer is not HTTP: 'xxx"),
            (b"HTTP/1.1 " + b"x" * 9000, "the answer is no opening handshake: the "),
            (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000, "the answer is no opening handshake: "),
        ],
    )
    async def test_what_is_no_opening_handshake_is_a_dial_error(
        self, lying_server: Any, answer: bytes, text: str
    ) -> None:
        async def lying(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(answer)
            await peer.writer.drain()
            if answer.startswith(b"HTTP/1.1 101 Swi") or not answer:
                return
            await peer.read_end()

        async with lying_server(lying, handshake=False) as server:
            client = Client(server.url)
            with pytest.raises(DialError) as raised:
                await client.connect()
            assert text in str(raised.value)
            assert len(str(raised.value)) < 1000

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"Content-Length: 14\r\n\r\nno such agent\n and more", ": 'no such agent'"),
            (b"\r\nuntil the end", ": 'until the end'"),
            (b"Content-Length: 0\r\n\r\n", ""),
            (b"Content-Length: 50\r\n\r\nshorter than it said", ": 'shorter than it said'"),
            (b"Content-Length: 5\r\n\r\n\x1b[31m\xff", r": '\x1b[31m'"),
        ],
    )
    async def test_another_status_is_shown_with_its_text(
        self, lying_server: Any, body: bytes, shown: str
    ) -> None:
        async def refusing(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(b"HTTP/1.1 404 Not Found\r\n" + body)

        async with lying_server(refusing, handshake=False) as server:
            client = Client(server.url)
            with pytest.raises(DialError) as raised:
                await client.connect()
            assert str(raised.value) == f"the server answered HTTP 404{shown}"
            assert raised.value.status == 404

    async def test_an_endless_body_is_cut(self, lying_server: Any) -> None:
        async def refusing(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(b"HTTP/1.1 500 Sorry\r\n\r\n")
            await peer.writer.drain()
            await asyncio.sleep(0.01)  # so that head and body are two reads
            while True:
                peer.write(b"x" * 65536)
                await peer.writer.drain()

        async with lying_server(refusing, handshake=False) as server:
            with pytest.raises(DialError, match=r"HTTP 500.*65536 characters") as raised:
                await Client(server.url).connect()
            assert len(str(raised.value)) < 400

    async def test_a_redirect_is_not_followed(self, lying_server: Any) -> None:
        async def elsewhere(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(f"HTTP/1.1 302 Found\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n".encode())

        async with lying_server(echo) as target, lying_server(elsewhere, handshake=False) as server:
            with pytest.raises(DialError) as raised:
                await Client(server.url).connect()
            assert raised.value.status == 302
            assert target.accepted == 0

    async def test_headers_that_fail_are_a_dial_error(self, lying_server: Any) -> None:
        def broken() -> dict[str, str]:
            raise OSError("no token to be had")

        async with lying_server(echo) as server:
            with pytest.raises(DialError, match="headers= failed: OSError: no token to be had"):
                await Client(server.url, headers=broken).connect()
            assert server.accepted == 0

    async def test_a_name_that_cannot_be_resolved_is_a_dial_error(self) -> None:
        for host in ("name.invalid", "a" * 64 + ".example"):
            with pytest.raises(DialError):
                await Client(f"ws://{host}:1").connect()


class TestWaitForReady:
    async def test_a_first_dial_is_retried_until_the_server_is_there(
        self, lying_server: Any, closed_port: int, eventually: Any
    ) -> None:
        backoff = Backoff()
        client = Client(f"ws://127.0.0.1:{closed_port}", wait_for_ready=True, backoff=backoff)
        sending = asyncio.create_task(client.send(message(b"patience")))
        await eventually(lambda: client.stats()["dials"] >= 3)
        async with lying_server(echo, port=closed_port):
            assert (await sending).data == b"patience"
            assert backoff.attempts == list(range(len(backoff.attempts)))
            assert client.stats()["reconnects"] == 0
            await client.close()

    async def test_within_the_callers_timeout(self, closed_port: int, eventually: Any) -> None:
        client = Client(f"ws://127.0.0.1:{closed_port}", wait_for_ready=True, backoff=Backoff(0.01))
        patient = asyncio.create_task(client.send(message()))
        await eventually(lambda: client.stats()["dials"] > 1)  # one has failed
        with pytest.raises(QueueTimeoutError) as raised:
            await client.send(message(id="m-1"), timeout=0.1)
        assert raised.value.message_id == "m-1"
        assert isinstance(raised.value.__cause__, DialError)  # what stood in the way
        await client.close()
        with pytest.raises(ClosedError):
            await patient

    async def test_without_one_within_dial_timeout(self, closed_port: int, growing: Any) -> None:
        for seconds in growing(0.1):
            client = Client(
                f"ws://127.0.0.1:{closed_port}",
                wait_for_ready=True,
                backoff=Backoff(0.01),
                dial_timeout=seconds,
            )
            with pytest.raises(QueueTimeoutError):
                await client.send(message())
            dials = client.stats()["dials"]
            with pytest.raises(DialTimeoutError, match=rf"could not reach .* within {seconds} s") as raised:
                await client.connect()
            await client.close()
            if client.stats()["dials"] > dials + 1:
                break
        assert isinstance(raised.value.__cause__, DialError)

    async def test_it_stops_when_nobody_waits_any_more(self, closed_port: int, eventually: Any) -> None:
        client = Client(f"ws://127.0.0.1:{closed_port}", wait_for_ready=True, backoff=Backoff(0.01))
        with pytest.raises(QueueTimeoutError):
            await client.send(message(), timeout=0.05)
        await eventually(lambda: client.state is State.IDLE)
        dials = client.stats()["dials"]
        assert client._dialing is None
        assert client.stats()["dials"] == dials

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 407, 410, 426, 451])
    async def test_what_cannot_heal_is_raised_at_once(self, lying_server: Any, status: int) -> None:
        async def refusing(peer: Any) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())

        backoff = Backoff()
        async with lying_server(refusing, handshake=False) as server:
            client = Client(server.url, wait_for_ready=True, backoff=backoff)
            with pytest.raises(DialError) as raised:
                await client.send(message())
            assert raised.value.status == status
            assert backoff.attempts == []
            assert server.accepted == 1

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_what_may_heal_is_tried_again(
        self, lying_server: Any, opening_answer: Any, status: int
    ) -> None:
        async def unready(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            if server.accepted < 3:
                peer.write(f"HTTP/1.1 {status} Later\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                peer.write(opening_answer(head))
                await echo(peer)

        async with lying_server(unready, handshake=False) as server:
            async with connect(server.url, wait_for_ready=True, backoff=Backoff()) as client:
                assert (await client.send(message())).success
            assert client.stats()["dials"] == 3

    async def test_a_backoff_that_fails_ends_the_wait(self, closed_port: int) -> None:
        def broken(attempt: int) -> float:
            raise LookupError("no backoff")

        client = Client(f"ws://127.0.0.1:{closed_port}", wait_for_ready=True, backoff=broken)
        with pytest.raises(DialError, match="dialling failed: LookupError: no backoff") as raised:
            await client.send(message())
        assert isinstance(raised.value.__cause__, LookupError)
        assert client.state is State.IDLE

    @pytest.mark.parametrize("given", [math.nan, "soon", None])
    async def test_a_backoff_that_gives_no_number_ends_the_wait(self, closed_port: int, given: Any) -> None:
        client = Client(f"ws://127.0.0.1:{closed_port}", wait_for_ready=True, backoff=lambda attempt: given)
        with pytest.raises(DialError, match=r"dialling failed: (Value|Type)Error: "):
            await asyncio.wait_for(client.send(message()), 10)
        assert client.state is State.IDLE


class TestReconnect:
    async def test_headers_that_can_be_had_once_are_there_each_time(
        self, lying_server: Any, eventually: Any
    ) -> None:
        heads: list[bytes] = []

        async def dropping(peer: Any) -> None:
            heads.append(peer.head)
            peer.abort()

        async with lying_server(dropping) as server:
            client = Client(
                server.url, backoff=Backoff(), headers=iter([("Authorization", "Bearer canary-t")])
            )
            await client.connect()
            await eventually(lambda: len(heads) >= 2)
            await client.close()
        assert all(b"Authorization: Bearer canary-t" in head for head in heads)

    async def test_it_dials_again_by_itself_with_fresh_headers(
        self, lying_server: Any, eventually: Any
    ) -> None:
        heads: list[bytes] = []

        async def dropping(peer: Any) -> None:
            heads.append(peer.head)
            if server.accepted == 1:
                peer.answer((await peer.read_json())["id"])
                await peer.writer.drain()
                peer.abort()
            else:
                await echo(peer)

        tokens = iter(range(100))
        backoff = Backoff()
        async with lying_server(dropping) as server:
            client = Client(
                server.url,
                backoff=backoff,
                headers=lambda: {"Authorization": f"Bearer canary-{next(tokens)}"},
            )
            await client.send(message())
            await eventually(lambda: client.stats()["reconnects"] == 1)
            assert client.state is State.OPEN
            assert (await client.send(message(b"again"))).data == b"again"
            assert backoff.attempts == [0]
            await client.close()
        assert [b"Bearer canary-0" in heads[0], b"Bearer canary-1" in heads[1]] == [True, True]

    async def test_a_send_meanwhile_waits_for_the_new_connection(
        self, lying_server: Any, eventually: Any
    ) -> None:
        again = asyncio.Event()

        async def dropping(peer: Any) -> None:
            if server.accepted == 1:
                await peer.open_as_server()
                peer.answer((await peer.read_json())["id"])
                peer.close_frame(1001, "restarting")
                await peer.read_close()
                return
            await again.wait()
            await peer.open_as_server()
            await echo(peer)

        async with lying_server(dropping, handshake=False) as server:
            client = Client(server.url, backoff=Backoff())
            await client.send(message())
            await eventually(lambda: client.state is State.DIALING)
            assert not client.is_connected
            waiting = [asyncio.create_task(client.send(message(b"%d" % n))) for n in range(3)]
            await asyncio.sleep(0)
            assert client.stats()["queued"] == 3
            again.set()
            assert [(await one).data for one in waiting] == [b"0", b"1", b"2"]
            await client.close()

    async def test_its_time_may_run_out(self, lying_server: Any, eventually: Any) -> None:
        async def dropping(peer: Any) -> None:
            peer.abort()

        async with lying_server(dropping) as server:
            client = Client(server.url, backoff=Backoff(60))
            await client.connect()
            await eventually(lambda: client.state is State.WAITING)
            with pytest.raises(QueueTimeoutError) as raised:
                await client.send(message(id="m-1"), timeout=0.05)
            assert raised.value.message_id == "m-1"
            assert client.stats()["queued"] == 0
            await client.close()

    async def test_attempts_count_up_and_start_anew_after_an_answer(
        self, lying_server: Any, eventually: Any
    ) -> None:
        async def sometimes(peer: Any) -> None:
            if server.accepted in {2, 3}:
                peer.abort()
                return
            await peer.open_as_server()
            if server.accepted in {1, 4}:  # a connection that was never of use: no success
                peer.abort()
            elif server.accepted == 5:
                request = json.loads((await peer.read_frame()).payload)
                peer.answer(request["id"], b"x")
                await client_has(1)
                peer.abort()
            else:
                await echo(peer)

        async def client_has(answers: int) -> None:
            await eventually(lambda: client.stats()["answered"] == answers)

        backoff = Backoff()
        async with lying_server(sometimes, handshake=False) as server:
            client = Client(server.url, backoff=backoff)
            await client.connect()
            await eventually(lambda: client.state is State.OPEN and server.accepted == 5)
            assert (await client.send(message())).success
            await eventually(lambda: client.state is State.OPEN and server.accepted == 6)
            assert (await client.send(message())).success
            await client.close()
        assert backoff.attempts == [0, 1, 2, 3, 0]
        assert client.stats()["reconnects"] == 3

    async def test_off_the_first_loss_is_the_end(self, lying_server: Any) -> None:
        async def dropping(peer: Any) -> None:
            await peer.read_json()
            peer.abort()

        async with lying_server(dropping) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionLostError):
                await client.send(message())
            assert client.state is State.CLOSED
            await asyncio.wait_for(client.wait_closed(), 20)
            with pytest.raises(ClosedError):
                await client.send(message())
            assert client.stats()["dials"] == 1
            await client.close()

    async def test_off_a_connection_that_ends_as_it_opens_is_the_end_too(
        self, lying_server: Any, opening_answer: Any
    ) -> None:
        async def flashing(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            peer.write(opening_answer(head) + peer.frame(CLOSE, b"\x03\xf5"))
            await peer.read_end()

        async with lying_server(flashing, handshake=False) as server:
            client = Client(server.url, reconnect=False, close_timeout=0.2)
            with pytest.raises(ClosedError, match=r"\(1013\), and reconnect is off"):
                await asyncio.wait_for(client.send(message()), 20)
            assert client.state is State.CLOSED
            assert client.stats()["dials"] == 1
            await client.close()

    async def test_off_those_who_wait_for_room_are_told(self, lying_server: Any) -> None:
        async def dropping(peer: Any) -> None:
            await peer.read_json()
            peer.close_frame(1001, "bye")
            await peer.read_close()

        async with lying_server(dropping) as server:
            client = Client(server.url, reconnect=False, max_pending=1)
            results = await asyncio.gather(
                *(client.send(message(id=f"m-{number}")) for number in range(3)), return_exceptions=True
            )
            assert [type(result) for result in results] == [ConnectionLostError, ClosedError, ClosedError]
            assert "reconnect is off" in str(results[1])
            await client.close()

    @pytest.mark.parametrize("status", [401, 404])
    async def test_what_cannot_heal_ends_it(self, lying_server: Any, eventually: Any, status: int) -> None:
        refuse = asyncio.Event()

        async def dropping(peer: Any) -> None:
            if server.accepted == 1:
                await peer.open_as_server()
                peer.abort()
            else:
                await refuse.wait()
                peer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())

        async with lying_server(dropping, handshake=False) as server:
            client = Client(server.url, backoff=Backoff())
            await client.connect()
            await eventually(lambda: server.accepted == 2)
            waiting = asyncio.create_task(client.send(message()))
            await asyncio.sleep(0)
            refuse.set()
            with pytest.raises(DialError) as raised:
                await waiting
            assert raised.value.status == status
            assert client.state is State.IDLE
            with pytest.raises(DialError):  # it fails fast again
                await client.send(message())
            assert server.accepted == 3

    async def test_what_left_is_lost_and_what_did_not_is_sent_after(self, lying_server: Any) -> None:
        arrived: list[list[str]] = []

        async def dropping(peer: Any) -> None:
            arrived.append([])
            if server.accepted == 1:
                arrived[0].append((await peer.read_json())["id"])
                peer.abort()
                return
            while (frame := await peer.read_frame()).opcode != CLOSE:
                arrived[1].append(json.loads(frame.payload)["id"])
                peer.answer(arrived[1][-1])
            peer.send(CLOSE, frame.payload)

        async with lying_server(dropping) as server:
            client = Client(server.url, backoff=Backoff(), max_pending=1)
            lost, sent = await asyncio.gather(
                client.send(message(id="m-1")), client.send(message(id="m-2")), return_exceptions=True
            )
            assert isinstance(lost, ConnectionLostError)
            assert not isinstance(sent, BaseException)
            assert sent.message_id == "m-2"
            assert arrived == [["m-1"], ["m-2"]]
            await client.close()

    async def test_those_who_waited_for_room_leave_on_the_new_connection(self, lying_server: Any) -> None:
        async def answering_then_leaving(peer: Any) -> None:
            if server.accepted > 1:
                await echo(peer)
                return
            request = await peer.read_json()
            answer = peer.frame(TEXT, json.dumps({"success": True, "message_id": request["id"]}).encode())
            peer.write(answer + peer.frame(CLOSE, b"\x03\xe9"))

        async with lying_server(answering_then_leaving) as server:
            client = Client(server.url, backoff=Backoff(), max_pending=1)
            results = await asyncio.gather(*(client.send(message(b"%d" % n)) for n in range(3)))
            assert [one.data for one in results] == [b"", b"1", b"2"]
            await client.close()

    @pytest.mark.parametrize("reconnect", [True, False])
    async def test_a_place_granted_at_the_moment_of_the_loss_is_kept_for_the_new_connection(
        self, lying_server: Any, monkeypatch: pytest.MonkeyPatch, reconnect: bool
    ) -> None:
        async with lying_server(echo) as server:
            client = Client(server.url, backoff=Backoff(), max_pending=1, reconnect=reconnect)
            first = asyncio.create_task(client.send(message(b"0")))
            others = [asyncio.create_task(client.send(message(b"%d" % n))) for n in (1, 2)]
            await client.connect()
            link, answers_came = client._link, client._answers_came
            assert link is not None

            def losing() -> None:
                answers_came()
                if client._link is link:
                    assert client._turns.granted == 1  # the next has its place and has not run yet
                    link.cut(Loss("lost by the test"))

            monkeypatch.setattr(client, "_answers_came", losing)
            assert (await first).data == b"0"
            results = await asyncio.gather(*others, return_exceptions=True)
            if reconnect:
                assert [one.data for one in results] == [b"1", b"2"]  # type: ignore[union-attr]
            else:
                assert [type(one) for one in results] == [ClosedError, ClosedError]
            await client.close()

    async def test_a_connection_lost_before_the_dial_has_ended_counts_as_lost(
        self, lying_server: Any, opening_answer: Any, eventually: Any
    ) -> None:
        async def flashing(peer: Any) -> None:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            if server.accepted == 1:
                peer.write(opening_answer(head) + peer.frame(CLOSE, b"\x03\xe9"))
                await peer.read_end()
            else:
                peer.write(opening_answer(head))
                await echo(peer)

        async with lying_server(flashing, handshake=False) as server:
            client = Client(server.url, backoff=Backoff(), close_timeout=0.2)
            assert (await client.send(message(b"second try"))).data == b"second try"
            assert client.stats()["dials"] == 2
            await client.close()


async def test_a_real_server_restarts_and_its_client_finds_it_again(eventually: Any) -> None:
    async with serve(lambda one: b"first") as server:
        port = server.port
        client = Client(f"ws://127.0.0.1:{port}", backoff=Backoff(0.01))
        assert (await client.send(message())).data == b"first"
    await eventually(lambda: not client.is_connected)
    waiting = asyncio.create_task(client.send(message()))
    await asyncio.sleep(0)
    async with serve(lambda one: b"second", "127.0.0.1", port):
        assert (await waiting).data == b"second"
        await client.close()
