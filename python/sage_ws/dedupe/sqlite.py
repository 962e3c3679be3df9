"""A store in a SQLite file: it outlives its process, however that ends, and several processes may share it.

All that is asked for within one round of the event loop goes to a thread together and is committed at once,
so that a busy server pays for one commit per batch and its loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from sage_ws.dedupe.joining import ELSEWHERE, Begun, Joining
from sage_ws.message import Response

if TYPE_CHECKING:  # imported at `open`: they are slow to import
    from concurrent.futures import Future, ThreadPoolExecutor

    from sage_ws.dedupe.table import Table

POLL = 0.05
"""Seconds between two looks at a run that another process is at."""


class DedupeSQLite(Joining):
    """Keeps answers in a file: ``serve(handler, dedupe=DedupeSQLite("answers.db"))``.

    What a run's end was stays known after ``kill -9``, for the file is in WAL mode: what was answered is
    answered again, and a run that was cut off by the crash is answered ``outcome unknown``. Processes may
    share it, the workers of ``run(workers=N)`` among them: a message that comes again to another process
    waits there for the run in the first. The file belongs on a local disk; beside it stand SQLite's own
    ``-wal`` and ``-shm``, and a ``-owner-…`` for each process that uses it.

    Args:
        path: of the file, made where there is none.
        max_entries: ids that are kept; the oldest are forgotten first.
        max_age: seconds after its end for which a run is remembered.
        synchronous: ``"normal"`` outlives every end of the process; ``"full"`` a loss of power too, and waits
            for the disk at each commit.

    Raises:
        ValueError: a bound is not over 0, the path names no file, or ``synchronous`` is another word.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_entries: int = 1_000_000,
        max_age: float = 86_400.0,
        synchronous: Literal["normal", "full"] = "normal",
    ) -> None:
        super().__init__()
        for name, value in (("max_entries", max_entries), ("max_age", max_age)):
            if not value > 0:
                raise ValueError(f"{name} must be over 0, not {value}")
        if synchronous not in {"normal", "full"}:
            raise ValueError(f"synchronous must be normal or full, not {synchronous!r}")
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise ValueError(f"path must name a file, not {name!r}: in memory it is DedupeMemory")
        self._path = os.path.abspath(name)  # noqa: PTH100 - pathlib is not worth its import here
        self._bounds = max_entries, max_age
        self._synchronous = synchronous
        self._table: Table | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._asked: list[tuple[Callable[[Table], Any], asyncio.Future[Any]]] = []
        self._busy = False

    async def open(self) -> None:
        """Open the file, and settle what processes that are gone have left.

        Raises:
            OSError: it cannot be opened, or is no such file.
            RuntimeError: the store is in use in another event loop.
        """
        from concurrent.futures import ThreadPoolExecutor

        from sage_ws.dedupe.table import Table

        if not self._enter():
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix="sage_ws dedupe")
        opening = thread.submit(Table, self._path, *self._bounds, self._synchronous)
        try:
            self._table = await asyncio.wrap_future(opening)
            self._thread = thread
        except BaseException as error:
            self._leave()
            thread.shutdown(wait=False)
            if isinstance(error, Exception):
                raise OSError(f"dedupe store {self._path}: {error}") from error
            raise

    async def begin(self, key: bytes) -> Begun:
        """Decide what becomes of a message: see `Dedupe.begin`.

        Raises:
            sqlite3.Error: the file cannot be read or written; the message must not run then.
        """
        joined = await self._joined(key)
        if joined is not None:
            return joined
        self._start(key)
        claimed = ""

        def claim(table: Table) -> Response | str:
            nonlocal claimed
            answer = table.claim(key)
            claimed = answer if isinstance(answer, str) else ""
            return answer

        def withdraw(table: Table) -> None:
            if claimed == "run":
                table.withdraw(key)

        begun: Begun | None = "unknown"
        try:
            while True:
                answer = await self._ask(claim)
                if answer != ELSEWHERE:
                    break
                await asyncio.sleep(POLL)  # no process can tell another that it is done
            made: Begun = answer
            begun = made
        except asyncio.CancelledError:
            # It never runs: who waits for it here may, and who finds it in the file must not wait for it.
            begun = None
            if self._users:
                self._ask(withdraw).add_done_callback(_forget)
            raise
        else:
            return made
        finally:
            if begun != "run":
                self._end(key, begun)

    async def finish(self, key: bytes, response: Response) -> None:
        """Write the answer of a run.

        Raises:
            sqlite3.Error: it could not be written; the outcome is unknown to whoever comes later.
        """
        try:
            await self._ask(lambda table: table.finish(key, response))
        finally:
            self._end(key, response)

    def cut(self, key: bytes) -> None:
        """A run was broken off; written when the thread comes to it, and true without: nobody runs it."""
        if self._users:
            self._ask(lambda table: table.cut(key)).add_done_callback(_forget)
        self._end(key, "unknown")

    async def close(self) -> None:
        """Write what was asked for, and close the file."""
        if not self._leave():
            return
        thread, table = self._thread, self._table
        assert thread is not None
        assert table is not None
        asked, self._asked = self._asked, []
        table.hurry()
        try:
            self._settle(asked, thread.submit(table.apply, [one for one, _ in asked]))
            # to its end, though nobody should wait for it any more: else the file stays open
            await asyncio.shield(asyncio.wrap_future(thread.submit(table.close)))
        finally:
            self._table = self._thread = None
            thread.shutdown(wait=False)

    # ── to the thread and back ────────────────────────────────────────────────────────

    def _ask(self, what: Callable[[Table], Any]) -> asyncio.Future[Any]:
        """Have something done in the thread, with all else that is asked for in this round of the loop."""
        if self._table is None or self._loop is None:
            raise RuntimeError("the store is not open")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append((what, answer))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over)
        return answer

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        if not asked or self._thread is None or self._table is None:
            self._busy = False
            return
        self._settle(asked, self._thread.submit(self._table.apply, [one for one, _ in asked]))

    def _settle(
        self, asked: list[tuple[Callable[[Table], Any], asyncio.Future[Any]]], done: Future[list[Any]]
    ) -> None:
        """Bring a batch's results back to who asked, and hand over what was asked for meanwhile."""
        loop = self._loop
        assert loop is not None

        def bring() -> None:
            error = done.exception()
            for index, (_, answer) in enumerate(asked):
                if answer.done():
                    continue
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(done.result()[index])
            self._hand_over()

        def told(_: Future[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(bring)

        done.add_done_callback(told)


def _forget(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this: an error is not reported as if somebody had failed to."""
    if not answer.cancelled():
        answer.exception()
