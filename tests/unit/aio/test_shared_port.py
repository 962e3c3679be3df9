"""A port that is held for several processes: bound, shared, and never listened on."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sage_ws.aio.shared_port import SharedPort

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="nothing to share it by")


def listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=True)


def test_nobody_gets_in_before_somebody_listens_beside_it() -> None:
    shared = SharedPort("127.0.0.1", 0)
    assert shared.where == f"127.0.0.1:{shared.number}"
    address = ("127.0.0.1", shared.number)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 10)
    with listening(shared.number), listening(shared.number) as second:
        second.setblocking(False)
        accepted = 0
        while not accepted:  # whom the kernel gives to the second
            with socket.create_connection(address, 10):
                try:
                    second.accept()[0].close()
                except BlockingIOError:
                    continue
                accepted += 1
        shared.close()
        with socket.create_connection(address, 10):
            pass


def test_where_somebody_listens_it_is_in_use() -> None:
    first = SharedPort("127.0.0.1", 0)
    with listening(first.number), pytest.raises(OSError, match="address already in use"):
        SharedPort("127.0.0.1", first.number)
    first.close()


def test_one_port_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another address has it already, another port is looked for."""
    create, asked = asyncio.SelectorEventLoop.create_server, []

    async def unlucky(loop: Any, make: Any, host: Any, port: int, **options: Any) -> Any:
        asked.append(port)
        if len(asked) == 2:
            raise OSError("taken on the other address")
        return await create(loop, make, host, port, **options)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_server", unlucky)
    shared = SharedPort(["127.0.0.1", "127.0.0.2"], 0)  # type: ignore[arg-type]  # a name with two addresses
    assert asked[0] == asked[2] == 0
    assert shared.where == f"127.0.0.1:{asked[3]}, 127.0.0.2:{asked[3]}"
    shared.close()
