"""Fragments to messages (RFC 6455 §5.4), never more of one than the limit.

Their bytes are kept in one buffer, and memory is taken for bytes that have come, never for a length that a
header claims. TEXT is judged part by part as it arrives, so that a bad byte is refused where it stands.
"""

from __future__ import annotations

from io import BytesIO

from sage_ws._core._pure.close import Failure
from sage_ws._core._pure.deflate import Inflater, longest
from sage_ws._core._pure.frame import CONTINUATION, TEXT
from sage_ws._core._pure.utf8 import Utf8, decode_text


class Assembly:
    """The message that is being received, if there is one.

    Attributes:
        limit: bytes that a message may have, `None` for any number.
        inflater: where compression was negotiated.
        opcode: TEXT or BINARY inside a message, CONTINUATION (0, as "none") between two.
    """

    __slots__ = ("_compressed", "_fragments", "_text", "inflater", "limit", "opcode")

    def __init__(self, limit: int | None, inflater: Inflater | None = None) -> None:
        self.limit = limit
        self.inflater = inflater
        self._compressed = 0
        self.opcode = CONTINUATION
        self._fragments = BytesIO()
        self._text = Utf8()

    def admit(self, opcode: int, length: int, compressed: int) -> None:
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
        limit = self.limit
        if limit is not None and self._fragments.tell() + length > limit:
            # What a compressed message inflates to is counted as it comes.
            if (compressed or self._compressed) and length <= longest(limit):
                return
            raise Failure(1009, f"message over {limit} bytes")

    def open(self, opcode: int, compressed: int) -> None:
        """A data frame that was admitted begins."""
        if opcode != CONTINUATION:
            self.opcode = opcode
            self._compressed = compressed

    def feed(self, part: bytes) -> None:
        """Unmasked bytes of the frame that is open.

        Raises:
            Failure: 1007, for invalid UTF-8 in TEXT, or what does not inflate; 1009, for what inflates
                to too much.
        """
        if self._compressed and self.inflater is not None:
            for inflated in self.inflater.inflate(part):
                self._append(inflated)
        else:
            self._append(part)

    def _append(self, part: bytes) -> None:
        self._fragments.write(part)
        if self.opcode == TEXT:
            self._text.push(part)

    def finish(self) -> str | bytes:
        """The message is whole: its text, or its bytes.

        Raises:
            Failure: 1007, when TEXT ends inside a sequence, or a compressed message inside a block.
        """
        if self._compressed and self.inflater is not None:
            self.inflater.finish()
        self._compressed = 0
        # Handed out as it is, not copied: that is why it is no bytearray.
        payload = self._fragments.getvalue()
        message = decode_text(payload) if self.opcode == TEXT else payload
        self.opcode = CONTINUATION
        self._fragments = BytesIO()
        self._text = Utf8()
        return message
