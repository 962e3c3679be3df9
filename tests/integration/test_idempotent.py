"""``send(idempotent=True)``: sent again after a loss, with the same id, within its time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sage_ws import (
    Client,
    ClosedError,
    ConnectionLostError,
    DialError,
    QueueTimeoutError,
    ReadTimeoutError,
    SecureMessage,
)

TEXT = 0x1


def message(**fields: Any) -> SecureMessage:
    return SecureMessage(payload=b"x", did="did:sage:test", **fields)


class Losing:
    """A peer's script that hangs up on the first so many messages, and answers from then on.

    A client of it is given ``backoff``, so that no time is lost between.
    """

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.seen: list[str] = []

    async def __call__(self, peer: Any) -> None:
        while (frame := await peer.read_frame()).opcode == TEXT:
            asked = json.loads(frame.payload)
            self.seen.append(asked["id"])
            if len(self.seen) <= self.losses:
                peer.writer.transport.abort()
                return
            peer.answer(asked["id"], b"done")


def no_backoff(attempt: int) -> float:
    return 0.001


async def test_it_is_sent_until_it_is_answered(lying_server: Any) -> None:
    script = Losing(3)
    async with lying_server(script) as server:
        async with Client(server.url, backoff=no_backoff) as client:
            response = await client.send(message(id="1"), idempotent=True)
            assert response.data == b"done"
            assert script.seen == ["1"] * 4
            stats = client.stats()
            assert {name: stats[name] for name in ("retries", "failed", "sent", "answered", "pending")} == {
                "retries": 3,
                "failed": 0,
                "sent": 4,
                "answered": 1,
                "pending": 0,
            }


async def test_others_are_not(lying_server: Any) -> None:
    script = Losing(1)
    async with lying_server(script) as server, Client(server.url, backoff=no_backoff) as client:
        repeated, lost = await asyncio.gather(
            client.send(message(id="1"), idempotent=True),
            client.send(message(id="2")),
            return_exceptions=True,
        )
        assert isinstance(lost, ConnectionLostError)
        assert repeated.data == b"done"  # type: ignore[union-attr]
        assert "2" not in script.seen[1:]
        assert (client.stats()["failed"], client.stats()["retries"]) == (1, 1)


async def test_a_peer_that_stalls_is_left_for_another(lying_server: Any) -> None:
    """A message that was half taken is lost by ``write_timeout``: it goes out again too."""
    connections = 0

    async def script(peer: Any) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await over.wait()  # reads nothing
            return
        asked = await peer.read_json()
        peer.answer(asked["id"], b"done")
        await peer.read_end()

    over = asyncio.Event()
    async with lying_server(script) as server:
        async with Client(server.url, backoff=no_backoff, write_timeout=0.2, close_timeout=0.2) as client:
            big = SecureMessage(payload=b"x" * 8_000_000, did="did:sage:test")
            response = await client.send(big, idempotent=True)
            assert response.data == b"done"
            assert client.stats()["retries"] == connections - 1 >= 1
        over.set()


async def test_its_time_bounds_all_attempts(lying_server: Any, growing: Any) -> None:
    script = Losing(10**9)
    for seconds in growing(0.3):
        async with lying_server(script) as server, Client(server.url, backoff=no_backoff) as client:
            with pytest.raises((ReadTimeoutError, QueueTimeoutError)) as e:
                await client.send(message(id="7"), timeout=seconds, idempotent=True)
            assert e.value.message_id == "7"
            assert client.stats()["failed"] == 1
            if "before that" in str(e.value):  # and not while an answer was awaited
                break
    assert isinstance(e.value, ReadTimeoutError)
    assert str(e.value).startswith("no answer came in time; before that: the connection")


@pytest.mark.parametrize("limits", [{}, {"dial_timeout": None}, {"read_timeout": None}])
async def test_without_a_timeout_the_clients_own_bound_it(
    lying_server: Any, limits: dict[str, Any], growing: Any
) -> None:
    for seconds in growing(0.2):
        options = {"dial_timeout": seconds, "read_timeout": seconds, **limits}
        async with lying_server(Losing(10**9 if not limits else 5)) as server:
            async with Client(server.url, backoff=no_backoff, **options) as client:
                try:
                    assert (await client.send(message(), idempotent=True)).data == b"done"
                except (ReadTimeoutError, QueueTimeoutError):
                    if limits or not client.stats()["retries"]:
                        continue
                assert client.stats()["retries"] >= 1
                assert bool(client.stats()["answered"]) is bool(limits)
                break


async def test_a_message_that_never_left_says_so(lying_server: Any) -> None:
    client = Client("ws://127.0.0.1:1/ws")
    with pytest.raises(DialError):
        await client.send(message(), idempotent=True)
    await client.close()
    with pytest.raises(ClosedError):
        await client.send(message(), idempotent=True)


async def test_while_a_first_dial_is_tried_again_its_time_runs_out_unsent() -> None:
    client = Client("ws://127.0.0.1:1/ws", wait_for_ready=True, backoff=no_backoff)
    with pytest.raises(QueueTimeoutError):
        await client.send(message(), timeout=0.1, idempotent=True)
    await client.close()


class TestOnceItMayHaveBeenDeliveredItNeverCountsAsUnsent:
    async def test_when_the_time_runs_out_without_a_connection(self, lying_server: Any, growing: Any) -> None:
        for seconds in growing(0.2):
            script = Losing(1)
            async with lying_server(script) as server:
                client = Client(server.url, backoff=lambda attempt: 60.0)
                with pytest.raises((ReadTimeoutError, QueueTimeoutError)) as raised:
                    await client.send(message(), timeout=seconds, idempotent=True)
                await client.close()
            if client.stats()["retries"]:
                break
        assert isinstance(raised.value, ReadTimeoutError)
        assert "before that: the connection was lost" in str(raised.value)

    async def test_when_the_server_does_not_come_back(self, lying_server: Any) -> None:
        def give_up(attempt: int) -> float:
            raise LookupError("that was it")

        async with lying_server(Losing(1)) as server:
            client = Client(server.url, backoff=give_up)
            with pytest.raises(ConnectionLostError) as raised:
                await client.send(message(), timeout=30, idempotent=True)
            assert isinstance(raised.value.__cause__, DialError)
            await client.close()

    async def test_when_the_client_is_closed(self, lying_server: Any, eventually: Any) -> None:
        async with lying_server(Losing(1)) as server:
            client = Client(server.url, backoff=lambda attempt: 10.0)
            call = asyncio.create_task(client.send(message(), idempotent=True))
            await eventually(lambda: client.stats()["retries"])
            await client.close()
            with pytest.raises(ConnectionLostError):
                await call

    async def test_when_reconnect_is_off(self, lying_server: Any) -> None:
        async with lying_server(Losing(1)) as server:
            client = Client(server.url, reconnect=False)
            with pytest.raises(ConnectionLostError):
                await client.send(message(), idempotent=True)
            assert (client.stats()["retries"], client.stats()["failed"]) == (0, 1)
            await client.close()


async def test_cancelled_it_ends_wherever_it_is(lying_server: Any, eventually: Any) -> None:
    async with lying_server(Losing(1)) as server:
        client = Client(server.url, backoff=lambda attempt: 10.0)
        call = asyncio.create_task(client.send(message(), idempotent=True))
        await eventually(lambda: client.stats()["retries"])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (client.stats()["pending"], client.stats()["queued"]) == (0, 0)
        await client.close()


async def test_what_is_no_message_or_no_time_is_refused_at_once() -> None:
    client = Client("ws://127.0.0.1:1/ws")
    with pytest.raises(TypeError, match="message must be a SecureMessage, not str"):
        await client.send("x", idempotent=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be over 0"):
        await client.send(message(), timeout=-1, idempotent=True)
