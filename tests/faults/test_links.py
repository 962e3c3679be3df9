"""Each fault of the proxy, each way, under load: calls end once, no answer goes astray, all goes on after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.proxy import FaultProxy, Way

from sage_ws import Client, Server, connect, serve

pytestmark = pytest.mark.usefixtures("baseline")

SIZES = (10, 100, 70_000)
LIVELY: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.4, "close_timeout": 0.5}
WAYS = pytest.mark.parametrize("way", ["up", "down"])


@asynccontextmanager
async def running(
    ledger: Ledger, *, buffer: int = 0, **options: Any
) -> AsyncIterator[tuple[Server, FaultProxy, Client]]:
    """A server, the proxy before it, a client through it that dials again at once; the ledger's check."""
    options = {**LIVELY, **options}
    async with serve(ledger.handler, **options) as server, FaultProxy(server.port, buffer=buffer) as proxy:
        async with connect(proxy.url, backoff=lambda _: 0.01, **options) as client:
            yield server, proxy, client
            stats = client.stats()
            assert (stats["pending"], stats["queued"]) == (0, 0)
        proxy.heal()
    assert server.stats()["pending"] == 0
    ledger.check()


def of(proxy: FaultProxy, way: str) -> Way:
    return proxy.up if way == "up" else proxy.down


@WAYS
async def test_delays_cost_nothing_but_time(way: str) -> None:
    ledger = Ledger()
    async with running(ledger, ping_timeout=10) as (_, proxy, client):
        async with Load(ledger, client, sizes=SIZES, timeout=30) as load:
            await load.answers()
            of(proxy, way).delay = 0.01
            await load.answers(30)
        assert ledger.answered == len(ledger.calls)
        assert client.stats()["dials"] == 1


@WAYS
async def test_nor_do_slices_of_a_byte(way: str) -> None:
    ledger = Ledger()
    async with running(ledger, ping_timeout=10) as (_, proxy, client):
        async with Load(ledger, client, sizes=(10,), timeout=30) as load:
            await load.answers()
            of(proxy, way).slice = 1
            await load.answers(50)
            proxy.heal()
        assert ledger.answered == len(ledger.calls)
        assert client.stats()["dials"] == 1


@WAYS
async def test_a_stall_that_ends_costs_nothing_either(way: str) -> None:
    ledger = Ledger()
    async with running(ledger, ping_timeout=30, write_timeout=30) as (_, proxy, client):
        async with Load(ledger, client, sizes=SIZES, timeout=30) as load:
            await load.answers()
            of(proxy, way).stall()
            await standstill(lambda: of(proxy, way).passed + ledger.answered)
            proxy.heal()
            await load.answers()
        assert ledger.answered == len(ledger.calls)
        assert client.stats()["dials"] == 1


async def standstill(moved: Callable[[], float]) -> None:
    """Wait until this does not change any more: what buffers held has come, and nothing more will.

    Over ten turns of the loop, which all ends share: where the process stands still, time alone says nothing.
    """
    before, same = -1.0, 0
    while same < 10:  # there is no event for what does not happen
        now = moved()
        same = same + 1 if now == before else 0
        before = now
        await asyncio.sleep(0.005)


def drop(way: Way) -> None:
    way.drops = True


def cut(way: Way) -> None:
    way.cut_at = 0


def reset(way: Way) -> None:
    way.reset_at = 0


@WAYS
@pytest.mark.parametrize("fault", [drop, Way.stall, cut, reset])
async def test_what_breaks_the_link_costs_the_calls_that_left(fault: Callable[[Way], None], way: str) -> None:
    ledger = Ledger()
    async with running(ledger) as (_, proxy, client):
        async with Load(ledger, client, sizes=SIZES, timeout=20) as load:
            await load.answers()
            fault(of(proxy, way))
            await load.losses()
            proxy.heal()
            await load.answers()
        assert set(ledger.errors) == {"ConnectionLostError"}
        assert client.stats()["reconnects"] >= 1


@WAYS
@pytest.mark.parametrize("by", ["cut", "reset"])
async def test_a_link_that_breaks_over_and_over_at_any_byte(by: str, way: str) -> None:
    ledger = Ledger()
    async with running(ledger) as (_, proxy, client):
        async with Load(ledger, client, sizes=(10, 300), timeout=20) as load:
            for at in (1_000, 1_001, 1_003, 2_007, 5_000):  # behind both heads, in the middle of frames
                setattr(of(proxy, way), f"{by}_at", at)
                await load.losses()
            proxy.heal()
            await load.answers()
        assert set(ledger.errors) == {"ConnectionLostError"}
        assert client.stats()["reconnects"] >= 5


@pytest.mark.parametrize("at", [1, 60, 150])
@WAYS
async def test_an_opening_handshake_that_breaks_is_tried_again(way: str, at: int) -> None:
    ledger = Ledger()
    async with running(ledger) as (_, proxy, client):
        proxy.cut()
        of(proxy, way).cut_at = at
        async with Load(ledger, client, callers=4, timeout=20) as load:
            accepted = proxy.accepted
            while proxy.accepted < accepted + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            proxy.heal()
            await load.answers(10)


async def test_a_link_lost_before_its_batch_leaves() -> None:
    """uvloop's transport raises for who writes behind its end: nothing of that may reach the loop."""
    ledger = Ledger()
    async with running(ledger) as (_, proxy, client):
        for _ in range(3):
            await ledger.call(client)
            calls = [asyncio.create_task(ledger.call(client)) for _ in range(5)]
            client._link._transport.abort()  # type: ignore[union-attr]  # heard of behind the calls
            await asyncio.gather(*calls)
        assert ledger.lost >= 5


async def test_both_sides_full_is_no_deadlock() -> None:
    """Requests fill every buffer upwards, answers every one downwards, and then the network moves again."""
    ledger = Ledger()
    options: dict[str, Any] = {"ping_timeout": 30, "write_timeout": 30, "max_queue_bytes": 64 * 1024}
    async with running(ledger, buffer=16 * 1024, **options) as (server, proxy, client):
        async with Load(ledger, client, callers=64, sizes=(60_000,), timeout=40) as load:
            await load.answers(10)
            proxy.stall()
            await standstill(lambda: client.stats()["bytes_out"] + server.stats()["received"])
            assert client.stats()["pending"] + client.stats()["queued"] == 64
            proxy.heal()
            await load.answers(64)
        assert ledger.answered == len(ledger.calls)
        assert client.stats()["dials"] == 1


async def test_a_half_open_peer_is_found_at_both_ends(eventually: Any) -> None:
    """Within ping_interval + ping_timeout + 1 s, which the soak measures; the calls that wait end then."""
    ledger = Ledger()
    async with running(ledger, read_timeout=None) as (server, proxy, client):
        calls = [asyncio.create_task(ledger.call(client, timeout=60, wait=60)) for _ in range(20)]
        await eventually(lambda: server.stats()["pending"] == 20)
        proxy.stall()
        entries = await asyncio.gather(*calls)
        assert {entry.error for entry in entries} == {"ConnectionLostError"}
        assert all(entry.took is not None and entry.took < 15 for entry in entries)
        await eventually(lambda: server.connection_count == 0)
        assert proxy.connections == 0 or not client.is_connected
