"""Real processes that are killed, stopped and started again: a module of these tests each, run as a program.

It ends when its standard input does, so that none outlives who started it, and prints what it has to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds for a process to say or to do what is waited for."""


class Process:
    """``python -m module arguments…`` in a process of its own: ``async with`` starts it and kills it.

    Args:
        module: such as ``tests.faults.answering``.
        arguments: for its command line.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._said = asyncio.Condition()
        self._ended = True
        self.lines: list[str] = []
        self.starts = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; it may not run already."""
        assert self._ended, "it runs already"
        self._ended = False
        self.lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            # What is killed could not tell what it covered: measuring it would only slow it down.
            env={**os.environ, "COVERAGE_PROCESS_CONFIG": ""},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self.starts += 1
        self._hearing = asyncio.create_task(self._hear(self._process))

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                async with self._said:
                    self.lines.append(line.decode(errors="replace").rstrip())
                    self._said.notify_all()
        finally:
            await process.wait()
            async with self._said:
                self._ended = True
                self._said.notify_all()

    async def line(self, containing: str, patience: float = PATIENCE) -> str:
        """The first line with this text that it has printed since its start, or will print."""
        async with asyncio.timeout(patience), self._said:
            while True:
                for line in self.lines:
                    if containing in line:
                        return line
                assert not self._ended, f"it ended without saying {containing!r}, but {self.lines}"
                await self._said.wait()

    def stop(self) -> None:
        """SIGSTOP: its sockets stay open, and nobody is there."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone and its last line read; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self._gone()

    async def end(self) -> int:
        """End its standard input, which tells it to end; its exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._gone()
        assert self._process.returncode is not None
        return self._process.returncode

    async def _gone(self) -> None:
        assert self._hearing is not None
        async with asyncio.timeout(PATIENCE):
            await self._hearing

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def close(self) -> None:
        """Kill it if it runs."""
        if not self._ended:
            await self.kill()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ServerProcess(Process):
    """A server program that keeps its port over its restarts: ``python -m module PORT arguments…``.

    It prints a line with ``listening`` once it does. The port is held here by a bound socket that never
    listens: nobody else gets it meanwhile, and who dials while no server runs is refused.

    Args:
        module: such as ``tests.faults.answering``.
        arguments: for its command line, behind the port.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        super().__init__(module, str(self.port), *arguments)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        await super().start()
        await self.line("listening")

    async def restart(self) -> None:
        """Kill -9, whatever it does, and start it again on the same port."""
        await self.kill()
        await self.start()

    async def close(self) -> None:
        """Kill it if it runs, and give the port back."""
        try:
            await super().close()
        finally:
            self._held.close()
