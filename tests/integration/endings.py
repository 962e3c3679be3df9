"""Ways in which a raw peer's connection ends: each is given the peer and its server, and brings it about."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_ws import Server


async def says_goodbye(peer: Any, server: Server) -> None:
    peer.close_frame()
    await peer.read_close()


async def hangs_up(peer: Any, server: Server) -> None:
    peer.writer.close()


async def aborts(peer: Any, server: Server) -> None:
    peer.abort()


async def breaks_a_rule(peer: Any, server: Server) -> None:
    peer.write(b"\x81\x00")  # not masked
    await peer.read_close()
    peer.writer.close()


async def is_closed(peer: Any, server: Server) -> None:
    closing = [asyncio.create_task(one.close()) for one in server.connections]
    await peer.until_closed()
    await asyncio.gather(*closing)
