"""What a soak goes through in turn: each trouble falls into a running load, and leaves its ledger.

What a trouble measures besides, in seconds over what was asked for, it hands to `note`: how late an end came.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final, TypeAlias

from tests.faults.handling import Handling
from tests.faults.ledger import PATIENCE, Journal, Ledger
from tests.faults.load import MIXED, Load
from tests.faults.process import Process, ServerProcess
from tests.faults.proxy import FaultProxy, Way

from sage_ws import Client, Server, connect, serve

Note: TypeAlias = Callable[[str, float], None]
Trouble: TypeAlias = Callable[[Ledger, Note], Awaitable[None]]

INTERVAL, TIMEOUT, CLOSE = 0.2, 0.8, 0.5
OPTIONS: Final[Mapping[str, Any]] = {
    "ping_interval": INTERVAL,
    "ping_timeout": TIMEOUT,
    "close_timeout": CLOSE,
}
KINDS: Final[tuple[Mapping[str, Any], ...]] = (
    {"size": 10},
    {"size": 300},
    {"size": 100, "cancel_after": 0.002},
    {"size": 70_000},
    {"size": 100, "wait": 0.02},
    {"size": 100, "wait": 0.3, "timeout": 0.05},
    {"size": 400_000},
    *MIXED,
)
"""Calls of a load: small and large ones, slow handlers, and all that the extended wire can."""
WIRES: Final[tuple[Mapping[str, Any], ...]] = tuple(
    {"encoding": encoding, "compression": compression}
    for compression in (None, "deflate")
    for encoding in ("cbor", "json", "plain")
)
"""What both ends are told to speak."""
HALF_OPEN: Final = "a half-open peer is found, over interval + timeout"
LOST: Final = "calls are told of a lost connection"
CLOSED: Final = "close() on a dead network, over close_timeout"
DRAINED: Final = "drain() on a dead network, over timeout + close_timeout"


def serving(ledger: Ledger, port: int = 0) -> serve:
    """A server of what stands in this ledger."""
    return serve(ledger.handler, "127.0.0.1", port, **OPTIONS, **ledger.wire)


def connecting(ledger: Ledger, url: str, **options: Any) -> Client:
    """A client that answers what stands in the ledger behind this one."""
    assert ledger.back is not None
    return connect(url, **{"handler": ledger.back.handler, **OPTIONS, **ledger.wire, **options})


@dataclass
class Site:
    """Where it happens: a server, the proxy before it, a client through it, and the client's callers."""

    server: Server
    proxy: FaultProxy
    client: Client
    load: Load
    ledger: Ledger

    def ways(self) -> tuple[Way, Way]:
        """Both ways, in any order."""
        up, down = random.sample([self.proxy.up, self.proxy.down], 2)
        return up, down

    async def restart(self) -> None:
        """A new server on the port of the old one, which has ended."""
        self.server = await serving(self.ledger, self.proxy.target)


@asynccontextmanager
async def site(
    ledger: Ledger, *, buffer: int = 0, kinds: Any = KINDS, callers: int = 16
) -> AsyncIterator[Site]:
    """A fresh one, under load; when it ends nobody may be owed anything."""
    server = await serving(ledger)
    async with FaultProxy(server.port, buffer=buffer) as proxy:
        backoff: Any = lambda _: random.uniform(0, 0.02)  # noqa: E731
        async with connecting(ledger, proxy.url, backoff=backoff) as client:
            async with Load(ledger, client, kinds=kinds, callers=callers, timeout=20) as load:
                here = Site(server, proxy, client, load, ledger)
                await load.answers(20)
                yield here
                proxy.heal()
                await load.answers(20)
            left = client.stats()
            assert left["pending"] == left["queued"] == 0, left
            # Handlers whose callers are gone, and what those asked back: who answers that may give up first.
            async with asyncio.timeout(PATIENCE):
                while here.server.stats()["pending"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert ledger.back is not None
            wrong = [*ledger.implausible(here.server.stats()), *ledger.back.implausible(client.stats())]
            assert not wrong, wrong
        await here.server.close()


# ── the network ────────────────────────────────────────────────────────────────────────
async def delays(ledger: Ledger, note: Note) -> None:
    """Pieces that come late, one way and then the other."""
    del note
    async with site(ledger) as here:
        for way in here.ways():
            way.delay = random.uniform(0.001, 0.01)
            await here.load.answers(40)


async def slices(ledger: Ledger, note: Note) -> None:
    """Pieces of one byte."""
    del note
    small = ({"size": 10}, {"size": 300}, {"size": 10, "parts": 5}, {"size": 10, "asks": True})
    async with site(ledger, kinds=small) as here:
        for way in here.ways():
            way.slice = 1
            await here.load.answers(40)


async def stalls(ledger: Ledger, note: Note) -> None:
    """Nothing moves for a while, with full buffers; then it does."""
    del note
    async with site(ledger, buffer=16 * 1024) as here:
        for way in here.ways():
            way.stall()
            await asyncio.sleep(random.uniform(0, TIMEOUT / 2))
            way.flow()
            await here.load.answers(40)


async def drops(ledger: Ledger, note: Note) -> None:
    """Bytes that vanish: the link is given up."""
    del note
    async with site(ledger) as here:
        for way in here.ways():
            way.drops = True
            await here.load.losses()
            way.heal()
            await here.load.answers(20)


async def cuts(ledger: Ledger, note: Note) -> None:
    """Connections that end behind some byte, over and over."""
    del note
    async with site(ledger) as here:
        for way in here.ways():
            for _ in range(5):
                way.cut_at = random.randrange(500, 100_000)  # behind the opening handshake
                await here.load.losses()
            way.heal()


async def resets(ledger: Ledger, note: Note) -> None:
    """The same by resets."""
    del note
    async with site(ledger) as here:
        for way in here.ways():
            for _ in range(5):
                way.reset_at = random.randrange(500, 100_000)  # behind the opening handshake
                await here.load.losses()
            way.heal()


async def losses(ledger: Ledger, note: Note) -> None:
    """A connection that is reset with calls in flight that have long to wait: all are told at once."""
    async with site(ledger) as here:
        calls = [asyncio.create_task(ledger.call(here.client, wait=5, timeout=60)) for _ in range(40)]
        await here.load.answers(20)
        begun = monotonic()
        here.proxy.reset()
        await asyncio.gather(*calls)
        note(LOST, monotonic() - begun)
        await here.load.answers(20)
        await here.server.close()  # with handlers that still wait
        await here.restart()


async def half_open(ledger: Ledger, note: Note) -> None:
    """A dead network: both ends find out by their pings, and calls that wait end then."""
    async with site(ledger) as here:
        calls = [asyncio.create_task(ledger.call(here.client, wait=5, timeout=60)) for _ in range(40)]
        await here.load.answers(20)
        begun = monotonic()
        here.proxy.stall()
        await asyncio.gather(*calls)
        note(HALF_OPEN, monotonic() - begun - INTERVAL - TIMEOUT)
        here.proxy.heal()
        await here.load.answers(20)
        await here.server.close()
        await here.restart()


# ── ends that end ──────────────────────────────────────────────────────────────────────
async def closing(ledger: Ledger, note: Note) -> None:
    """A second client is closed, a third is drained, in the middle of their calls and on a dead network."""
    async with site(ledger) as here:
        for is_dead in (False, True):
            for is_drained in (False, True):
                async with FaultProxy(here.server.port, buffer=16 * 1024) as proxy:
                    client = await connecting(ledger, proxy.url)
                    async with Load(ledger, client, kinds=KINDS, timeout=20) as load:
                        await load.answers(10)
                        if is_dead:
                            proxy.stall()
                        begun = monotonic()
                        await (client.drain(timeout=0.1) if is_drained else client.close())
                        if is_dead and is_drained:
                            note(DRAINED, monotonic() - begun - 0.1 - CLOSE)
                        elif is_dead:
                            note(CLOSED, monotonic() - begun - CLOSE)


async def restarts(ledger: Ledger, note: Note) -> None:
    """The server is closed, then drained, and each time there is a new one on its port."""
    del note
    async with site(ledger) as here:
        await here.server.close()
        await here.restart()
        await here.load.answers(20)
        await here.server.drain(timeout=1)  # with no other to move to, clients go on until then
        await here.restart()


async def large(ledger: Ledger, note: Note) -> None:
    """Messages of mebibytes, both ways, through small buffers."""
    del note
    async with site(ledger, kinds=[{"size": 3_000_000}, {"size": 100}], callers=4) as here:
        await here.load.answers(10)


async def cancellations(ledger: Ledger, note: Note) -> None:
    """Callers that give up all the time, before and after their message left."""
    del note
    kinds = [
        {"size": size, "cancel_after": after} for size in (10, 70_000) for after in (0.0005, 0.002, 0.01)
    ]
    async with site(ledger, kinds=[*kinds, {"size": 10}], callers=64) as here:
        await here.load.answers(200)


# ── processes ──────────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def answering(ledger: Ledger) -> AsyncIterator[tuple[ServerProcess, Client, Load]]:
    """A server in a process of its own, and a client of it under load."""
    with TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        async with ServerProcess("tests.faults.answering", str(journal)) as server:
            handler = Handling(lambda _: None)  # what that process asks back stands in no ledger of this one
            async with connecting(ledger, server.url, handler=handler, backoff=lambda _: 0.01) as client:
                async with Load(ledger, client, kinds=KINDS, timeout=20) as load:
                    await load.answers(20)
                    yield server, client, load
                    await load.answers(20)
            await server.end()
        ledger.runs.update(Journal.read(journal))


async def server_kills(ledger: Ledger, note: Note) -> None:
    """Kill -9 of the server, which starts again."""
    del note
    async with answering(ledger) as (server, _, load):
        for _ in range(2):
            await server.restart()
            await load.answers(20)


async def server_freezes(ledger: Ledger, note: Note) -> None:
    """SIGSTOP of the server, SIGCONT when it was given up."""
    del note
    async with answering(ledger) as (server, _, load):
        server.stop()
        await load.losses()
        server.go_on()


async def client_kills(ledger: Ledger, note: Note) -> None:
    """Kill -9, then SIGSTOP, of a client in a process of its own, beside one that goes on."""
    del note
    async with site(ledger) as here:
        url = f"ws://127.0.0.1:{here.server.port}/ws"
        for is_killed in (True, False):
            async with Process("tests.faults.asking", url, f"stranger-{is_killed}") as asking:
                await asking.line("asking")
                if is_killed:
                    await asking.kill()
                else:
                    asking.stop()
                async with asyncio.timeout(PATIENCE):
                    while here.server.connection_count > 1:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                await here.load.answers(20)
    for message_id in [each for each in ledger.runs if each.startswith("stranger-")]:
        assert ledger.runs.pop(message_id) == 1, f"{message_id} was run more than once"


TROUBLES: Final[Mapping[str, Trouble]] = {
    "delay": delays,
    "one-byte slices": slices,
    "stall": stalls,
    "drop": drops,
    "cut at a byte": cuts,
    "reset at a byte": resets,
    "calls in flight, reset": losses,
    "half-open": half_open,
    "close and drain": closing,
    "server restarts": restarts,
    "large messages": large,
    "cancellations": cancellations,
    "server killed": server_kills,
    "server frozen": server_freezes,
    "client killed, frozen": client_kills,
}
