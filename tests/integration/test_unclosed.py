"""What was never closed says so when it is collected, as asyncio's transports do; its descriptor is closed.

As long as its loop lives it holds an open connection; so each case is a program of its own, whose loop ends.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import asyncio, gc, os, sys, warnings
from sage_ws import Client, SecureMessage, Server, connect, serve

def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0

def message(**fields):
    return SecureMessage(payload=b"canary", did="did:sage:test", **fields)

async def echo(one):
    return one.payload

async def never(one):
    await asyncio.Event().wait()

NEW_LOOP = asyncio.new_event_loop
if "uvloop" in sys.argv:
    from uvloop import new_event_loop as NEW_LOOP

def run(main):
    with asyncio.Runner(loop_factory=NEW_LOOP) as runner:
        return runner.run(main)

async def warm_up():
    async with serve(echo) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        await client.send(message())

run(warm_up())
gc.collect()
BEFORE = descriptors()
print("unclosed so far", file=sys.stderr)
"""
LOOPS = ["asyncio", *(["uvloop"] if find_spec("uvloop") else [])]


def ran(code: str, *arguments: str) -> list[str]:
    """What of ours a program left unclosed, behind the lines above; it must end well, and print "done"."""
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", PROGRAM + code, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"], done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Fatal" not in done.stderr
    first, _, rest = done.stderr.partition("unclosed so far\n")
    assert not first
    return re.findall(r"ResourceWarning: (unclosed <(?:sage_ws\.\w+|DirectTransport)[^>]*>)", rest)


@pytest.mark.parametrize("loop", LOOPS)
def test_both_ends_of_a_connection_and_a_client_without_one(loop: str, link: str) -> None:
    unclosed = ran(
        """
async def main():
    server = await serve(never)
    client = await connect(f"ws://127.0.0.1:{server.port}/ws?token=canary")
    call = asyncio.ensure_future(client.send(message()))
    while not server.stats()["pending"]:
        await asyncio.sleep(0)
    async with serve(echo) as other:
        again = await connect(f"ws://127.0.0.1:{other.port}", backoff=lambda _: 30.0)
    while again.state.name != "WAITING":
        await asyncio.sleep(0)

run(main())
gc.collect()
assert descriptors() == BEFORE, os.listdir("/proc/self/fd")
print("done")
""",
        loop,
    )
    ours = sorted(re.sub(r"\d+", "0", one) for one in unclosed)
    direct = ["unclosed <DirectTransport fd=0>"] * 2 if link == "direct" else []
    assert ours == sorted(
        [
            *direct,
            "unclosed <sage_ws.Client 0.0.0.0:0 OPEN>",
            "unclosed <sage_ws.Client 0.0.0.0:0 WAITING>",
            "unclosed <sage_ws.Server 0.0.0.0:0 connections=0>",
        ]
    )


def test_a_loop_that_was_never_closed_either() -> None:
    unclosed = ran("""
async def main():
    server = await serve(echo)
    client = await connect(f"ws://127.0.0.1:{server.port}")
    await client.send(message())

loop = NEW_LOOP()
loop.run_until_complete(main())
del loop
gc.collect()
gc.collect()
print("done")
""")
    assert {one.split()[1].strip("<") for one in unclosed} >= {"sage_ws.Client", "sage_ws.Server"}


def test_what_is_still_there_when_the_interpreter_ends() -> None:
    """Warned of or not: it does not crash, and writes no traceback."""
    ran("""
async def main():
    global server, client
    server = await serve(echo)
    client = await connect(f"ws://127.0.0.1:{server.port}")
    await client.send(message())

loop = NEW_LOOP()
loop.run_until_complete(main())
print("done")
""")


def test_what_was_closed_or_has_nothing_to_close() -> None:
    unclosed = ran("""
async def main():
    async with serve(echo) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        await client.send(message())
        drained, lost = Client(client.url), Client(client.url, reconnect=False)
        await drained.send(message())
        await drained.drain()
        await lost.send(message())
        closed = Client(client.url)
        await closed.close()
    await lost.wait_closed()
    refused = Client(client.url)
    try:
        await refused.send(message())
    except ConnectionError:
        pass
    Client(client.url)
    Server(echo)
    unbound = Server(echo)
    try:
        await unbound.start("192.0.2.1", 9)
    except OSError:
        pass
    for wrong in ("http://me", "ws://me:canary@host"):
        try:
            Client(wrong)
        except ValueError:
            pass
    try:
        Server(None)
    except TypeError:
        pass

run(main())
gc.collect()
assert descriptors() == BEFORE
print("done")
""")
    assert unclosed == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_them_to_its_parent() -> None:
    unclosed = ran("""
async def opened():
    server = await serve(echo)
    client = await connect(f"ws://127.0.0.1:{server.port}")
    await client.send(message())
    return server, client

async def closed(server, client):
    for _ in range(3):
        assert (await client.send(message())).data == b"canary"
    await client.close()
    await server.close()

runner = asyncio.Runner(loop_factory=NEW_LOOP)
server, client = runner.run(opened())
pid = os.fork()
if not pid:
    warnings.filterwarnings("ignore", "unclosed (event loop|transport|.*socket)", ResourceWarning)
    del server, client, runner
    gc.collect()
    gc.collect()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
runner.run(closed(server, client))
runner.close()
print("done")
""")
    assert unclosed == []
