"""The ledger of a fault run: for each message id what was sent, run and answered, and how its call ended.

A payload follows from its message's id, and an answer from both: an answer that belongs to another message is
seen from its bytes alone, by who holds nothing else. What a handler ran is noted here by one of this process,
or in a `Journal` by one of another that may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def payload_of(message_id: str, size: int) -> bytes:
    """The payload that a message with this id carries."""
    digest = hashlib.blake2b(message_id.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def answer_of(message_id: str, size: int) -> bytes:
    """The answer's data to the message with this id and a payload of this size."""
    return payload_of(f"answer to {message_id}", size)


class Journal:
    """What handlers of a process ran, in a file: each id is with the kernel before its handler goes on.

    Args:
        path: appended to, so that a process started again goes on with it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ran(self, message_id: str) -> None:
        """Note that a handler was called with this id."""
        os.write(self._file, f"{message_id}\n".encode())

    def close(self) -> None:
        os.close(self._file)

    @staticmethod
    def read(path: Path) -> list[str]:
        """The ids in the order of their runs."""
        return path.read_text().splitlines() if path.exists() else []
