"""Calls, streams, requests both ways, cancellations and deadlines together, while the link between fails.

Each way of the proxy in turn, over both encodings of the extended wire, one of them compressed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.faults.ledger import Ending, Ledger
from tests.faults.load import MIXED, Load
from tests.faults.proxy import FaultProxy, Way

from sage_ws import Client, Deflate, Server, connect, serve

pytestmark = pytest.mark.usefixtures("baseline")

LIVELY: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.4, "close_timeout": 0.5}
PATIENT: dict[str, Any] = {"ping_timeout": 30, "write_timeout": 30}
CBOR: dict[str, Any] = {"encoding": "cbor"}
JSON: dict[str, Any] = {
    "encoding": "json",
    "compression": Deflate(threshold=64, server_no_context_takeover=False),
}
WIRES = pytest.mark.parametrize("wire", [CBOR, JSON], ids=["cbor", "json, compressed"])
CERTAIN = [kind for kind in MIXED if not {"cancel_after", "leave_after", "timeout"} & kind.keys()]
"""Those whose callers wait for the end."""
SMALL = [kind for kind in MIXED if kind["size"] < 1000]


@asynccontextmanager
async def running(
    ledger: Ledger, wire: dict[str, Any], eventually: Any, **options: Any
) -> AsyncIterator[tuple[Server, FaultProxy, Client]]:
    """A server, the proxy before it, a client through it that answers too; nothing is left of its calls."""
    assert ledger.back is not None
    options = {**LIVELY, **wire, **options}
    async with serve(ledger.handler, **options) as server, FaultProxy(server.port) as proxy:
        handler = ledger.back.handler
        async with connect(proxy.url, handler=handler, backoff=lambda _: 0.01, **options) as client:
            yield server, proxy, client
            proxy.heal()
            await eventually(lambda: not ledger.handler.running and not ledger.back.handler.running)
            await eventually(lambda: server.stats()["pending"] == 0)
            assert [*ledger.implausible(server.stats()), *ledger.back.implausible(client.stats())] == []
            assert client.stats()["queued"] == 0
    ledger.check()


def both() -> Ledger:
    return Ledger(back=Ledger("back"))


@WIRES
async def test_without_a_fault_each_kind_ends_as_it_must(wire: dict[str, Any], eventually: Any) -> None:
    ledger = both()
    async with running(ledger, wire, eventually, **PATIENT) as (server, _, client):
        async with Load(ledger, client, kinds=CERTAIN, timeout=30) as load:
            await load.answers(60)
        assert ledger.answered == len(ledger.calls)
        assert ledger.back is not None
        assert ledger.back.answered == len(ledger.back.calls) >= 1
        assert server.stats()["stopped"] + server.stats()["expired"] == 0
        async with Load(ledger, client, kinds=MIXED, timeout=30) as load:
            await load.answers(60)
        assert set(ledger.errors) == {"ReadTimeoutError"}
        assert server.stats()["stopped"] + server.stats()["expired"] >= 1


def delay(way: Way) -> None:
    way.delay = 0.003


def slices(way: Way) -> None:
    way.slice = 7


@WIRES
@pytest.mark.parametrize("fault", [delay, slices])
async def test_what_is_only_slow_costs_nothing(
    fault: Callable[[Way], None], wire: dict[str, Any], eventually: Any
) -> None:
    ledger = both()
    async with running(ledger, wire, eventually, **PATIENT) as (_, proxy, client):
        async with Load(ledger, client, kinds=SMALL, timeout=30) as load:
            for way in (proxy.up, proxy.down):
                fault(way)
                await load.answers(30)
                proxy.heal()
        assert set(ledger.errors) <= {"ReadTimeoutError"}
        assert client.stats()["dials"] == 1


def drop(way: Way) -> None:
    way.drops = True


def cut(way: Way) -> None:
    way.cut_at = 20_000


def reset(way: Way) -> None:
    way.reset_at = 20_001


@pytest.mark.parametrize(
    ("fault", "wire"),
    [(drop, CBOR), (Way.stall, JSON), (cut, CBOR), (cut, JSON), (reset, CBOR), (reset, JSON)],
)
async def test_what_breaks_the_link_ends_each_once(
    fault: Callable[[Way], None], wire: dict[str, Any], eventually: Any
) -> None:
    ledger = both()
    async with running(ledger, wire, eventually) as (server, proxy, client):
        async with Load(ledger, client, kinds=MIXED, timeout=20) as load:
            for way in (proxy.up, proxy.down):
                await load.answers(20)
                fault(way)
                await load.losses()
                proxy.heal()
            await load.answers(20)
        assert set(ledger.errors) <= {"ConnectionLostError", "ReadTimeoutError", "QueueTimeoutError"}
        assert client.stats()["reconnects"] >= 2
        assert server.stats()["lost"] + server.stats()["connections"] >= 1


@WIRES
async def test_the_far_end_stops_when_nobody_waits(wire: dict[str, Any], eventually: Any) -> None:
    """Handlers that would take an hour, each of whose callers gives up by another way."""
    ledger = both()
    hour: dict[str, Any] = {"wait": 3600, "size": 10}
    kinds = [
        {**hour, "timeout": 0.05},
        {**hour, "cancel_after": 0.05},
        {**hour, "parts": 3, "timeout": 0.05},
        {**hour, "parts": 3, "cancel_after": 0.05},
        {**hour, "asks": True, "timeout": 0.05},
        {**hour, "asks": True, "cancel_after": 0.05},
    ]
    async with running(ledger, wire, eventually, **PATIENT) as (server, _, client):
        await asyncio.gather(*(ledger.call(client, **kind) for kind in kinds * 3))
        back = ledger.back
        assert back is not None
        await eventually(lambda: server.stats()["pending"] == 0)
        await eventually(lambda: client.stats()["stopped"] + client.stats()["expired"] >= len(back.runs))
        assert server.stats()["stopped"] + server.stats()["expired"] >= len(ledger.runs) >= 1
        assert ledger.given_up + ledger.endings[Ending.NOT_SENT] == 18
