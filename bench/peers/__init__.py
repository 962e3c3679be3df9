"""Which peers there are, in the order in which they take turns.

A further one is a module here with the functions `serve` and `connect` (`bench.peer.Ends`), and a line below.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from bench.message import PARTS
from bench.peer import Pair, Peer, Program, PythonPeer, Sage, Workers
from bench.peers import go_gorilla, rust_limit

FAST: Final = ("orjson", "pybase64")
LATENCY: Final = frozenset({"sequential"})
LOAD: Final = frozenset({"64 in flight", "64 connections"})
SMALL: Final = frozenset({"sequential", "64 in flight", "64 connections"})
"""Shapes for those whose large messages say nothing new, and would take the time of the others."""


RUST: Final = Sage("sage-rust", "sage_ws, rust core", "bench.peers.sage:RUST", core="rust")
LIMIT: Final = Program("rust", "pure Rust on epoll, the limit", "cargo", rust_limit.build)


def _workers(count: int) -> Peer:
    command = (sys.executable, "-m", "bench.peers.sage_workers")
    name = f"sage-workers-{count}"
    server = Workers(
        name, "", "python3", lambda: command, arguments=(str(count),), environment=RUST.environment
    )
    return Pair(name, f"sage_ws.run, workers={count}", server, LIMIT)


RACING: Final[tuple[Peer, ...]] = (
    RUST,
    Sage("sage-uuid4", "sage_ws, ids by uuid4", "bench.peers.sage:UUID4", core="rust", shapes=SMALL),
    Sage("sage-asyncio", "sage_ws, asyncio's loop", "bench.peers.sage:RUST", core="rust", loop="asyncio"),
    Sage(
        "sage-busy",
        "sage_ws, busy_poll at both ends",
        "bench.peers.sage:BUSY",
        core="rust",
        option=("busy_poll", 60e-6),
        shapes=SMALL,
    ),
    Sage("sage-pure", "sage_ws, pure core", "bench.peers.sage:PURE", core="pure"),
    Sage(
        "sage-pure-asyncio",
        "sage_ws, pure core, asyncio's loop",
        "bench.peers.sage:PURE",
        core="pure",
        loop="asyncio",
        shapes=SMALL,
    ),
    PythonPeer(
        "picows",
        "picows + orjson + pybase64",
        "bench.peers.picows_orjson",
        packages=("picows", *FAST),
        loop="uvloop",
    ),
    PythonPeer(
        "aiohttp",
        "aiohttp WebSocket + orjson + pybase64",
        "bench.peers.aiohttp_orjson",
        packages=("aiohttp", *FAST),
        loop="uvloop",
    ),
    PythonPeer(
        "websockets-orjson",
        "websockets + orjson + pybase64",
        "bench.peers.websockets_orjson",
        packages=("websockets", *FAST),
        loop="uvloop",
    ),
    PythonPeer(
        "websockets",
        "websockets + json + base64, asyncio's loop",
        "bench.peers.websockets_json",
        packages=("websockets",),
        loop="asyncio",
    ),
    Program(
        "go",
        "SAGE in Go, gorilla",
        "go",
        go_gorilla.build,
        environment={"GOMAXPROCS": "1"},
        # Eight of 1 MiB are too much for its one mutex: both ends write, and neither reads any more.
        shapes=SMALL | {"64 KiB"},
    ),
    PythonPeer("http", "HTTP, aiohttp both ends", "bench.peers.aiohttp_json", packages=("aiohttp",)),
    PythonPeer(
        "httpx",
        "HTTP, httpx to uvicorn",
        "bench.peers.httpx_uvicorn",
        packages=("httpx", "uvicorn", "httptools"),
        shapes=SMALL,
    ),
    PythonPeer("grpc", "gRPC, grpc.aio both ends", "bench.peers.grpc_aio", packages=("grpcio",)),
    LIMIT,
    Program(
        "rust-spin",
        "pure Rust, spinning",
        "cargo",
        rust_limit.build,
        arguments=("--spin",),
        shapes=LATENCY,
    ),
    Pair("rust-sage", "Rust client, our server", RUST, LIMIT, shapes=LOAD),
    PythonPeer(
        "tcp", "bare TCP echo in Python, no protocol", "bench.peers.tcp_echo", packages=(), shapes=LATENCY
    ),
)

APART: Final[tuple[Peer, ...]] = (
    *(
        Sage(
            f"sage-sleep-{ms}",
            f"sage_ws, handlers that sleep {ms} ms",
            f"bench.peers.sage:SLEEP_{ms}",
            core="rust",
        )
        for ms in (0, 1, 10)
    ),
    *(
        Sage(name, title, f"bench.peers.{where}", core="rust", shapes=LOAD, messages=messages)
        for name, title, where, messages in (
            ("sage-json", "`sage.1.json`", "sage:JSON", 1),
            ("sage-cbor", "`sage.1.cbor`, the default", "sage:CBOR", 1),
            ("sage-deflate", "the same, compressed", "sage:DEFLATE", 1),
            ("sage-reversed", "the server asks", "sage_wire:ASKED_BY_SERVER", 1),
            ("sage-both-ways", "both ask at once", "sage_wire:BOTH_WAYS", 2),
            ("sage-streams", "parts of streams", "sage_wire:STREAMS", PARTS),
        )
    ),
    *(
        Sage(
            f"sage-pure-{name}",
            f"`sage.1.{name}`, pure core",
            f"bench.peers.sage:PURE_{name.upper()}",
            core="pure",
            shapes=LOAD,
        )
        for name in ("json", "cbor")
    ),
    Sage("sage-pinging", "sage_ws, a ping a second", "bench.peers.sage:PINGING", core="rust"),
    PythonPeer(
        "websockets-pinging",
        "websockets, a ping a second",
        "bench.peers.websockets_orjson:PINGING",
        packages=("websockets", *FAST),
        loop="uvloop",
    ),
    _workers(1),
    _workers(2),
)
"""What curves, idle connections and our own wire need besides; they are not in the race."""

PEERS: Final[Mapping[str, Peer]] = {peer.name: peer for peer in (*RACING, *APART)}
OURS: Final = ("sage-rust", "sage-pure")
"""The first of these that ran is what the others are compared with."""


def load(name: str) -> Peer:
    """The peer of this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return PEERS[name]
    except KeyError:
        raise ValueError(f"no peer {name!r}, there are {', '.join(PEERS)}") from None
