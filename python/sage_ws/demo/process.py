"""A child process and its parent, who tell each other JSON lines: stdin downwards, stdout upwards.

A child works until its stdin ends. That happens when the parent lets go of it and also when the parent
is killed, so that no child outlives it; and the terminal's Ctrl-C goes to the parent alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Final

from sage_ws.aio.run import loop_factory

STOP_SECONDS: Final = 3.0
"""For a child to end by itself; then it is killed."""


class Child:
    """The parent's end of one child; made by `child`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a child needs pipes")
        self.name = name
        self.process = process
        self._downwards = process.stdin
        self._upwards = process.stdout

    async def tell(self, line: dict[str, Any]) -> None:
        """Send one line."""
        self._downwards.write(json.dumps(line).encode() + b"\n")
        await self._downwards.drain()

    async def hear(self) -> dict[str, Any]:
        """Wait for its next line.

        Raises:
            OSError: the child has ended instead.
        """
        line = await self._upwards.readline()
        if not line:
            raise OSError(f"the {self.name} process ended with code {await self.process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def stop(self) -> None:
        """Let go of it, and see it end."""
        self._downwards.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def child(name: str, module: str) -> AsyncIterator[Child]:
    """Run a module as a child process, for the length of an ``async with`` block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    one = Child(name, process)
    try:
        yield one
    finally:
        await one.stop()


class Parent:
    """The child's end."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin = stdin
        self._stdout = stdout

    def tell(self, line: dict[str, Any]) -> None:
        """Send one line; short enough for the pipe to take it at once."""
        self._stdout.write(json.dumps(line).encode() + b"\n")
        self._stdout.flush()

    async def hear(self) -> dict[str, Any]:
        """Wait for its next line."""
        heard: dict[str, Any] = json.loads(await asyncio.to_thread(self._stdin.readline))
        return heard

    async def gone(self) -> None:
        """Wait until it let go of us, or has died."""
        await asyncio.to_thread(self._stdin.read)


def run_child(work: Callable[[Parent], Awaitable[None]], stdin: BinaryIO, stdout: BinaryIO) -> None:
    """A child's ``main``: the loop that a server or client of ours would run on, too."""

    async def start() -> None:
        await work(Parent(stdin, stdout))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(start())
