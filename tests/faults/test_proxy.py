"""The fault proxy itself, on bare sockets: what it is told to do to bytes is what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("baseline")

MUCH = bytes(range(256)) * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def through(proxy_buffer: int = 0) -> AsyncIterator[tuple[FaultProxy, Streams, Streams]]:
    """The proxy, and the two ends of a connection through it: client's, server's."""
    accepted: asyncio.Queue[Streams] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(10), FaultProxy(port, buffer=proxy_buffer) as proxy:
            client = await asyncio.open_connection("127.0.0.1", proxy.port)
            other = await accepted.get()
            try:
                yield proxy, client, other
            finally:
                for _, writer in (client, other):
                    writer.transport.abort()
    finally:
        server.close()


async def test_it_carries_bytes_and_both_ends() -> None:
    async with through() as (proxy, (reader, writer), (far_reader, far_writer)):
        writer.write(MUCH)
        writer.write_eof()
        assert await far_reader.read(-1) == MUCH
        far_writer.write(MUCH[::-1])
        far_writer.write_eof()
        assert await reader.read(-1) == MUCH[::-1]
        assert (proxy.up.passed, proxy.down.passed) == (len(MUCH), len(MUCH))


async def test_one_byte_slices_are_the_same_bytes() -> None:
    async with through() as (proxy, (_, writer), (far_reader, _)):
        proxy.up.slice = 1
        writer.write(MUCH[:300])
        assert await far_reader.readexactly(300) == MUCH[:300]


async def test_a_delay_holds_each_piece() -> None:
    async with through() as (proxy, (_, writer), (far_reader, _)):
        proxy.up.delay = 0.05
        begun = asyncio.get_running_loop().time()
        writer.write(b"late")
        assert await far_reader.readexactly(4) == b"late"
        assert asyncio.get_running_loop().time() - begun >= 0.045


async def test_what_is_dropped_never_comes_out() -> None:
    async with through() as (proxy, (reader, writer), (far_reader, far_writer)):
        proxy.up.drops = True
        writer.write(b"lost")
        far_writer.write(b"the other way goes on")
        await reader.readexactly(21)
        writer.write_eof()
        assert await far_reader.read(-1) == b""


async def test_a_stall_holds_everything_back_until_it_flows() -> None:
    async with through(4096) as (proxy, (_, writer), (far_reader, _)):
        proxy.up.stall()
        writer.write(MUCH * 16)
        stuck = asyncio.create_task(writer.drain())
        done, _ = await asyncio.wait([stuck], timeout=0.05)
        assert not done
        assert proxy.up.passed == 0
        proxy.up.flow()
        assert await far_reader.readexactly(len(MUCH) * 16) == MUCH * 16
        await stuck


@pytest.mark.parametrize("at", [1, 1000, 100_000])
async def test_a_cut_comes_behind_exactly_this_byte(at: int) -> None:
    async with through() as (proxy, (reader, writer), (far_reader, _)):
        proxy.up.cut_at = at
        writer.write(MUCH)
        assert await far_reader.read(-1) == MUCH[:at]
        with suppress(ConnectionResetError):  # it still wrote
            assert await reader.read(-1) == b""
        assert proxy.connections == 0


@pytest.mark.parametrize("when", ["at a byte", "now"])
async def test_a_reset_is_one_at_both_ends(when: str) -> None:
    async with through() as (proxy, (reader, writer), (far_reader, _)):
        if when == "at a byte":
            proxy.down.reset_at = 1000
            proxy.up.reset_at = 2
            writer.write(b"12345")
        else:
            writer.write(b"1")
            await far_reader.readexactly(1)
            proxy.reset()
        for end in (reader, far_reader):
            with pytest.raises(ConnectionResetError):
                await end.read(-1)


async def test_a_cut_of_all_ends_them_without_a_reset() -> None:
    async with through() as (proxy, (reader, writer), (far_reader, _)):
        writer.write(b"1")
        await far_reader.readexactly(1)
        proxy.cut()
        assert await reader.read(-1) == await far_reader.read(-1) == b""


async def test_a_server_that_is_not_there_is_a_connection_that_ends() -> None:
    async with through() as (proxy, _, _):
        proxy.target = 1
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_healed_it_does_nothing_more() -> None:
    async with through() as (proxy, (_, writer), (far_reader, _)):
        proxy.up.delay, proxy.up.slice, proxy.up.drops, proxy.up.cut_at = 100, 1, True, 1
        proxy.stall()
        proxy.heal()
        writer.write(MUCH)
        assert await far_reader.readexactly(len(MUCH)) == MUCH
