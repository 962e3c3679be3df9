"""What the Python peers share: JSON lines in are commands, JSON lines out are events (see ../conftest.py)."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def emit(event: str, **fields: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def emit_message(data: str | bytes) -> None:
    """Tell of a message."""
    if isinstance(data, str):
        emit("message", kind="text", text=data)
    else:
        emit("message", kind="binary", text=data.decode())


async def obey(peer: Any) -> None:
    """Take commands until standard input ends.

    Args:
        peer: has a method for each: ``listen() -> port``, ``dial(url)``, and for the newest connection
            ``send(text, kind)``, ``send_parts(parts)`` (one TEXT message in as many frames, a ping after each
            but the last), ``ping(text)``, ``close(code, reason)``. One that its library cannot do is missing.
    """
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        name = command.pop("do")
        made = await getattr(peer, name)(**command)
        if name == "listen":
            emit("listening", port=made)
