"""close() and drain() end in their time, on a network that is dead and full or cut without a goodbye."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.proxy import FaultProxy

from sage_ws import SecureMessage, connect, serve

pytestmark = pytest.mark.usefixtures("baseline")

LIMIT = 10.0
"""Seconds that tell an end from a hang; what is asked for is `QUICK`."""
QUICK: dict[str, Any] = {"close_timeout": 0.1}


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    return theirs, ours


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("network", ["dead", "cut"])
@pytest.mark.parametrize("ending", ["client closes", "client drains", "server closes", "server drains"])
async def test_they_end_in_their_time(
    ending: str, network: str, tls: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    theirs, ours = contexts if tls else (None, None)
    ledger = Ledger()
    server = await serve(ledger.handler, ssl=theirs, **QUICK)
    async with FaultProxy(server.port, buffer=16 * 1024) as proxy:
        url = proxy.url.replace("ws", "wss", 1) if tls else proxy.url
        client = await connect(url, ssl=ours, reconnect=False, **QUICK)
        async with Load(ledger, client, callers=32, sizes=(60_000,), timeout=30) as load:
            await load.answers(5)
            if network == "dead":
                proxy.stall()
                await ledger.call(client, size=1_000_000, timeout=0.05)  # more than any buffer takes
                assert server.connection_count == 1
            else:
                proxy.cut()  # TLS hears no close_notify
            ends = {"client closes": client.close, "server closes": server.close}
            async with asyncio.timeout(LIMIT):
                if ending in ends:
                    await ends[ending]()
                else:
                    await (client if ending == "client drains" else server).drain(timeout=0.1)
                await client.close()
                await server.close()
        assert server.connection_count == client.stats()["pending"] == 0
    ledger.check()


@pytest.mark.parametrize("ending", ["closes", "drains"])
async def test_a_handler_that_ignores_its_cancellation_is_not_waited_for(ending: str) -> None:
    ledger = Ledger()
    begun, go, cancelled = asyncio.Event(), asyncio.Event(), 0

    async def deaf(message: SecureMessage) -> None:
        nonlocal cancelled
        ledger.ran(message.id)
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                cancelled += 1

    server = await serve(deaf, **QUICK)
    async with connect(f"ws://127.0.0.1:{server.port}", reconnect=False) as client:
        call = asyncio.create_task(ledger.call(client, timeout=30))
        await begun.wait()
        async with asyncio.timeout(LIMIT):
            await (server.close() if ending == "closes" else server.drain(timeout=0.1))
        assert (await call).error == "ConnectionLostError"
        assert cancelled >= 1
    go.set()
    ledger.check()
