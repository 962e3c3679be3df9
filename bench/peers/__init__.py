"""Which peers there are, in the order in which they take turns.

A further one is a module here with the functions `serve` and `connect` (`bench.peer.Ends`), and a line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.peer import Peer, Program, PythonPeer, Sage
from bench.peers import go_gorilla

FAST: Final = ("orjson", "pybase64")
LATENCY: Final = frozenset({"sequential"})
SMALL: Final = frozenset({"sequential", "64 in flight", "64 connections"})
"""Shapes for those whose large messages say nothing new, and would take the time of the others."""

PEERS: Final[Mapping[str, Peer]] = {
    peer.name: peer
    for peer in (
        Sage("sage-rust", "sage_ws", "bench.peers.sage:RUST", core="rust"),
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
        Program("go", "SAGE in Go, gorilla", "go", go_gorilla.build, environment={"GOMAXPROCS": "1"}),
        PythonPeer("http", "HTTP, aiohttp both ends", "bench.peers.aiohttp_json", packages=("aiohttp",)),
        PythonPeer(
            "httpx",
            "HTTP, httpx to uvicorn",
            "bench.peers.httpx_uvicorn",
            packages=("httpx", "uvicorn", "httptools"),
            shapes=SMALL,
        ),
        PythonPeer("grpc", "gRPC, grpc.aio both ends", "bench.peers.grpc_aio", packages=("grpcio",)),
        PythonPeer(
            "tcp", "bare TCP echo in Python, no protocol", "bench.peers.tcp_echo", packages=(), shapes=LATENCY
        ),
    )
}

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
