"""The header of a frame, read and written (RFC 6455 §5.2).

    byte 0         fin, rsv1-3, opcode (four bits)
    byte 1         mask bit, length (seven bits)
    0, 2 or 8      the length, where the seven bits say 126 or 127
    0 or 4         the masking key, where the mask bit is set

Everything that one header alone can break is refused here, as soon as its bytes are there: the first two
bytes, then the extended length. What depends on the frames before it is refused in `assemble`.
"""

from __future__ import annotations

from typing import Final

from sage_ws._core._pure.close import Failure

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

RSV1: Final = 0x40
"""The bit of a first byte that marks a compressed message; `encode_header` takes it with the opcode."""

_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FIRST: Final = frozenset((TEXT, BINARY))
"""What begins a message."""

CONTROL_LIMIT: Final = 125
"""Bytes of payload that a control frame may carry (§5.5)."""


def decode_header(
    data: bytes, start: int, *, masked: bool, deflate: bool
) -> tuple[int, int, int, int, int] | None:
    """The header that begins at `start`.

    Args:
        data: what was received.
        start: the offset of the header's first byte.
        masked: whether the peer must mask: it is a client.
        deflate: whether RSV1 may mark a message as compressed (RFC 7692 §6).

    Returns:
        Opcode, fin (0 or 0x80), rsv1 (0 or 0x40), payload length, and the offset of the payload, which may
        lie behind the end of `data`: the masking key, the last four bytes before it, need not be there yet.
        `None` until the length is known.

    Raises:
        Failure: 1002, for a header that no frame may have.
    """
    if len(data) - start < 2:
        return None
    first = data[start]
    second = data[start + 1]
    if first & 0x70 and not (deflate and first & 0x70 == RSV1 and first & 0x0F in _FIRST):
        raise Failure(1002, "reserved bits set")
    opcode = first & 0x0F
    if opcode not in _OPCODES:
        raise Failure(1002, f"unknown opcode {opcode}")
    if opcode >= CLOSE and first < 0x80:
        raise Failure(1002, "fragmented control frame")
    if (second >= 0x80) is not masked:
        reason = "unmasked frame from a client" if masked else "masked frame from a server"
        raise Failure(1002, reason)
    length = second & 0x7F
    payload = start + 6 if masked else start + 2
    if length > CONTROL_LIMIT:
        if opcode >= CLOSE:
            raise Failure(1002, "control frame longer than 125 bytes")
        extended = 2 if length == 126 else 8
        if len(data) - start < 2 + extended:
            return None
        length = int.from_bytes(data[start + 2 : start + 2 + extended], "big")
        if length >> 63:
            raise Failure(1002, "length with its top bit set")
        if length <= (CONTROL_LIMIT if extended == 2 else 0xFFFF):
            raise Failure(1002, "length not minimal")
        payload += extended
    return opcode, first & 0x80, first & RSV1, length, payload


def encode_header(opcode: int, length: int, *, masked: bool) -> bytes:
    """The header of a whole message or a control frame, without its masking key."""
    mask_bit = 0x80 if masked else 0
    if length <= CONTROL_LIMIT:
        return bytes((0x80 | opcode, mask_bit | length))
    if length <= 0xFFFF:
        return bytes((0x80 | opcode, mask_bit | 126, length >> 8, length & 0xFF))
    return bytes((0x80 | opcode, mask_bit | 127)) + length.to_bytes(8, "big")
