"""Which peers there are, in the order in which they take turns.

A further one is a module here with the functions `serve` and `connect` (`bench.peer.Ends`), and a line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.peer import Peer, Program, PythonPeer, Sage
from bench.peers import go_gorilla

FAST: Final = ("orjson", "pybase64")

PEERS: Final[Mapping[str, Peer]] = {
    peer.name: peer
    for peer in (
        Sage("sage-rust", "sage_ws, rust core", "bench.peers.sage:RUST", core="rust"),
        Sage("sage-pure", "sage_ws, pure core", "bench.peers.sage:PURE", core="pure"),
        PythonPeer(
            "picows",
            "picows + orjson + pybase64",
            "bench.peers.picows_orjson",
            packages=("picows", *FAST),
            loop="uvloop",
        ),
        Program("go", "SAGE in Go, gorilla", "go", go_gorilla.build, environment={"GOMAXPROCS": "1"}),
        PythonPeer(
            "websockets",
            "websockets + json + base64, asyncio",
            "bench.peers.websockets_json",
            packages=("websockets",),
            loop="asyncio",
        ),
        PythonPeer("http", "HTTP, aiohttp both ends", "bench.peers.aiohttp_json", packages=("aiohttp",)),
        PythonPeer("grpc", "gRPC, grpc.aio both ends", "bench.peers.grpc_aio", packages=("grpcio",)),
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
