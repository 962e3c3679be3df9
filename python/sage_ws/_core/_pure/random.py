"""The one source of randomness of the core: masking keys and message ids.

Both come from the operating system (RFC 6455 §5.3 wants keys that cannot be guessed), a block at a time,
since a system call costs more than the rest of a small frame. A block is never shared over a fork: a child
that went on with its parent's would repeat the parent's ids.
"""

from __future__ import annotations

import os

_BLOCK = 128
"""Keys or ids drawn at once."""

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""RFC 9562 §4.1: the two highest bits of the ninth byte are `10`."""

# `list.pop` is atomic, so that two threads never get the same one.
_keys: list[bytes] = []
_ids: list[str] = []


def masking_key() -> bytes:
    """Four fresh bytes, for one frame."""
    while True:
        try:
            return _keys.pop()
        except IndexError:
            block = os.urandom(4 * _BLOCK)
            _keys.extend(block[start : start + 4] for start in range(0, len(block), 4))


def message_id() -> str:
    """A fresh UUID, version 4, as text (RFC 9562 §5.4)."""
    while True:
        try:
            digits = _ids.pop()
        except IndexError:
            block = os.urandom(16 * _BLOCK).hex()
            _ids.extend(block[start : start + 32] for start in range(0, len(block), 32))
            continue
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
            f"{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
        )


def _forget_blocks() -> None:
    _keys.clear()
    _ids.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_blocks)
