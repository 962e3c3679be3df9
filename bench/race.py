"""The parent: starts both ends of every peer, and lets the peers take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from bench.peer import Program
from bench.peers import load
from bench.shapes import Round, Shape, Wanted

Child: TypeAlias = "subprocess.Popen[str]"

ROOT: Final = Path(__file__).parent.parent
STOP_SECONDS: Final = 15.0
"""For an end to end by itself; then it is killed."""
PATIENCE: Final = 120.0
"""Seconds for an end to say its next line; then it is taken for stuck, and killed."""


class ChildFailed(Exception):
    """An end of a peer gave up; what it said is on stderr."""


@dataclass
class Results:
    """What a race gave.

    Attributes:
        rounds: shape's name to peer's name to its rounds, in the order of the race.
        seconds: that each round was asked to last.
        versions: of what the peers are made of.
        loops: peer's name to its event loop's library.
        cpus: the cores of server and client; None where they were not pinned.
        skipped: peer's name to what kept it from running.
    """

    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    loops: dict[str, str] = field(default_factory=dict)
    cpus: tuple[int, int] | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def peers(self) -> list[str]:
        """Those that ran, in the order of their turns."""
        return list(dict.fromkeys(name for turns in self.rounds.values() for name in turns))


def two_cpus() -> tuple[int, int] | None:
    """A core for servers and another for clients; None where the system has no two, or no way to choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else None


class Runner:
    """Both ends of one peer, running.

    Attributes:
        ready: what the server said when it was.
    """

    def __init__(self, server: Child, client: Child, ready: Mapping[str, Any]) -> None:
        self._server = server
        self._client = client
        self.ready = ready

    def round(self, wanted: Wanted) -> Round:
        """Drive one round.

        Raises:
            ChildFailed: the client gave up, for instance because an answer was wrong.
        """
        _write(self._client, json.dumps({"address": self.ready["address"], "wanted": wanted.to_json()}))
        used: list[float] = []
        while "tick" in (got := _read(self._client)):
            used.append(self.usage()["cpu"])
        server_cpu = used[-1] - used[0] if len(used) > 1 else None
        return Round(**{**got, "server_cpu": server_cpu})

    def usage(self) -> dict[str, Any]:
        """What the server's process has used so far: ``cpu`` in seconds, ``rss`` in bytes."""
        _write(self._server, "usage")
        return _read(self._server)


@contextmanager
def running(name: str, *, cpus: tuple[int, int] | None = None, loop: str = "auto") -> Iterator[Runner]:
    """Start both ends of a peer.

    Args:
        name: the peer's.
        cpus: where to pin server and client.
        loop: ``asyncio``, ``uvloop``, or ``auto``, which is uvloop where it is installed.

    Raises:
        ChildFailed: one of them did not start.
    """
    peer = load(name)
    if isinstance(peer, Program):
        peer.build()
    with ExitStack() as stack:
        server = stack.enter_context(_child("serve", name, cpus and cpus[0], loop))
        ready = _read(server)
        client = stack.enter_context(_child("drive", name, cpus and cpus[1], loop))
        yield Runner(server, client, ready)


@contextmanager
def _child(end: str, name: str, cpu: int | None, loop: str) -> Iterator[Child]:
    command = [sys.executable, "-m", "bench.child", end, name, "--loop", loop]
    command += [] if cpu is None else ["--cpu", str(cpu)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **load(name).environment},
        start_new_session=True,  # Ctrl-C is the parent's to hear; an end stops when its stdin does
    ) as child:
        try:
            yield child
        finally:
            _pipe(child.stdin).close()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "Popen was asked for it"
    return pipe


def _write(child: Child, line: str) -> None:
    pipe = _pipe(child.stdin)
    pipe.write(line + "\n")
    pipe.flush()


def _read(child: Child) -> dict[str, Any]:
    killing = threading.Timer(PATIENCE, child.kill)
    killing.start()
    line = _pipe(child.stdout).readline()
    killing.cancel()
    if not line:
        raise ChildFailed(f"{child.args!s} ended with code {child.wait()}")
    fields: dict[str, Any] = json.loads(line)
    return fields


def race(
    peers: Sequence[str],
    shapes: Sequence[Shape],
    *,
    rounds: int,
    seconds: float,
    loop: str = "auto",
    said: Callable[[str], None] = lambda _: None,
) -> Results:
    """Let the peers take turns at each shape.

    Args:
        peers: names, in the order of their turns; those that cannot run here are left out and named.
        shapes: of the traffic.
        rounds: turns of each peer at each shape.
        seconds: that each turn lasts.
        loop: see `running`.
        said: told of the progress, a line at a time.

    Raises:
        ChildFailed: a peer gave up.
    """
    results = Results(seconds=seconds, cpus=two_cpus())
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name in peers:
            reason = load(name).missing()
            if reason is not None:
                results.skipped[name] = reason
                continue
            runners[name] = stack.enter_context(running(name, cpus=results.cpus, loop=loop))
            results.loops[name] = runners[name].ready["loop"]
            results.versions.update(runners[name].ready["versions"])
        for shape in shapes:
            taking = [name for name in runners if load(name).takes(shape.name)]
            said(f"{shape.name}: {rounds} rounds of {len(taking)} peers")
            turns: dict[str, list[Round]] = {name: [] for name in taking}
            for _ in range(rounds):
                for name in taking:
                    turns[name].append(runners[name].round(Wanted(shape, seconds)))
            results.rounds[shape.name] = turns
    return results
