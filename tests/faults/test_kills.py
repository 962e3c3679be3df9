"""A peer's process that dies or freezes in the middle of its work: kill -9 and SIGSTOP, of either end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.faults.baseline import Baseline
from tests.faults.ledger import Journal, Ledger
from tests.faults.load import Load
from tests.faults.process import Process, ServerProcess

from sage_ws import connect, serve

LIVELY: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.4, "close_timeout": 0.5}
SIZES = (10, 100, 70_000)


pytestmark = pytest.mark.usefixtures("baseline")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """What the handlers of the server's process ran."""
    return tmp_path / "journal"


def answering(journal: Path) -> ServerProcess:
    return ServerProcess("tests.faults.answering", str(journal))


class TestServers:
    async def test_kill_9_costs_the_calls_that_left(self, journal: Path) -> None:
        ledger = Ledger()
        async with (
            answering(journal) as server,
            connect(server.url, backoff=lambda _: 0.01, **LIVELY) as client,
            Load(ledger, client, sizes=SIZES, timeout=30) as load,
        ):
            for restarts in (1, 2):
                await load.answers()
                await server.kill()
                await ledger.until(lambda: not client.is_connected)
                await server.start()
                await load.answers()
                assert client.stats()["reconnects"] >= restarts
        ledger.check(Journal.read(journal))
        assert set(ledger.errors) == {"ConnectionLostError"}

    async def test_a_frozen_one_is_given_up_and_found_again(self, journal: Path) -> None:
        ledger = Ledger()
        async with answering(journal) as server:
            async with connect(server.url, backoff=lambda _: 0.01, **LIVELY) as client:
                async with Load(ledger, client, sizes=SIZES, timeout=30) as load:
                    await load.answers()
                    server.stop()
                    await load.losses()
                    server.go_on()
                    await load.answers()
                assert client.stats()["reconnects"] >= 1
            assert await server.end() == 0  # it has finished what it still had to read
        ledger.check(Journal.read(journal))
        assert set(ledger.errors) == {"ConnectionLostError"}

    async def test_close_and_drain_do_not_wait_for_a_frozen_one(self, journal: Path) -> None:
        ledger = Ledger()
        async with answering(journal) as server:
            clients = [await connect(server.url, close_timeout=0.2) for _ in range(2)]
            server.stop()
            async with Load(ledger, clients[0], callers=4), Load(ledger, clients[1], callers=4):
                await clients[0].drain(timeout=0.2)
                await clients[1].close()
        assert not list(ledger.problems(saw_handlers=False))


class TestClients:
    async def test_kill_9_frees_all_that_it_held(self, eventually: Any) -> None:
        ledger = Ledger("ours")
        async with serve(ledger.handler, **LIVELY) as server:
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with connect(url) as client, Process("tests.faults.asking", url, "theirs") as asking:
                await ledger.call(client)  # from here on the server has its worker
                before = Baseline()
                async with Load(ledger, client, sizes=SIZES) as load:
                    await asking.line("asking")
                    await eventually(lambda: server.connection_count == 2)  # it may have dialled anew
                    await asking.kill()
                    await eventually(lambda: server.connection_count == 1)
                    await load.answers()
                await eventually(lambda: server.stats()["pending"] == 0)
                assert ledger.answered == len(ledger.calls)
                assert max(ledger.runs.values()) == 1
                await before.regained()

    async def test_a_frozen_one_is_cut_and_costs_nobody_else(self, eventually: Any) -> None:
        ledger = Ledger("ours")
        async with serve(ledger.handler, **LIVELY, write_timeout=0.5) as server:
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with connect(url) as client, Process("tests.faults.asking", url, "theirs") as asking:
                async with Load(ledger, client, sizes=SIZES) as load:
                    await asking.line("asking")
                    asking.stop()
                    await eventually(lambda: server.connection_count == 1)
                    await load.answers()
                    asking.go_on()
                    await eventually(lambda: server.connection_count == 2)
                assert await asking.end() == 0
                assert [line for line in asking.lines if "ended" not in line] == ["asking"], asking.lines
                assert ledger.answered == len(ledger.calls)
                assert max(ledger.runs.values()) == 1
