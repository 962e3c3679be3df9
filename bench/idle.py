"""Connections without traffic: what opening one costs a server, what it keeps of one, what its pings cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bench.building import BuildFailed
from bench.peers import load
from bench.processes import ChildFailed, Process, module, most_files, serving
from bench.race import Said
from bench.record import Record

MEMORY: Final = "bytes for an idle connection"
HANDSHAKES: Final = "opening handshakes per second and core"
PINGS: Final = "share of a core for the pings of 10,000 idle connections"

HELD: Final = ("sage-rust", "sage-pure", "picows", "aiohttp", "websockets-orjson", "go", "rust")
OPENED: Final = ("sage-rust", "sage-pure", "picows", "aiohttp", "websockets-orjson", "go", "rust")
PINGING: Final = {"sage-rust": "sage-pinging", "websockets-orjson": "websockets-pinging"}
"""Whose pings are measured, and the peer that pings each second."""
USUAL_INTERVAL: Final = 20.0
"""Seconds between two pings by default, with ours and with `websockets`."""
WARM: Final = 200
"""Connections that come and go first: what a server allocates once is not theirs."""


@contextmanager
def _both(record: Record, name: str, loop: str) -> Iterator[tuple[Process, str, Process]]:
    """A peer's server, its address, and raw clients."""
    cpus = record.cpus
    pinned = ["--cpu", str(cpus[1])] if cpus else []
    with (
        serving(load(name), cpus=cpus, loop=loop) as (server, ready),
        module("bench.raw_clients", *pinned, environment={}) as clients,
    ):
        record.versions.update(ready["versions"])
        record.loops[name] = ready["loop"]
        clients.ask({"open": WARM, "address": ready["address"], "message": True})
        clients.ask({"close": True})
        rested(server)
        yield server, ready["address"], clients


@contextmanager
def _noting(record: Record, name: str) -> Iterator[None]:
    """A peer that gives up is out; the others go on."""
    try:
        yield
    except (BrokenPipeError, BuildFailed, ChildFailed) as error:
        record.failed[name] = str(error)


def rested(server: Process) -> float:
    """Its processor time, once it does nothing any more."""
    before, now, until = -1.0, server.cpu() or 0.0, time.monotonic() + AT_MOST
    while now - before > REST * IDLE and time.monotonic() < until:
        time.sleep(REST)
        before, now = now, server.cpu() or 0.0
    return now


REST: Final = 0.02
AT_MOST: Final = 5.0
IDLE: Final = 0.01
"""Of a core: what uses less than this over `REST` seconds is at rest."""


def _able(record: Record, names: tuple[str, ...], figure: str, connections: int) -> list[str]:
    """Those that can run here with so many connections; why the others cannot is noted."""
    if sys.platform != "linux":
        record.skipped[figure] = "only Linux lends out the clock of another process"
        return []
    if connections > most_files() - 100:
        record.skipped[figure] = "this system lets a process open too few files"
        return []
    able = []
    for name in names:
        reason = load(name).missing()
        if reason is None:
            able.append(name)
        else:
            record.skipped[load(name).title] = reason
    return able


def take_memory(record: Record, connections: int, rounds: int, loop: str, said: Said) -> None:
    """Bytes by which a fresh server grows for each connection, after one message on each."""
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        said(f"{MEMORY}: round {number + 1} of {rounds}")
        for name in _able(record, HELD, MEMORY, connections):
            with _noting(record, name), _both(record, name, loop) as (server, address, clients):
                before = server.resident()
                clients.ask({"open": connections, "address": address, "message": True})
                rested(server)
                after = server.resident()
                if before is not None and after is not None:
                    took.setdefault(name, []).append((after - before) / connections)
    record.figures[MEMORY] = took


def take_handshakes(record: Record, count: int, rounds: int, loop: str, said: Said) -> None:
    """A storm: opening handshakes per second of the server's processor time, all connections kept."""
    took: dict[str, list[float]] = {}
    with ExitStack() as stack:
        able = _able(record, OPENED, HANDSHAKES, count)
        running = {}
        for name in able:
            with _noting(record, name):
                running[name] = stack.enter_context(_both(record, name, loop))
        for number in range(rounds):
            said(f"{HANDSHAKES}: round {number + 1} of {rounds}")
            for name, (server, address, clients) in running.items():
                with _noting(record, name):
                    before = rested(server)
                    clients.ask({"open": count, "address": address, "message": False})
                    took.setdefault(name, []).append(count / (rested(server) - before))
                    clients.ask({"close": True})
                    rested(server)
    record.figures[HANDSHAKES] = took


def take_pings(record: Record, connections: int, seconds: float, rounds: int, loop: str, said: Said) -> None:
    """The share of a core, pinging each second, scaled to the usual interval."""
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        said(f"{PINGS}: round {number + 1} of {rounds}")
        for name in _able(record, tuple(PINGING), PINGS, connections):
            with _noting(record, name), _both(record, PINGING[name], loop) as (server, address, clients):
                clients.ask({"open": connections, "address": address, "message": False})
                before, begun = server.cpu() or 0.0, time.perf_counter()
                pings = clients.ask({"answer_pings": seconds})["pings"]
                share = ((server.cpu() or 0.0) - before) / (time.perf_counter() - begun)
                # What came, not what was asked for: a server that is late must not look cheap.
                took.setdefault(name, []).append(share * 10_000 / USUAL_INTERVAL / (pings / seconds))
    record.figures[PINGS] = took
