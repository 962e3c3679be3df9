"""What floods cost, in figures: time, processor time and memory, which no test asserts.

::

    python -m tests.faults.floods            all of them, as JSON; some minutes
    python -m tests.faults.floods cancels    one or some

Core, loop and link are those that ``SAGE_WS_CORE``, ``SAGE_WS_TEST_LOOP`` and ``SAGE_WS_LINK`` name.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.child import run
from tests.faults.process import ServerProcess
from tests.integration.conftest import Peer, asking

from sage_ws import Client, SecureMessage, connect

Figures = dict[str, float]

MIB = 1 << 20
SLOW = 500
STALLED = 100
ANSWER = 60_000
CALLS = 100_000
CANCELS = 1_000_000
AT_ONCE = 1000
ROUNDTRIPS = 1000
RUNS = 9
SECONDS = 5.0
"""To be watched."""
FULL = 20.0
"""Seconds in which those who stall have asked for more than they may."""
TICKS = os.sysconf("SC_CLK_TCK")


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used; the kernel counts in hundredths."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, name: str = "VmRSS") -> int:
    """Bytes that a process has in memory now, or had at its peak (``VmHWM``)."""
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) * 1024


@contextlib.asynccontextmanager
async def flooded(**options: Any) -> AsyncIterator[ServerProcess]:
    """A server process, warm."""
    async with ServerProcess("tests.faults.flooded", json.dumps(options)) as server:
        async with connect(server.url) as client:
            for _ in range(100):
                await client.send(message())
        yield server


@contextlib.contextmanager
def dialled(port: int, count: int, buffer: int = 0) -> Any:
    """So many sockets that are connected, and say nothing."""
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = stack.enter_context(socket.socket())
            if buffer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            peer.connect(("127.0.0.1", port))
            peers.append(peer)
        yield peers


async def p99(url: str) -> float:
    """Microseconds of a call and its answer, one after the other, which 99 of 100 take at most.

    The median of several runs: a machine that does something else for a moment spoils one of them.
    """
    found = []
    async with connect(url) as client:
        for _ in range(RUNS):
            took = []
            for _ in range(ROUNDTRIPS):
                begun = time.perf_counter()
                await client.send(message())
                took.append(time.perf_counter() - begun)
            found.append(sorted(took)[ROUNDTRIPS * 99 // 100])
    return 1e6 * median(found)


# ── the floods ────────────────────────────────────────────────────────────────────────
async def slow_openings() -> Figures:
    """500 who begin an opening handshake and say no more, and one who works beside them."""
    async with flooded(open_timeout=None) as server:
        alone = await p99(server.url)
        with dialled(server.port, SLOW) as peers:
            for peer in peers:
                peer.sendall(b"GET /ws HTTP/1.1\r\nHost: ")
            among = await p99(server.url)
    return {"p99_us_alone": alone, "p99_us_among_500": among, "ratio": among / alone}


async def header() -> Figures:
    """A header of 20 MB, refused ten times: processor time of the server for one."""
    async with flooded() as server:
        before = cpu(server.pid)
        for _ in range(10):
            with dialled(server.port, 1) as (peer,), contextlib.suppress(ConnectionError):
                peer.sendall(b"GET / HTTP/1.1\r\n")
                for _ in range(200):
                    peer.sendall(b"X: " + b"y" * 99_995 + b"\r\n")
        return {"cpu_ms": 1e3 * (cpu(server.pid) - before) / 10}


async def stalled_readers() -> Figures:
    """100 who ask for much and take nothing, with the default limits, and one who works beside them."""
    cap = 4 * MIB + MIB + 64 * 4 * ANSWER // 3
    async with flooded(buffer=16 * 1024, write_timeout=60) as server:
        alone, rest = await p99(server.url), memory(server.pid)
        framing = Peer(None, None, client=True)  # type: ignore[arg-type]
        body = b'{"id":"%d","payload":"NjAwMDA=","did":"d","role":"' + b"r" * 1000 + b'"}'
        asked = b"".join(framing.frame(1, body % number) for number in range(10_000))
        loop = asyncio.get_running_loop()
        with dialled(server.port, STALLED, 16 * 1024) as peers:
            for peer in peers:
                peer.sendall(asking())
                peer.setblocking(False)

            async def ask(peer: socket.socket) -> None:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(peer, asked)

            asking_on = [asyncio.ensure_future(ask(peer)) for peer in peers]
            await asyncio.sleep(FULL)
            among = await p99(server.url)
            grown = memory(server.pid, "VmHWM") - rest
            for task in asking_on:
                task.cancel()
            await asyncio.wait(asking_on)
    return {
        "grown_mib": grown / MIB,
        "cap_mib": STALLED * cap / MIB,
        "p99_us_alone": alone,
        "p99_us_among_100": among,
        "ratio": among / alone,
    }


async def out_of_descriptors() -> Figures:
    """A server of 64 descriptors, and 100 sockets: how much of a processor it takes while it has none."""
    async with flooded(descriptors=64, open_timeout=None) as server:
        with dialled(server.port, 100):
            await asyncio.sleep(0.5)
            before, begun = cpu(server.pid), time.monotonic()
            await asyncio.sleep(SECONDS)
            share = (cpu(server.pid) - before) / (time.monotonic() - begun)
        begun = time.monotonic()
        client = Client(server.url, wait_for_ready=True, backoff=lambda attempt: 0.01)
        await client.send(message(), timeout=20)
        await client.close()
    return {"cpu_percent": 100 * share, "seconds_to_recover": time.monotonic() - begun}


def own_memory() -> int:
    gc.collect()
    return memory(os.getpid())


async def calls() -> Figures:
    """100,000 calls in flight on one client, all answered; three times."""
    async with flooded(max_queue_bytes=1 << 30) as server:
        kept = []
        for _ in range(3):
            begun = time.monotonic()
            async with connect(server.url, max_pending=CALLS) as client:
                asked = [asyncio.ensure_future(client.send(message(), timeout=None)) for _ in range(CALLS)]
                await asyncio.sleep(0)
                most = client.stats()["pending"]
                answers = await asyncio.gather(*asked)
                assert len(answers) == CALLS
                assert client.stats()["pending"] == 0
            seconds = time.monotonic() - begun
            del asked, answers, client
            kept.append(own_memory())
    return {"seconds": seconds, "most_pending": float(most), "kept_mib": (kept[2] - kept[1]) / MIB}


async def cancels() -> Figures:
    """1,000,000 calls that nobody answers, cancelled a thousand at a time."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, client=False)
        await peer.open_as_server()
        with contextlib.suppress(ConnectionError):
            while await reader.read(MIB):
                pass
        writer.close()

    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with connect(f"ws://127.0.0.1:{port}/ws", max_pending=AT_ONCE, close_timeout=0.1) as client:
        begun, warm = time.monotonic(), 0
        for number in range(CANCELS // AT_ONCE):
            asked = [asyncio.ensure_future(client.send(message())) for _ in range(AT_ONCE)]
            await asyncio.sleep(0)
            for one in asked:
                one.cancel()
            await asyncio.wait(asked)
            if number == CANCELS // AT_ONCE // 10:  # what the first ones have warmed up is no growth
                warm = own_memory()
        seconds, stats = time.monotonic() - begun, client.stats()
        kept = own_memory() - warm
    server.close()
    return {
        "seconds": seconds,
        "pending": stats["pending"],
        "queued": stats["queued"],
        "loop_exceptions": float(len(failures)),
        "kept_mib": kept / MIB,
    }


FLOODS: dict[str, Callable[[], Awaitable[Figures]]] = {
    one.__name__: one for one in (slow_openings, header, stalled_readers, out_of_descriptors, calls, cancels)
}


async def main(names: list[str]) -> None:
    """Print the figures of these floods."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = {}
    for name in names or FLOODS:
        figures[name] = {key: round(value, 3) for key, value in (await FLOODS[name]()).items()}
    print(json.dumps(figures, indent=2))  # noqa: T201


if __name__ == "__main__":
    run(main(sys.argv[1:]))
