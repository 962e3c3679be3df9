"""Floods on real sockets, against a server process: how large it grows, and that others are served.

The core's own bounds are in tests/conformance/test_limits.py; here the link and the kernel stand between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_ws import SecureMessage, connect
from sage_ws._core import has_poller

LINKS = ("direct", "loop") if has_poller else ("loop",)
TEXT, CONTINUATION, CLOSE, PING = 0x1, 0x0, 0x8, 0x9
MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads another process's memory in /proc")

# Its connections have small buffers in the kernel: what a peer does not take waits with us.
PROGRAM = """
import asyncio, json, resource, signal, socket, sys
import sage_ws.aio.answering as answering
from sage_ws import serve

if os.environ.get("SAGE_WS_TEST_LOOP") == "uvloop":
    from uvloop import new_event_loop
else:
    new_event_loop = asyncio.new_event_loop

def handler(message):
    return bytes(int(message.payload)) if message.payload.isdigit() else message.payload

async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listening.setsockopt(socket.SOL_SOCKET, name, 16 * 1024)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    async with serve(handler, sock=listening, **OPTIONS) as server:
        print(f"serving on 127.0.0.1:{server.port}", flush=True)
        await done.wait()
    print(json.dumps(server.stats()), flush=True)

SETUP
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


def field(pid: int, name: str) -> int:
    """Bytes, of a process's memory now (``VmRSS``) or at its peak (``VmHWM``)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> str:
    """Each way to the socket."""
    return str(request.param)


@pytest.fixture
def flooded(either: str, start_program: Any) -> Any:
    """``program = await flooded(options)``: the program above, warm; ``at_rest`` is its memory."""

    async def start(options: str = "{}", setup: str = "") -> Any:
        wanted = f"{{'link': {either!r}, **{options}}}"
        program = await start_program(
            "import os\n" + PROGRAM.replace("OPTIONS", wanted).replace("SETUP", setup),
            COVERAGE_PROCESS_CONFIG="",  # what measures it would count as its memory
        )
        await program.serving()
        async with connect(f"ws://127.0.0.1:{program.port}") as client:
            for _ in range(3):
                await client.send(message(b"100000"))
        program.at_rest = field(program.pid, "VmRSS")
        return program

    return start


def frames(opcode: int, payload: bytes, count: int) -> bytes:
    """So many frames of a client, none of them the last of its message; the masking key is zeros."""
    return (bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload) * count


async def served(program: Any) -> bool:
    """Whether somebody else is."""
    async with connect(f"ws://127.0.0.1:{program.port}") as client:
        return (await client.send(message(b"fine"), timeout=10)).data == b"fine"


class TestFragments:
    async def test_a_message_of_65_536_passes(self, flooded: Any, raw_client: Any) -> None:
        program = await flooded()
        body = b'{"id":"m-1","payload":"eA==","did":"d","role":""}'
        body = body[:-2] + b"r" * (65_536 - len(body)) + body[-2:]
        async with raw_client(program.port) as peer:
            parts = [
                frames(TEXT, body[:1], 1),
                *(frames(CONTINUATION, body[at : at + 1], 1) for at in range(1, 65_535)),
            ]
            peer.write(b"".join(parts) + peer.frame(CONTINUATION, body[-1:]))
            assert (await peer.read_json())["message_id"] == "m-1"
            assert field(program.pid, "VmHWM") - program.at_rest <= 2 * len(body) + 8 * MIB
            assert await served(program)

    async def test_300_000_empty_ones_take_no_memory(self, flooded: Any, raw_client: Any) -> None:
        program = await flooded()
        async with raw_client(program.port) as peer:
            peer.write(frames(TEXT, b"", 1) + frames(CONTINUATION, b"", 299_999))
            assert await served(program)
            peer.send(PING, b"read so far")
            assert (await peer.read_frame()).payload == b"read so far"
            assert field(program.pid, "VmHWM") - program.at_rest <= 16 * MIB
            peer.send(CONTINUATION, b'{"id":"m-1","payload":"eA==","did":"d"}')
            assert (await peer.read_json())["message_id"] == "m-1"


async def test_100_000_pings_of_one_that_does_not_read_are_cut(flooded: Any, raw_client: Any) -> None:
    program = await flooded()
    async with raw_client(program.port) as peer:
        peer.writer.transport.pause_reading()
        flood = peer.frame(PING, b"x" * 125) * 100
        for _ in range(1000):
            peer.write(flood)
            await asyncio.sleep(0)
        assert await served(program)
        peer.writer.transport.resume_reading()
        pongs = 0
        while (frame := await peer.read_frame()).opcode != CLOSE:
            assert frame.payload == b"x" * 125
            pongs += 1
        assert int.from_bytes(frame.payload[:2], "big") == 1008
        assert 64 <= pongs < 100_000
        assert field(program.pid, "VmHWM") - program.at_rest <= 4 * MIB


class TestStalledReaders:
    PEERS = 100
    QUEUE, UNSENT, ANSWER, AT_ONCE = 64 * 1024, 128 * 1024, 30_000, 4
    BESIDE = 256 * 1024
    """One read of a loop, and what the C library keeps between blocks of the fallback's: as much with the
    default limits, in which it disappears (tests.faults.floods)."""

    async def test_100_of_them_cost_their_caps_and_no_more(
        self, flooded: Any, raw_client: Any, opening_request: Any
    ) -> None:
        """Each asks for 40 MB, again and again, and takes nothing, until it is cut."""
        program = await flooded(
            f"{{'max_queue_bytes': {self.QUEUE}, 'max_concurrency': {self.AT_ONCE}, 'write_timeout': 2}}",
            f"answering.UNSENT_LIMIT = {self.UNSENT}",
        )
        wire = 4 * self.ANSWER // 3 + 200
        cap = self.QUEUE + self.UNSENT + self.AT_ONCE * wire + self.BESIDE
        one = json.dumps({"id": "m-%04d", "payload": "MzAwMDA=", "did": "d", "role": "r" * 1000})
        peers: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        try:
            for _ in range(self.PEERS):
                peer = socket.socket()
                peers.append(peer)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
                peer.setblocking(False)
                await loop.sock_connect(peer, ("127.0.0.1", program.port))
            async with raw_client(program.port) as framing:
                asked = b"".join(framing.frame(TEXT, (one % number).encode()) for number in range(1000))
            asking = [asyncio.create_task(self._ask(peer, opening_request(), asked)) for peer in peers]
            assert await served(program)
            async with asyncio.timeout(20):
                await asyncio.gather(*asking)
            assert await served(program)
        finally:
            for peer in peers:
                peer.close()
        assert field(program.pid, "VmHWM") - program.at_rest <= self.PEERS * cap

    @staticmethod
    async def _ask(peer: socket.socket, opening: bytes, asked: bytes) -> None:
        """Ask on and on, until it is cut."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(peer, opening)
            while True:
                await loop.sock_sendall(peer, asked)


@pytest.mark.timeout(150)  # 40 s on the fallback where several processes share a processor
@pytest.mark.parametrize("how", ["lost", "answered"])
async def test_10_000_calls_of_a_client_all_end_and_leave_nothing(
    either: str, outcome_of: Any, how: str
) -> None:
    """Four times: what stays behind is there after each, what is warmed up or in pieces only after some."""
    code, out, err = await outcome_of(
        f"""
        COUNT = 10_000
        def resident():
            gc.collect()
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
        async def handler(one):
            await go.wait()
        async def exchange(url):
            client = await connect(url, link={either!r}, max_pending=COUNT, reconnect=False)
            calls = [asyncio.ensure_future(client.send(message(), timeout=100)) for _ in range(COUNT)]
            while client.stats()["pending"] < COUNT:
                await asyncio.sleep(0)
            if {how!r} == "lost":
                (link,) = server.connections
                link._transport.abort()
            else:
                go.set()
            ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
            go.clear()
            assert {{type(one).__name__ for one in ended}} == {{EXPECTED}}, ended[0]
            stats = client.stats()
            assert (stats["pending"], stats["queued"]) == (0, 0), stats
            assert stats["failed"] + stats["answered"] == COUNT, stats
            await client.close()
        async def main():
            global server, go
            go = asyncio.Event()
            async with serve(handler, link={either!r}, max_queue_bytes=1 << 30) as server:
                for _ in range(4):
                    await exchange(f"ws://127.0.0.1:{{server.port}}")
                    grown.append(resident())
            print(min(later - before for before, later in zip(grown, grown[1:])))
        EXPECTED = "ConnectionLostError" if {how!r} == "lost" else "Response"
        grown = []
        with asyncio.Runner(loop_factory=factory.new_event_loop) as runner:
            runner.run(main())
    """,
        patience=120,
    )
    assert code == 0, err
    assert int(out) <= 5 * MIB
