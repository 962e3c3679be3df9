"""Masking: XOR of a payload with a repeated key of four bytes (RFC 6455 §5.3).

Two ways, each with whole-buffer calls only. A small payload is one big integer. Its conversion to an integer
and back takes a nanosecond and more per byte, so that from a size on it is cheaper to substitute each of the
four columns by a table: byte i belongs to column i mod 4, and a column knows a single byte of the key.
"""

from __future__ import annotations

from functools import cache

_COLUMNS_FROM = 768
"""Bytes from which on the columns are faster; measured, CPython 3.11."""


@cache
def _repeat(words: int) -> int:
    """The factor that repeats a 32-bit key `words` times."""
    return int.from_bytes(b"\x01\x00\x00\x00" * words, "little")


@cache
def _table(key_byte: int) -> bytes:
    return bytes(byte ^ key_byte for byte in range(256))


def apply(payload: bytes, key: bytes, offset: int = 0) -> bytes:
    """Mask or unmask: the operation is its own inverse.

    Args:
        payload: a payload, or a part of one.
        key: the masking key, four bytes.
        offset: where in the frame's payload this part starts.
    """
    if offset & 3:
        offset &= 3
        key = key[offset:] + key[:offset]
    length = len(payload)
    if length < _COLUMNS_FROM:
        words = (length + 3) >> 2
        mask = int.from_bytes(key, "little") * _repeat(words)
        masked = int.from_bytes(payload, "little") ^ mask
        return masked.to_bytes(words << 2, "little")[:length]
    columns = bytearray(length)
    for column in range(4):
        columns[column::4] = payload[column::4].translate(_table(key[column]))
    return bytes(columns)
