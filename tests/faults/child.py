"""What a program does that `tests/faults/process.py` starts: runs on the tests' loop, ends with its input."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program on the loop that ``SAGE_WS_TEST_LOOP`` names."""
    if os.environ.get("SAGE_WS_TEST_LOOP") == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


def say(line: str) -> None:
    """Tell who started this process."""
    print(line, flush=True)  # noqa: T201


async def input_ended() -> None:
    """Until who started this process ends its standard input, or is gone."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            ended.set()

    loop.add_reader(0, read)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(0)
