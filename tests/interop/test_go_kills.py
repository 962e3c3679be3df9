"""A stock Go server that is killed under the load of our client: the ledger balances, as with one of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.faults.ledger import Ledger, payload_of
from tests.faults.load import Load
from tests.faults.proxy import FaultProxy

from sage_ws import connect

if TYPE_CHECKING:
    from tests.interop.conftest import Program, Stranger


async def test_a_go_server_is_killed_under_load(
    go_stranger: Stranger, run: Callable[..., Awaitable[Program]]
) -> None:
    """The next one has another port: the proxy hides that, as a service's address would."""
    ledger = Ledger(answer=payload_of)
    async with FaultProxy(0) as proxy:
        program = await run(go_stranger, "server")
        proxy.target = (await program.event("listening"))["port"]
        async with connect(proxy.url, backoff=lambda _: 0.01) as client:
            async with Load(ledger, client, sizes=(10, 100, 20_000), timeout=20) as load:
                for killed in range(3):
                    await load.answers(50)
                    if killed == 2:
                        break
                    events = await program.kill()
                    program = await run(go_stranger, "server")
                    proxy.target = (await program.event("listening"))["port"]
                    for event in events:
                        if event["event"] == "received":
                            ledger.ran(event["id"])
            assert client.stats()["reconnects"] >= 2
        ledger.check(event["id"] for event in await program.kill() if event["event"] == "received")
    assert set(ledger.errors) == {"ConnectionLostError"}
