"""What every peer offers, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, cast

from bench.shapes import Round, Wanted


class Peer(Protocol):
    """One way to bring messages to a server and answers back.

    Its two ends run in processes of their own (`bench.child`), one of which calls ``serve``, the other
    ``drive`` once for each round. A peer that is no Python program starts its own there.
    """

    name: str
    """For ``--peers``, ``bench.child`` and the JSON."""
    title: str
    """For the tables."""
    environment: Mapping[str, str]
    """Variables for both processes, such as the core that they shall run."""

    def missing(self) -> str | None:
        """What keeps it from running here, None if nothing does."""
        ...

    def versions(self) -> Mapping[str, str]:
        """What it is made of, name to version."""
        ...

    def serve(self) -> AbstractAsyncContextManager[str]:
        """Run its server, on a free port; gives the address for ``drive``."""
        ...

    async def drive(self, address: str, wanted: Wanted) -> Round:
        """Drive one round and check every answer, by `bench.driving` or otherwise."""
        ...


PEERS: Final[Mapping[str, str]] = {
    "sage-rust": "bench.peers.sage:RUST",
    "sage-pure": "bench.peers.sage:PURE",
    "websockets": "bench.peers.websockets_json:PEER",
    "http": "bench.peers.aiohttp_json:PEER",
    "grpc": "bench.peers.grpc_aio:PEER",
}
"""Where each peer is, in the order in which they take turns."""

OURS: Final = ("sage-rust", "sage-pure")
"""The first of these that ran is what the others are compared with."""


def load(name: str) -> Peer:
    """The peer of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in PEERS:
        raise ValueError(f"no peer {name!r}, there are {', '.join(PEERS)}")
    module, _, attribute = PEERS[name].partition(":")
    return cast("Peer", getattr(importlib.import_module(module), attribute))
