"""The processes that the fault tests kill: they keep their port, and say when they are there."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from tests.faults.handling import answer_of, payload_of
from tests.faults.ledger import Journal
from tests.faults.process import ServerProcess

from sage_ws import DialError, SecureMessage, connect


async def test_a_killed_server_comes_back_on_its_port(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with ServerProcess("tests.faults.answering", str(journal)) as server:
        for number in range(2):
            asked = SecureMessage(
                id=f"m-{number}", payload=payload_of(f"m-{number}", 100), did="did:sage:ours"
            )
            async with connect(server.url) as client:
                assert (await client.send(asked)).data == answer_of(asked.id, 100)
            await server.kill()
            with pytest.raises(DialError):
                await connect(server.url)
            if number == 0:
                await server.start()
        assert Journal.read(journal) == ["m-0", "m-1"]
        assert server.starts == 2


async def test_a_program_that_cannot_serve_says_why(tmp_path: Path) -> None:
    server = ServerProcess("tests.faults.answering", str(tmp_path / "journal"))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with pytest.raises(AssertionError, match="Address|address"):
            await server.start()
    await server.start()
    assert await asyncio.wait_for(server.end(), 10) == 0
    await server.close()
