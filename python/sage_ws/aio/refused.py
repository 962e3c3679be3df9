"""What a dial ends with: the system's word, or an answer, a server's or a proxy's, as its body comes in."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sage_ws.aio.opening import answer_text, content_length


def reason_of(error: OSError) -> str:
    """Why the system made no connection."""
    said = error.strerror or str(error) or type(error).__name__
    if error.errno and said.startswith("Connect call failed"):  # asyncio's text has the address alone
        return os.strerror(error.errno)
    return said


class RefusedAnswer:
    """What was answered in place of what had been asked for.

    Its ``str`` is what an error says of it: the status, and as much of the body as has come.

    Args:
        status: its HTTP status.
        head: its head, which says how long the body is.
        secrets: words that no error repeats.
    """

    def __init__(self, status: int, head: bytes, secrets: Sequence[str]) -> None:
        self.status = status
        self._length = content_length(head)
        self._secrets = secrets
        self._body = bytearray()

    def receive_data(self, data: bytes) -> bool:
        """Take a piece of the body; True when as much is there as is worth waiting for."""
        self._body += data
        return len(self._body) >= self._length

    def __str__(self) -> str:
        return f"answered HTTP {self.status}{answer_text(bytes(self._body[: self._length]), self._secrets)}"
