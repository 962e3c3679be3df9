"""The processes, one end of a peer each: started, pinned, told what to do by JSON lines (`bench.child`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from bench.peer import End, Peer, Program
from bench.peers import load
from bench.shapes import Round, Wanted

ROOT: Final = Path(__file__).parent.parent
STOP_SECONDS: Final = 15.0
"""For an end to stop by itself; then it is killed."""
PATIENCE: Final = 120.0
"""Seconds for an end to say its next line; then it is taken for stuck, and killed."""


class ChildFailed(Exception):
    """An end of a peer gave up; what it said is on stderr."""


def most_files() -> int:
    """How many files, and so connections, a process may have open here once it asks for all it can get."""
    try:
        import resource
    except ModuleNotFoundError:
        return 512
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def allow_files() -> None:
    """Ask for all of them."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def two_cpus() -> tuple[int, int] | None:
    """A core for servers and another for clients; None where the system has no two, or no way to choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else None


class Process:
    """A child that speaks JSON lines."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def tell(self, line: Mapping[str, Any]) -> None:
        """Give it a line."""
        pipe = _pipe(self._child.stdin)
        pipe.write(json.dumps(line) + "\n")
        pipe.flush()

    def hear(self) -> dict[str, Any]:
        """Its next line.

        Raises:
            ChildFailed: there is none.
        """
        killing = threading.Timer(PATIENCE, self._child.kill)
        killing.start()
        line = _pipe(self._child.stdout).readline()
        killing.cancel()
        if not line:
            raise ChildFailed(f"{self._child.args!s} ended with code {self._child.wait()}")
        fields: dict[str, Any] = json.loads(line)
        return fields

    def ask(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give it a line, and wait for its next one."""
        self.tell(line)
        return self.hear()

    def cpu(self) -> float | None:
        """Seconds of processor time that it and its children used, read from outside; None but on Linux."""
        if sys.platform != "linux":
            return None
        return sum(time.clock_gettime((~pid << 3) | _PROCESS_CLOCK) for pid in _family(self._child.pid))

    def resident(self) -> int | None:
        """Bytes of memory that it has in use; None where only Linux knows."""
        try:
            pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        except OSError:
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")


def _family(pid: int) -> list[int]:
    """A process, and what it and its children have started."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [pid, *(one for child in children for one in _family(child))]


_PROCESS_CLOCK: Final = 2
"""As clock_getcpuclockid(3) puts it into the low bits: what the scheduler counts, to the nanosecond."""


class Runner:
    """Both ends of one peer, running.

    Attributes:
        ready: what the server said when it was.
    """

    def __init__(self, server: Process, client: Process, ready: Mapping[str, Any]) -> None:
        self._server = server
        self._client = client
        self.ready = ready

    def round(self, wanted: Wanted) -> Round:
        """Drive one round.

        Raises:
            ChildFailed: the client gave up, for instance because an answer was wrong.
        """
        self._client.tell({"address": self.ready["address"], "wanted": wanted.to_json()})
        used: list[tuple[float | None, float | None]] = []
        while "tick" in (got := self._client.hear()):
            used.append((self._client.cpu(), self._server.cpu()))
        if len(used) != 2:
            return Round(**got)
        client, server = (_between(times) for times in zip(*used, strict=True))
        return replace(Round(**got), client_cpu=client, server_cpu=server)


def _between(times: tuple[float | None, ...]) -> float | None:
    before, after = times
    return None if before is None or after is None else after - before


@contextmanager
def serving(
    peer: Peer, *, cpus: tuple[int, int] | None = None, loop: str = "auto"
) -> Iterator[tuple[Process, dict[str, Any]]]:
    """Start a peer's server; gives it, and what it said when it was ready.

    Args:
        peer: whose.
        cpus: where servers and clients are pinned.
        loop: ``asyncio``, ``uvloop``, or ``auto``, which is uvloop where it is installed.

    Raises:
        ChildFailed: it did not start.
    """
    with _child(peer, "serve", cpus and cpus[0], loop) as server:
        yield server, server.hear()


@contextmanager
def running(name: str, *, cpus: tuple[int, int] | None = None, loop: str = "auto") -> Iterator[Runner]:
    """Start both ends of a peer; see `serving`."""
    peer = load(name)
    with ExitStack() as stack:
        server, ready = stack.enter_context(serving(peer, cpus=cpus, loop=loop))
        client = stack.enter_context(_child(peer, "drive", cpus and cpus[1], loop))
        yield Runner(server, client, ready)


@contextmanager
def _child(peer: Peer, end: End, cpu: int | None, loop: str) -> Iterator[Process]:
    its = peer.at(end)
    if isinstance(its, Program):
        its.build()
    arguments = ["bench.child", end, peer.name, "--loop", loop]
    arguments += [] if cpu is None else ["--cpu", str(cpu)]
    with module(*arguments, environment=its.environment) as process:
        yield process


@contextmanager
def module(*arguments: str, environment: Mapping[str, str]) -> Iterator[Process]:
    """Run a module of this package: its name, and its arguments."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C is the parent's to hear; an end stops when its stdin does
    ) as child:
        try:
            yield Process(child)
        finally:
            _pipe(child.stdin).close()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "Popen was asked for it"
    return pipe
