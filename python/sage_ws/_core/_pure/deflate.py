"""permessage-deflate (RFC 7692): messages compressed before they are framed, inflated as their bytes come.

What the two ends agreed on is made in the opening handshake, elsewhere. A direction's state is made by the
first message that needs it, and dropped behind each message where the context is not taken over.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from sage_ws._core._pure.close import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    # zlib does not name its types at run time
    from zlib import _Compress, _Decompress

Negotiated = tuple[int, bool, int, bool, int, int, int]
"""Window bits and takeover of what is sent and of what is received, threshold, level, memory level."""

_TAIL: Final = b"\x00\x00\xff\xff"
"""What a sender takes off, and the receiver puts back (§7.2.1, §7.2.2)."""
_LAST_BLOCK: Final = b"\x01\x00\x00\xff\xff"
"""Empty, and the last: at the end of a block it ends the stream, elsewhere it does not."""
_PIECE: Final = 16 * 1024
"""Bytes that are inflated at once: what one call leaves over of them is copied for the next."""
_STEP: Final = 64 * 1024
"""Bytes that one call inflates to."""


def check(negotiated: Negotiated) -> None:
    """Refuse what zlib would.

    Raises:
        ValueError: for such parameters.
    """
    send_bits, _, receive_bits, _, _, level, memory_level = negotiated
    if not (8 <= send_bits <= 15 and 8 <= receive_bits <= 15 and 0 <= level <= 9 and 1 <= memory_level <= 9):
        raise ValueError("deflate parameters that zlib does not have")


def longest(limit: int) -> int:
    """The longest payload of a message within `limit`: a compressor adds less, even to noise."""
    return limit + limit // 4 + 64


class Deflater:
    """Compresses what is sent.

    Attributes:
        threshold: messages of fewer bytes are sent as they are.
    """

    __slots__ = ("_level", "_memory_level", "_state", "_takeover", "_window_bits", "threshold")

    def __init__(self, negotiated: Negotiated) -> None:
        window_bits, self._takeover, _, _, self.threshold, self._level, self._memory_level = negotiated
        # A raw stream with a window of 2^8 is beyond zlib. With one of 2^9 no match reaches back over 250.
        self._window_bits = max(window_bits, 9)
        self._state: _Compress | None = None

    def deflate(self, message: bytes) -> bytes | None:
        """The payload of the compressed message (§7.2.1).

        Returns:
            None for a message that would not be shorter, if the next does not refer to it: it goes as it is.
        """
        if not message:
            # §7.2.3.6; a second flush of nothing would give nothing
            return b"\x00" if self._takeover else None
        state = self._state
        if state is None:
            state = zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)
            if self._takeover:
                self._state = state
        deflated = (state.compress(message) + state.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
        return deflated if self._takeover or len(deflated) < len(message) else None


class Inflater:
    """Inflates what comes, never beyond a limit.

    Args:
        negotiated: what the ends agreed on.
        limit: bytes that a message may have, `None` for any number.
    """

    __slots__ = ("_limit", "_size", "_state", "_takeover", "_window_bits")

    def __init__(self, negotiated: Negotiated, limit: int | None) -> None:
        _, _, window_bits, self._takeover, _, _, _ = negotiated
        # Who compresses for a window of 2^8 with zlib looks ahead into one of 2^9.
        self._window_bits = max(window_bits, 9)
        self._limit = limit
        self._size = 0
        self._state: _Decompress | None = None

    def inflate(self, part: bytes) -> Iterator[bytes]:
        """The message's next bytes, made of the next part of its payload.

        Raises:
            Failure: 1007 for what is no deflate stream, 1009 behind the last byte of the limit.
        """
        limit = self._limit
        for start in range(0, len(part), _PIECE):
            rest = part[start : start + _PIECE]
            while True:
                room = _STEP if limit is None else min(_STEP, limit + 1 - self._size)
                state = self._fresh() if self._state is None else self._state
                try:
                    some = state.decompress(rest, room)
                except zlib.error:
                    raise Failure(1007, "broken deflate stream") from None
                self._state = state
                self._size += len(some)
                if limit is not None and self._size > limit:
                    yield some[: limit - self._size]
                    raise Failure(1009, f"message over {limit} bytes")
                yield some
                rest = state.unconsumed_tail
                if state.eof:
                    # A block said that it was the last (§7.2.3.4): what follows knows nothing of it.
                    rest = state.unused_data
                    self._state = None
                if not rest and (state.eof or len(some) < room):
                    break

    def finish(self) -> None:
        """The payload has ended: it must stand where the tail belongs (§7.2.2).

        Raises:
            Failure: 1007, the tail does not end a block there.
        """
        state = self._fresh() if self._state is None else self._state
        inflated = b""
        try:
            inflated = state.decompress(_TAIL, 1)
            if state.eof:
                sound = not state.unused_data
                self._state = None
            else:
                probe = state.copy() if self._takeover else state
                inflated += probe.decompress(_LAST_BLOCK, 1)
                sound = probe.eof and not probe.unused_data
                self._state = state if self._takeover else None
        except zlib.error:
            sound = False
        if not sound or inflated:
            raise Failure(1007, "broken deflate stream")
        self._size = 0

    def _fresh(self) -> _Decompress:
        return zlib.decompressobj(-self._window_bits)
