"""Base64 as Go reads and writes it (wire.md, "Base64"): padded standard alphabet, CR and LF ignored."""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64

_ILLEGAL = re.compile(r"[^A-Za-z0-9+/=\r\n]")
_WELL_FORMED = re.compile(r"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_WITHOUT_BREAKS = {0x0D: None, 0x0A: None}


class Base64Error(ValueError):
    """Not base64; the text says what is wrong and where, the caller knows the field."""


def encode(data: bytes) -> bytes:
    """Padded, on one line."""
    return b2a_base64(data, newline=False)


def decode_line(text: str) -> bytes | None:
    """The bytes that `text` stands for, if it is base64 on one line."""
    try:
        data = a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    # Some versions pass over too much padding, so what came out must account for what went in.
    return data if (len(data) + 2) // 3 * 4 == len(text) else None


def decode(text: str) -> bytes:
    """The bytes that `text` stands for.

    Raises:
        Base64Error: for a character outside the alphabet, with its offset, or for wrong padding.
    """
    data = decode_line(text)
    if data is not None:
        return data
    illegal = _ILLEGAL.search(text)
    if illegal:
        # All before it is ASCII: characters are bytes.
        raise Base64Error(f"illegal base64 character at {illegal.start()}")
    text = text.translate(_WITHOUT_BREAKS)
    if not _WELL_FORMED.fullmatch(text):
        raise Base64Error("illegal base64 padding")
    return a2b_base64(text)
