"""The processes that answer on one port: each has a place, and a socket there by which the others ask it.

::

    folder/1        a unix socket: who connects is sent what its process shows, and the end of file
    folder/1.lock   held by the process of place 1 until its end, however that comes about
    folder/2 …

A place is a number from 1 on, so that what takes over from a worker goes on with its series, as a new process
does. The folder is readable to its user alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

END: Final = b"# EOF\n"
"""Stands behind an answer that is whole."""
PATIENCE: Final = 3.0
"""Seconds for the answer of another process: more than it gives its own loop."""


class Places:
    """Places for some processes, which are forks of the one that makes this.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._folder = Path(tempfile.mkdtemp(prefix="sage_ws-metrics-"))
        self._owner = os.getpid()
        self._holder: int | None = None

    @contextmanager
    def taken(self) -> Iterator[int]:
        """Hold a place that is free.

        Raises:
            RuntimeError: none is.
        """
        if not hasattr(os, "fork"):
            yield 1
            return
        import fcntl

        if self._holder == os.getpid():
            raise RuntimeError("this process serves the metrics port already")
        for place in range(1, self._count + 1):
            # Not flock: a child of a worker that outlives it would hold that.
            descriptor = os.open(self._folder / f"{place}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                continue
            self._holder = os.getpid()
            try:
                yield place
            finally:
                self._holder = None
                os.close(descriptor)
            return
        raise RuntimeError(
            f"the metrics port was made for {self._count} processes, and as many serve it: see workers="
        )

    def listen(self, place: int) -> socket.socket:
        """A socket by which the other processes reach this one."""
        path = self._folder / str(place)
        path.unlink(missing_ok=True)  # of a process that was killed
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(str(path))
            listening.listen()
        except OSError:
            listening.close()
            raise
        return listening

    def ask_others(self, place: int) -> dict[int, bytes]:
        """What each other process that is there answers."""
        others = [other for other in range(1, self._count + 1) if other != place]
        with ThreadPoolExecutor(len(others)) as threads:
            answers = zip(others, threads.map(self._ask, others), strict=True)
            return {other: answer for other, answer in answers if answer is not None}

    def _ask(self, place: int) -> bytes | None:
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(PATIENCE)
                asking.connect(str(self._folder / str(place)))
                with asking.makefile("rb") as answer:
                    whole, end, _ = answer.read().partition(END)
                    return whole if end else None
        except OSError:  # it has ended, or starts, or hangs
            return None

    def close(self) -> None:
        """Remove the folder; only the process that made it does. Idempotent."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._folder, ignore_errors=True)
