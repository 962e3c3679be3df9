"""Opening handshakes alone: ours beside `websockets`', and beside those of other sources of ours.

::

    python -m bench.storm                     on uvloop
    python -m bench.storm --loop asyncio      on asyncio's own loop
    python -m bench.storm --tree ../before    and of another tree of sage_ws, built there
    python -m bench.storm --memory            instead: bytes by which a server grows for each connection

It is the storm of `bench.idle`, of raw clients against one server after the other, round for round, for who
works on the opening handshake and wants its figure in a minute. `SAGE_WS_LINK` holds for our servers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from bench.idle import WARM, rested
from bench.peer import Peer
from bench.peers import load
from bench.processes import Process, module, serving, two_cpus

THEIRS: Final = {"uvloop": "websockets-orjson", "asyncio": "websockets"}


@dataclass(frozen=True)
class Storm:
    """What a storm cost a server.

    Attributes:
        opening: seconds of its processor time for each opening handshake.
        whole: the same, with the end of each connection.
        kept: bytes by which it had grown for each connection while all were open.
    """

    opening: float
    whole: float
    kept: float


class Target:
    """A server, and the raw clients that are its storm."""

    def __init__(self, server: Process, address: str, clients: Process) -> None:
        self._server = server
        self._address = address
        self._clients = clients

    def storm(self, count: int) -> Storm:
        """So many opening handshakes; all connections stay until the last is open, then all hang up."""
        begun, before = rested(self._server), self._server.resident() or 0
        self._clients.ask({"open": count, "address": self._address, "message": False})
        opened, after = rested(self._server), self._server.resident() or 0
        self._clients.ask({"close": True})
        ended = rested(self._server)
        return Storm((opened - begun) / count, (ended - begun) / count, (after - before) / count)


@contextmanager
def target(peer: Peer, loop: str) -> Iterator[Target]:
    """Start both processes; some connections come and go before it is ready."""
    cpus = two_cpus()
    pinned = ["--cpu", str(cpus[1])] if cpus else []
    with (
        serving(peer, cpus=cpus, loop=loop) as (server, ready),
        module("bench.raw_clients", *pinned, environment={}) as clients,
    ):
        made = Target(server, ready["address"], clients)
        made.storm(WARM)
        yield made


def race(peers: Mapping[str, Peer], *, rounds: int, count: int, loop: str) -> dict[str, list[Storm]]:
    """Let servers take turns: A B C A B C …"""
    with ExitStack() as stack:
        targets = {name: stack.enter_context(target(peer, loop)) for name, peer in peers.items()}
        storms: dict[str, list[Storm]] = {name: [] for name in targets}
        for _ in range(rounds):
            for name, one in targets.items():
                storms[name].append(one.storm(count))
    return storms


def memory(peers: Mapping[str, Peer], *, rounds: int, count: int, loop: str) -> dict[str, list[Storm]]:
    """Let fresh servers take turns, one storm each: memory that is free already does not grow."""
    storms: dict[str, list[Storm]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            with target(peer, loop) as one:
                storms[name].append(one.storm(count))
    return storms


def of_tree(tree: Path) -> Peer:
    """Our native server with the sources, and the extension, of another tree."""
    ours = load("sage-rust")
    return replace(ours, environment={**ours.environment, "PYTHONPATH": str(tree.resolve() / "python")})


def lines(storms: Mapping[str, Sequence[Storm]]) -> Iterator[str]:
    """The table: medians, and the median of the ratios inside each round to the first server."""
    first = next(iter(storms.values()))
    yield f"{'':20}{'us to open':>12}{'us in all':>12}{'bytes kept':>12}{'of the first':>14}"
    for name, its in storms.items():
        ratio = median(other.opening / one.opening for one, other in zip(first, its, strict=True))
        opening, whole = median(one.opening for one in its) * 1e6, median(one.whole for one in its) * 1e6
        yield f"{name:20}{opening:12.1f}{whole:12.1f}{median(one.kept for one in its):12.0f}{ratio:13.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.storm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", help="comma-separated names; ours and websockets")
    parser.add_argument("--tree", type=Path, action="append", default=[], help="other sources of sage_ws")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=5_000, help="opening handshakes of a storm")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--memory", action="store_true", help="a fresh server for each storm")
    given = parser.parse_args()
    names = given.peers.split(",") if given.peers else ["sage-rust", THEIRS[given.loop]]
    peers = {name: load(name) for name in names} | {tree.name: of_tree(tree) for tree in given.tree}
    run = memory if given.memory else race
    print("\n".join(lines(run(peers, rounds=given.rounds, count=given.count, loop=given.loop))))


if __name__ == "__main__":
    main()
