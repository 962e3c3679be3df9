"""`max_connections_per_address` and `…_per_identity`: who is refused, and that no place is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.endings import aborts, breaks_a_rule, hangs_up, is_closed, says_goodbye

from sage_ws import Client, DialError, RefusedError, SecureMessage, Server, connect, serve

ALICE, BOB = {"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}
BEHIND_PROXY: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"]}


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


async def echo(one: SecureMessage) -> bytes:
    return one.payload


async def authorize(request: Any) -> str | None:
    """The token is the name here; nobody without one, and mallory is not let in."""
    name = request.headers.get("Authorization", "").partition(" ")[2]
    if name == "mallory":
        raise RefusedError(403)
    return name or None


def told(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


@pytest.fixture
def status(http_status: Any, opening_request: Any) -> Callable[..., Awaitable[int]]:
    """``await status(server, headers)``: what an opening request gets, which is refused."""

    async def ask(server: Server, headers: dict[str, str] | None = None, **options: Any) -> int:
        return int((await http_status(server.port, opening_request("/ws", headers), **options))[0])

    return ask


# ── how connections end ───────────────────────────────────────────────────────────────
async def is_lost_to_its_server(peer: Any, server: Server) -> None:
    """Its ping is not answered."""
    await peer.until_closed()
    peer.abort()


ENDS = [says_goodbye, hangs_up, aborts, breaks_a_rule, is_closed, is_lost_to_its_server]


class TestPlaces:
    @pytest.mark.parametrize("end", ENDS)
    async def test_one_is_free_again_however_its_connection_ends(
        self, raw_client: Any, status: Any, eventually: Any, end: Callable[[Any, Server], Awaitable[None]]
    ) -> None:
        options: dict[str, Any] = {"authorize": authorize, "max_connections_per_identity": 1}
        if end is is_lost_to_its_server:
            options |= {"ping_interval": 0.3, "ping_timeout": 0.01}
        async with serve(echo, max_connections_per_address=1, **options) as server:
            for _ in range(3):
                async with raw_client(server.port, headers=ALICE) as peer:
                    assert await status(server, BOB) == 429
                    await end(peer, server)
                    await eventually(lambda: server.connection_count == 0)
                assert server.quotas is not None
                assert (len(server.quotas.addresses), len(server.quotas.identities)) == (0, 0)
            assert (server.stats()["accepted"], server.stats()["refused"]) == (3, 3)

    @pytest.mark.parametrize("of", ["address", "identity"])
    async def test_they_are_exact_when_all_come_at_once(self, of: str) -> None:
        async def slow(request: Any) -> str | None:
            await asyncio.sleep(0)
            return await authorize(request)

        async with serve(echo, authorize=slow, **{f"max_connections_per_{of}": 20}) as server:  # type: ignore[arg-type]
            url = f"ws://127.0.0.1:{server.port}"
            clients = [Client(url, headers=ALICE) for _ in range(30)]
            outcomes = await asyncio.gather(*(one.connect() for one in clients), return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, DialError) and one.status == 429]
            assert (outcomes.count(None), len(refused), server.connection_count) == (20, 10, 20)
            for one in clients:
                await one.close()

    async def test_who_is_not_in_takes_none(self, raw_client: Any, status: Any, eventually: Any) -> None:
        async with serve(echo, authorize=authorize, max_connections_per_address=1) as server:
            async with raw_client(server.port, handshake=False) as slow:
                slow.write(b"GET /")
                await eventually(lambda: server.openings)
                assert await status(server, {"Authorization": "Bearer mallory"}) == 403
                assert await status(server, {"Sec-WebSocket-Key": "short"}) == 400
                async with raw_client(server.port):
                    assert server.connection_count == 1

    async def test_a_drain_gives_all_back(self, raw_client: Any) -> None:
        async with serve(echo, max_connections_per_address=3) as server:
            async with raw_client(server.port) as one, raw_client(server.port) as another:
                draining = asyncio.create_task(server.drain())
                for peer in (one, another):
                    assert (await peer.until_closed())[0] == 1001
                await draining
            assert server.quotas is not None
            assert len(server.quotas.addresses) == 0


class TestAddresses:
    async def test_one_has_its_places_and_another_its_own(self, raw_client: Any, status: Any) -> None:
        async with serve(echo, max_connections_per_address=2, **BEHIND_PROXY) as server:
            async with (
                raw_client(server.port, headers=told("192.0.2.1")),
                raw_client(server.port, headers=told("192.0.2.1")),
            ):
                assert await status(server, told("192.0.2.1")) == 429
                async with raw_client(server.port, headers=told("192.0.2.2")) as other:
                    other.ask("m-1")
                    assert (await other.read_json())["message_id"] == "m-1"

    async def test_of_ipv6_a_network_of_64_bits_is_one(self, raw_client: Any, status: Any) -> None:
        async with serve(echo, max_connections_per_address=1, **BEHIND_PROXY) as server:
            async with raw_client(server.port, headers=told("2001:db8:0:1::1")):
                assert await status(server, told("2001:db8:0:1:ffff::2")) == 429
                async with raw_client(server.port, headers=told("2001:db8:0:2::1")):
                    assert server.connection_count == 2

    async def test_a_header_of_a_stranger_buys_no_place(self, raw_client: Any, status: Any) -> None:
        async with serve(
            echo, max_connections_per_address=1, trusted_proxies=["10.0.0.0/8", "unix"]
        ) as server:
            async with raw_client(server.port, headers=told("192.0.2.1")):
                assert await status(server, told("192.0.2.2")) == 429

    async def test_what_stands_before_the_callers_address_does_not_either(
        self, raw_client: Any, status: Any
    ) -> None:
        async with serve(echo, max_connections_per_address=1, **BEHIND_PROXY) as server:
            async with raw_client(server.port, headers=told("192.0.2.1")):
                assert await status(server, told("198.51.100.1, 192.0.2.1")) == 429
                assert await status(server, told("127.0.0.1, 192.0.2.1")) == 429

    async def test_on_a_unix_socket_nobody_has_one_but_by_a_trusted_proxy(self, tmp_path: Path) -> None:
        async def ask(head: bytes) -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(head)
            answers.append(int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]))
            return writer

        request = (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        path = str(tmp_path / "socket")
        for trusted, expected in (([], [101, 101, 101]), (["unix"], [101, 429, 101])):
            answers: list[int] = []
            async with serve(
                echo, unix=path, max_connections_per_address=1, trusted_proxies=trusted, close_timeout=0.1
            ):
                addresses = ("192.0.2.1", "192.0.2.1", "192.0.2.2")
                writers = [await ask(request.format(one).encode()) for one in addresses]
                for writer in writers:
                    writer.transport.abort()
            assert answers == expected

    async def test_the_refusal_says_why_once_in_the_log_and_a_client_may_try_again(
        self, raw_client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "sage_ws")
        async with serve(echo, max_connections_per_address=1) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with raw_client(server.port) as peer:
                with pytest.raises(DialError) as raised:
                    await connect(url)
                assert raised.value.status == 429
                said = "address '127.0.0.1' has its 1 connections"
                assert said in str(raised.value)
                records = [
                    one for one in caplog.records if one.name == "sage_ws.server" and "429" in one.message
                ]
                (record,) = records
                assert record.message.endswith(f"with 429: {said}")
                waiting = Client(url, wait_for_ready=True, backoff=lambda attempt: 0.005)
                call = asyncio.create_task(waiting.send(message(b"at last")))
                await says_goodbye(peer, server)
                assert (await asyncio.wait_for(call, 20)).data == b"at last"
                await waiting.close()


class TestIdentities:
    async def test_one_has_its_places_wherever_it_calls_from(self, raw_client: Any, status: Any) -> None:
        async with serve(echo, authorize=authorize, max_connections_per_identity=2, **BEHIND_PROXY) as server:
            async with (
                raw_client(server.port, headers={**ALICE, **told("192.0.2.1")}),
                raw_client(server.port, headers={**ALICE, **told("192.0.2.2")}),
            ):
                assert await status(server, {**ALICE, **told("192.0.2.3")}) == 429
                async with raw_client(server.port, headers={**BOB, **told("192.0.2.1")}):
                    assert server.connection_count == 3

    async def test_nobody_in_particular_has_no_limit(self, raw_client: Any) -> None:
        async with serve(echo, authorize=authorize, max_connections_per_identity=1) as server:
            async with raw_client(server.port), raw_client(server.port), raw_client(server.port):
                assert server.connection_count == 3
