"""One end of one peer, a process: ``python -m bench.child serve NAME`` or ``… drive NAME``.

Its parent and it speak JSON lines. The server prints ``{"address": …}`` and serves until its stdin ends.
The client reads rounds to drive from its stdin and prints what came of each. Both end when their parent
does, for then their stdin ends too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from bench.peers import Peer, load
from bench.shapes import Wanted


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.child", description=__doc__)
    parser.add_argument("end", choices=["serve", "drive"])
    parser.add_argument("peer")
    parser.add_argument("--cpu", type=int, help="the core to stay on")
    parser.add_argument("--loop", choices=["auto", "asyncio", "uvloop"], default="auto")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    end = _serve if arguments.end == "serve" else _drive
    with asyncio.Runner(loop_factory=_loop_factory(arguments.loop)) as runner:
        runner.run(end(load(arguments.peer)))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        if name == "uvloop":
            raise
        return None
    return uvloop.new_event_loop


async def _serve(peer: Peer) -> None:
    async with peer.serve() as address:
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        _say({"address": address, "loop": loop, "versions": peer.versions()})
        await asyncio.to_thread(sys.stdin.read)


async def _drive(peer: Peer) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        got = await peer.drive(asked["address"], Wanted.from_json(asked["wanted"]))
        _say(dataclasses.asdict(got))


def _say(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
