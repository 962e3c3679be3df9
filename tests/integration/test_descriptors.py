"""Out of descriptors: a server accepts again when there are some, a client dials again, and neither spins."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_ws import Client, DialError, SecureMessage, connect, serve
from sage_ws._core import has_poller
from sage_ws.aio.listener import ACCEPTS, BACKLOG

LINKS = ("direct", "loop") if has_poller else ("loop",)
ROUNDS = 20
LIMIT = 64
FULL = LIMIT - 2
"""Descriptors that are taken when none is left: uvloop has one in reserve, to hang up on who comes."""
RETRY = 0.05

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

# Its loop is the one of this test run. asyncio's wait between two tries, a second, is made shorter.
PROGRAM = f"""
import asyncio.constants, contextlib, os, resource, sys, time
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
asyncio.constants.ACCEPT_RETRY_DELAY = {RETRY}
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
import logging
from sage_ws import run

def handler(message):
    return message.payload

@contextlib.asynccontextmanager
async def lifespan(server):
    begun, reports = time.monotonic(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["message"]))
    yield
    others = set(reports) - {{"socket.accept() out of system resource"}}
    seconds = time.monotonic() - begun
    print(f"reports {{len(reports)}} others {{sorted(others)}} seconds {{seconds:.3f}}", flush=True)

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
run(handler, port=0, lifespan=lifespan, link=LINK)
"""


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


async def echo(one: SecureMessage) -> bytes:
    return one.payload


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> str:
    """Each way to the socket."""
    return str(request.param)


def most_queued() -> int:
    """What the kernel makes of a longer backlog."""
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


def held(program: Any) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{program.pid}/fd").iterdir()))


async def test_a_server_out_of_descriptors_accepts_again_when_there_are_some(
    either: str, start_program: Any, eventually: Any
) -> None:
    program = await start_program(PROGRAM.replace("LINK", repr(either)))
    await program.serving()
    url = f"ws://127.0.0.1:{program.port}"
    patient = {"wait_for_ready": True, "backoff": lambda attempt: 0.01}
    async with connect(url) as before:
        await before.send(message())
        at_rest = held(program)
        for number in range(ROUNDS):
            with contextlib.ExitStack() as stack:
                for _ in range(LIMIT + 20):
                    stack.enter_context(socket.create_connection(("127.0.0.1", program.port)))
                await eventually(lambda: held(program) >= FULL)
                # who is in is served all the same
                assert (await before.send(message(b"%d" % number))).data == b"%d" % number
            async with connect(url, **patient) as client:  # type: ignore[arg-type]
                assert (await client.send(message(b"new"), timeout=20)).data == b"new"
        await eventually(lambda: held(program) <= at_rest)
        assert before.stats()["dials"] == 1
    program.signal(signal.SIGTERM)
    told = re.fullmatch(r"reports (\d+) others \[\] seconds ([\d.]+)", await program.line("reports"))
    assert told is not None
    assert await program.ended() == 0
    # What a spinning accept would report is bounded by the processor alone: here by the pauses in between.
    assert int(told[1]) <= ACCEPTS * (float(told[2]) / RETRY + ROUNDS)


async def test_a_server_ends_in_order_without_any(either: str, start_program: Any, eventually: Any) -> None:
    program = await start_program(PROGRAM.replace("LINK", repr(either)))
    await program.serving()
    async with connect(f"ws://127.0.0.1:{program.port}") as client:
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT + 20):
                stack.enter_context(socket.create_connection(("127.0.0.1", program.port)))
            await eventually(lambda: held(program) >= FULL)
            program.signal(signal.SIGTERM)
            assert "others []" in await program.line("reports")
            assert await program.ended() == 0
        assert client.stats()["failed"] == 0


async def test_the_kernel_holds_more_than_a_turn_takes() -> None:
    async with serve(echo) as server:
        (one,) = server.sockets
        told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        # tcpi_sacked, which of a listening socket is what its queue may hold
        assert struct.unpack_from("I", told, 28) == (min(BACKLOG, most_queued()),)


class TestClient:
    @pytest.fixture
    async def no_descriptors(self) -> Any:
        """``async with no_descriptors():`` this process gets no further one, whatever it lets go of."""

        @contextlib.asynccontextmanager
        async def exhausted() -> Any:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        return exhausted

    async def test_one_that_cannot_dial_says_so_and_can_later(self, either: Any, no_descriptors: Any) -> None:
        async with serve(echo, link=either) as server:
            client = Client(f"ws://127.0.0.1:{server.port}", link=either)
            for _ in range(ROUNDS):
                async with no_descriptors():
                    with pytest.raises(DialError, match="Too many open files") as raised:
                        await client.send(message())
                    assert isinstance(raised.value.__cause__, OSError)
            assert (await client.send(message(b"later"))).data == b"later"
            await client.close()

    async def test_one_that_waits_dials_until_it_can(
        self, either: Any, no_descriptors: Any, eventually: Any
    ) -> None:
        async with serve(echo, link=either) as server:
            url = f"ws://127.0.0.1:{server.port}"
            client = Client(url, link=either, wait_for_ready=True, backoff=lambda attempt: 0.001)
            async with no_descriptors():
                waiting = asyncio.create_task(client.send(message(b"later"), timeout=20))
                await eventually(lambda: client.stats()["dials"] > 5)
                assert not waiting.done()
            assert (await waiting).data == b"later"
            await client.close()
