"""The socket pair between a supervising parent and one worker process, and what is said on it.

::

    parent → worker   END: drain; a second one: cut that short
                      RELOAD: load the certificate again
                      end of file: the parent is gone, however it went: drain
    worker → parent   SERVING: it listens
                      FAILED and a text: why it never will

Why no signals: a worker cannot miss a word while it starts, nor take it for one that the terminal or the
service manager has sent to the whole group. And a parent that was killed says its end of file, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from sage_ws.aio.stopping import Stop

END = b"!"
RELOAD = b"~"
SERVING = b"+"
FAILED = b"-"
LONGEST_CAUSE = 1000
"""Characters of a cause that are handed on: the socket takes them at once."""


def lifeline() -> tuple[ParentEnd, WorkerEnd]:
    """A fresh pair; each process closes the end that is not its own.

    Raises:
        OSError: no descriptors are left.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ParentEnd(ours), WorkerEnd(theirs)


class ParentEnd:
    """The parent's end.

    Args:
        sock: its socket.

    Attributes:
        serving: whether the worker has said that it listens.
        cause: why it could not start; "" where it did not say.
        ended: whether nothing more will be heard.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._heard = b""
        self.serving = False
        self.cause = ""
        self.ended = False

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def order(self, word: bytes = END) -> None:
        """Say one word."""
        with contextlib.suppress(OSError):  # it ended by itself
            self._socket.send(word)

    def hear(self) -> None:
        """Take what the worker has said so far."""
        try:
            while heard := self._socket.recv(4096):
                self._heard += heard
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:  # it went with a word of ours unread
            self.ended = True
        said, failed, cause = self._heard.partition(FAILED)
        self.serving = said == SERVING
        if failed:
            self.cause = cause.decode(errors="replace")

    def close(self) -> None:
        """Let go of it: the worker drains, if it is there."""
        self._socket.close()


class WorkerEnd:
    """The worker's end.

    Args:
        sock: its socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def attend(self, loop: asyncio.AbstractEventLoop, stop: Stop, reload: Callable[[], object]) -> None:
        """Hear the parent's words, and its end, in the loop.

        Args:
            loop: the running loop.
            stop: what the words that end this process are told to.
            reload: called when the certificate is to be loaded again.
        """
        hear = stop.side()

        def read() -> None:
            try:
                words = self._socket.recv(16)
            except ConnectionResetError:  # the parent went with a word of ours unread
                words = b""
            for word in words:
                (reload if word == ord(RELOAD) else hear)()
            if not words:
                loop.remove_reader(self._socket)
                stop.drain.set()

        loop.add_reader(self._socket, read)

    def say_serving(self) -> None:
        """Tell the parent that this process listens."""
        self._say(SERVING)

    def say_failed(self, error: BaseException) -> None:
        """Tell the parent why this process ends."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._say(FAILED + text[:LONGEST_CAUSE].encode(errors="replace"))

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and its end is heard elsewhere
            self._socket.send(word)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()
