"""The tables of a `DedupeSQLite`, used from its one thread: who runs what, and what came of it.

A run belongs to its *owner*, a process that holds a lock on a file of its own for as long as it lives. The
kernel lets go of the lock however the process ends, and no process id, which another may get, is trusted. So
whoever meets a run without an answer can tell one that goes on from one that a crash has cut.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic, time
from typing import Any, Final
from urllib.parse import quote

from sage_ws.dedupe.joining import ELSEWHERE
from sage_ws.message import Response

SCHEMA: Final = 1
"""Of the file, in SQLite's ``user_version``."""
PATIENCE: Final = 30.0
"""Seconds to wait for another process's commit."""
LAST_PATIENCE: Final = 2.0
"""The same once the file is to be closed: one that is stopped in its commit must not hold up whoever ends."""
SLICE: Final = 0.25
"""Seconds of them that are waited in one piece."""
PRUNE_EVERY: Final = 1.0
"""Seconds between two looks for what is too old, or too much."""

_RUNNING, _DONE, _CUT = range(3)
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS owners (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS runs (key BLOB PRIMARY KEY, owner TEXT NOT NULL, state INTEGER NOT NULL,"
    " at REAL NOT NULL, success INTEGER, message_id TEXT, task_id TEXT, data BLOB, error TEXT)",
    "CREATE INDEX IF NOT EXISTS runs_at ON runs (at)",
    f"PRAGMA user_version = {SCHEMA}",
)


class Table:
    """An open file.

    Args:
        path: of the file.
        max_entries: runs that are kept; the oldest that have ended are forgotten first.
        max_age: seconds for which they are.
        synchronous: SQLite's word for how a commit is made.

    Raises:
        sqlite3.Error: the file cannot be used.
        ValueError: a later version of sage_ws wrote it.
    """

    def __init__(self, path: str, max_entries: int, max_age: float, synchronous: str) -> None:
        self._path = path
        self._max_entries, self._max_age = max_entries, max_age
        self._owner = secrets.token_hex(8)
        self._pruned_at = monotonic()
        self._give_up_at = inf
        self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute(f"PRAGMA busy_timeout = {1000 * SLICE:.0f}")
            self._lock = _held(self._lock_of(self._owner))
        except BaseException:
            self._db.close()
            raise
        try:
            self.apply([Table._begin])
        except BaseException:
            self._end()
            raise

    def apply(self, asked: Sequence[Callable[[Table], Any]]) -> list[Any]:
        """Do all of it in one transaction; returns the results."""
        self._lock_file()
        try:
            results = [one(self) for one in asked]
            if monotonic() >= self._pruned_at + PRUNE_EVERY:
                self._prune()
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise
        return results

    def _lock_file(self) -> None:
        """Begin a transaction that may write, when those of other processes let us."""
        give_up_at = monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # it has several kinds
                    raise
                if monotonic() >= min(give_up_at, self._give_up_at):
                    raise
            else:
                return

    def hurry(self) -> None:
        """From here on wait for `LAST_PATIENCE` at most; the one method that another thread may call."""
        self._give_up_at = monotonic() + LAST_PATIENCE

    def _begin(self) -> None:
        """Make the tables, and settle what owners that are gone have left."""
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema not in {0, SCHEMA}:
            raise ValueError(f"its version is {schema}, and this release knows {SCHEMA}")
        for statement in _TABLES:
            self._db.execute(statement)
        for (owner,) in self._db.execute("SELECT id FROM owners").fetchall():
            if self._is_gone(owner):
                self._bury(owner)
        self._db.execute("INSERT INTO owners VALUES (?)", (self._owner,))

    def claim(self, key: bytes) -> Response | str:
        """Enter a run, unless there is one.

        Returns:
            ``"run"``, ``"unknown"``, `ELSEWHERE`, or the answer that is kept.
        """
        entered = self._db.execute(
            "INSERT OR IGNORE INTO runs (key, owner, state, at) VALUES (?, ?, ?, ?)",
            (key, self._owner, _RUNNING, time()),
        )
        if entered.rowcount == 1:
            return "run"
        owner, state, *answer = self._db.execute(
            "SELECT owner, state, success, message_id, task_id, data, error FROM runs WHERE key = ?", (key,)
        ).fetchone()
        if state == _DONE:
            success, message_id, task_id, data, error = answer
            return Response(
                success=bool(success), message_id=message_id, task_id=task_id, data=data, error=error
            )
        if state == _RUNNING and owner != self._owner:
            if not self._is_gone(owner):
                return ELSEWHERE
            self._bury(owner)
        return "unknown"

    def withdraw(self, key: bytes) -> None:
        """Take back what `claim` has entered: nothing ran."""
        self._db.execute(
            "DELETE FROM runs WHERE key = ? AND owner = ? AND state = ?", (key, self._owner, _RUNNING)
        )

    def finish(self, key: bytes, response: Response) -> None:
        """Enter the answer of a run."""
        self._db.execute(
            "UPDATE runs SET state = ?, at = ?, success = ?, message_id = ?, task_id = ?, data = ?, error = ?"
            " WHERE key = ?",
            (
                _DONE,
                time(),
                response.success,
                response.message_id,
                response.task_id,
                response.data,
                response.error,
                key,
            ),
        )

    def cut(self, key: bytes) -> None:
        """Enter that a run was broken off."""
        self._db.execute("UPDATE runs SET state = ?, at = ? WHERE key = ?", (_CUT, time(), key))

    def close(self) -> None:
        """End as an owner whose runs have ended, and close the file."""
        try:
            self.apply([lambda table: table._bury(table._owner)])
        finally:
            self._end()

    def _end(self) -> None:
        self._lock.close()
        self._db.close()
        _remove(self._lock_of(self._owner))

    def _prune(self) -> None:
        """Forget what is too old, and the oldest of what is too much; never a run that goes on."""
        self._pruned_at = monotonic()
        self._db.execute("DELETE FROM runs WHERE at <= ? AND state != ?", (time() - self._max_age, _RUNNING))
        (count,) = self._db.execute("SELECT count(*) FROM runs").fetchone()
        if count > self._max_entries:
            self._db.execute(
                "DELETE FROM runs WHERE rowid IN"
                " (SELECT rowid FROM runs WHERE state != ? ORDER BY at LIMIT ?)",
                (_RUNNING, count - self._max_entries),
            )

    # ── owners ────────────────────────────────────────────────────────────────────────

    def _lock_of(self, owner: str) -> str:
        return f"{self._path}-owner-{owner}"

    def _is_gone(self, owner: str) -> bool:
        """Whether the process that an owner was has ended: nobody holds its lock then."""
        try:
            _held(self._lock_of(owner), "rw").close()
        except sqlite3.OperationalError as error:  # held by it, or its file was removed
            return error.sqlite_errorcode != sqlite3.SQLITE_BUSY
        return True

    def _bury(self, owner: str) -> None:
        """What an owner was at is cut, and it is no owner any more."""
        self._db.execute(
            "UPDATE runs SET state = ?, at = ? WHERE owner = ? AND state = ?", (_CUT, time(), owner, _RUNNING)
        )
        self._db.execute("DELETE FROM owners WHERE id = ?", (owner,))
        if owner != self._owner:
            _remove(self._lock_of(owner))


def _held(path: str, mode: str = "rwc") -> sqlite3.Connection:
    """A lock on a file until it is closed: SQLite's own, which there is on every platform.

    Raises:
        sqlite3.OperationalError: another holds it, or there is no such file.
    """
    lock = sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=0, isolation_level=None)
    try:
        lock.execute("PRAGMA journal_mode = MEMORY")  # nothing is written: no second file beside it
        lock.execute("BEGIN EXCLUSIVE")
    except BaseException:
        lock.close()
        raise
    return lock


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - pathlib is not worth its import here
