"""Fragments to messages (RFC 6455 §5.4), never more of one than the limit.

TEXT is decoded part by part as it arrives, so that a bad byte is found where it stands and a whole message
needs no second pass. Parts are kept in a list and joined once.
"""

from __future__ import annotations

from sage_ws._core._pure.close import Failure
from sage_ws._core._pure.frame import BINARY, CONTINUATION, TEXT
from sage_ws._core._pure.utf8 import TextDecoder


class Assembly:
    """The message that is being received, if there is one.

    Attributes:
        limit: bytes that a message may have, `None` for any number.
        opcode: TEXT or BINARY inside a message, CONTINUATION (0, as "none") between two.
    """

    __slots__ = ("_blob", "_length", "_text", "limit", "opcode")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.opcode = CONTINUATION
        self._length = 0
        self._text = TextDecoder()
        self._blob: list[bytes] = []

    def admit(self, opcode: int, length: int) -> None:
        """Judge a data frame by its header: does it belong here, and does it fit?

        Raises:
            Failure: 1002 for a frame out of order; 1009 for one that would make the message too big, before a
                byte of it is kept.
        """
        if opcode == CONTINUATION:
            if not self.opcode:
                raise Failure(1002, "continuation without a message")
        elif self.opcode:
            raise Failure(1002, "new message inside fragments")
        if self.limit is not None and self._length + length > self.limit:
            raise Failure(1009, f"message over {self.limit} bytes")

    def open(self, opcode: int) -> None:
        """A data frame that was admitted begins."""
        if opcode == TEXT:
            self._text = TextDecoder()
        if opcode:
            self.opcode = opcode

    def feed(self, part: bytes) -> None:
        """Unmasked bytes of the frame that is open.

        Raises:
            Failure: 1007, for invalid UTF-8 in TEXT.
        """
        self._length += len(part)
        if self.opcode == BINARY:
            self._blob.append(part)
        else:
            self._text.feed(part)

    def finish(self) -> str | bytes:
        """The message is whole: its text, or its bytes.

        Raises:
            Failure: 1007, when TEXT ends inside a sequence.
        """
        message: str | bytes
        if self.opcode == BINARY:
            message = b"".join(self._blob)
            self._blob.clear()
        else:
            message = self._text.finish()
        self.opcode = CONTINUATION
        self._length = 0
        return message
