"""One end of one peer, a process: ``python -m bench.child serve NAME`` or ``… drive NAME``.

Its parent and it speak JSON lines, on stdin and stdout, and both ends stop when their stdin ends:

- the server says ``{"address": …, "loop": …, "versions": {…}}`` and serves.
- the client gets ``{"address": …, "wanted": {…}}`` for each round (`bench.shapes.Wanted`) and says what came
  of it (`bench.shapes.Round`); before that ``{"tick": true}`` when its clock starts, and when it stops,
  unless the round is one of so many messages.

An end in another language speaks the same lines: this process becomes it, on the core that was chosen.
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

from bench.driving import drive
from bench.peer import Program, PythonPeer
from bench.peers import load
from bench.processes import allow_files
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
    allow_files()
    peer = load(arguments.peer).at(arguments.end)
    if isinstance(peer, Program):
        command = peer.command(arguments.end)
        os.execv(command[0], command)
    assert isinstance(peer, PythonPeer), "there is no third kind"
    end = _serve if arguments.end == "serve" else _drive
    with asyncio.Runner(loop_factory=_loop_factory(peer.loop or arguments.loop)) as runner:
        runner.run(end(peer))


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


async def _serve(peer: PythonPeer) -> None:
    async with peer.ends().serve() as address:
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        _say({"address": address, "loop": loop, "versions": peer.versions()})
        await asyncio.to_thread(sys.stdin.read)


async def _drive(peer: PythonPeer) -> None:
    connect = peer.ends().connect
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        wanted = Wanted.from_json(asked["wanted"])
        got = await drive(connect, asked["address"], wanted, lambda: _say({"tick": True}))
        _say(dataclasses.asdict(got))


def _say(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
