"""What a fault run must leave as it was: the tasks of this loop, the descriptors of this process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.faults.ledger import PATIENCE


class Baseline:
    """What this process holds before a run, and must hold no more of after it."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._files = open_files()

    async def regained(self) -> None:
        """Wait until no task and no descriptor is left over.

        Raises:
            AssertionError: there are some, and they stay.
        """
        tasks, files = self._left()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while tasks or files:
                    await asyncio.sleep(0.005)
                    tasks, files = self._left()
        assert not tasks, f"tasks are left: {tasks}"
        assert not files, f"descriptors are left: {files}"

    def _left(self) -> tuple[set[asyncio.Task[object]], dict[int, str]]:
        """Tasks that are new; descriptors, where there are more: a loop may exchange its own."""
        tasks = {task for task in asyncio.all_tasks() - self._tasks if task is not asyncio.current_task()}
        files = open_files()
        return tasks, dict(files.items() - self._files.items()) if len(files) > len(self._files) else {}


def open_files() -> dict[int, str]:
    """This process' sockets, pipes and files, and what they are; not what a loop keeps for itself."""
    found: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # of the listing itself
            name = str(entry.readlink())
            if not name.startswith(("anon_inode:", "/dev/null")):
                found[int(entry.name)] = name
    return found
