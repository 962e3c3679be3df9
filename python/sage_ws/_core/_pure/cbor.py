"""CBOR (RFC 8949) as `sage.1.cbor` has it: the deterministic encoding of §4.2.1 and nothing beside it.

Lengths and integers in their shortest form, definite lengths, keys in the order of their encoded bytes and
each once; no tags, no floats, no simple values but false and true; text is UTF-8, and items nest up to a
limit. All of it is asked of what is read, in unknown fields and inside keys too, and the first offence in the
order of the bytes is told. Nothing is allocated for a length that is claimed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final, NoReturn

from sage_ws.errors import DecodeError

DEEPEST: Final = 16
"""Levels of arrays and maps, the message's own map being the first."""

UNSIGNED: Final = 0
NEGATIVE: Final = 1
BYTES: Final = 2
TEXT: Final = 3
ARRAY: Final = 4
MAP: Final = 5
TAG: Final = 6
OTHER: Final = 7
"""Major types (§3.1)."""

KINDS: Final = ("number", "number", "bytes", "string", "array", "map", "", "bool")
"""What the errors call them."""

_FALSE: Final = 20
_TRUE: Final = 21
_ARGUMENT_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}

_SHORT_ARRAYS: Final = frozenset(bytes((0x80 + count,)) for count in range(24))

# ── decode ─────────────────────────────────────────────────────────────────────────────


def read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """The head of the item that begins at `at`.

    Returns:
        Its major type, its argument (a number, a length, a count, or 20 and 21 for false and true), and the
        offset behind the head. A string is whole.

    Raises:
        DecodeError: for a head that has no place here, or a string that ends early.
    """
    if at >= len(data):
        _refuse_end(data)
    major = data[at] >> 5
    argument = data[at] & 0x1F
    behind = at + 1
    if argument > 27:
        is_indefinite = argument == 31 and BYTES <= major <= MAP
        raise DecodeError(
            f"refused CBOR: indefinite length at byte {at}"
            if is_indefinite
            else f"not CBOR: bad initial byte at byte {at}"
        )
    if major == TAG:
        raise DecodeError(f"refused CBOR: tag at byte {at}")
    if major == OTHER:
        if argument not in {_FALSE, _TRUE}:
            what = "float" if argument > 24 else "simple value"
            raise DecodeError(f"refused CBOR: {what} at byte {at}")
        return major, argument, behind
    if argument > 23:
        size = _ARGUMENT_SIZES[argument]
        behind += size
        if behind > len(data):
            _refuse_end(data)
        argument = int.from_bytes(data[at + 1 : behind], "big")
        # The half that a shorter argument has room for: 24 for one byte, then 2 to the 8, 16 and 32.
        if argument < (24 if size == 1 else 1 << 4 * size):
            raise DecodeError(f"refused CBOR: not in its shortest form at byte {at}")
    if major in {BYTES, TEXT} and behind + argument > len(data):
        _refuse_end(data)
    return major, argument, behind


def read_text(data: bytes, start: int, end: int) -> str:
    """The text of a string.

    Raises:
        DecodeError: where it is not UTF-8.
    """
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {start + error.start}") from None


def skip(data: bytes, at: int, above: int) -> int:
    """From an item to behind its end, all of it checked.

    Args:
        data: the message.
        at: where the item begins.
        above: how many levels are open around it.

    Raises:
        DecodeError: at its first offence.
    """
    if data[at : at + 1] in _SHORT_ARRAYS:
        refuse_depth(at, above)
        return _skip_items(data, at + 1, data[at] - 0x80, above + 1)
    major, argument, behind = read_head(data, at)
    if major == TEXT:
        read_text(data, behind, behind + argument)
        return behind + argument
    if major == BYTES:
        return behind + argument
    if major == ARRAY:
        refuse_depth(at, above)
        return _skip_items(data, behind, argument, above + 1)
    if major == MAP:
        refuse_depth(at, above)
        before = b""
        for _ in range(argument):
            before, behind = read_key(data, behind, before, above + 1)
            behind = _skip_items(data, behind, 1, above + 1)
    return behind


@cache
def _small_items(with_containers: bool) -> list[tuple[int, Callable[[bytes, int], re.Match[bytes] | None]]]:
    """What passes over items in few bytes, so many at once: numbers, bools, bytes, ASCII, empty containers.

    Late, since the expressions take milliseconds to compile, and few processes ever see an unknown field.
    """
    lengths = range(1, 24)
    item = b"|".join(
        (
            rb"[\x00-\x17\x20-\x37\x40\x60\xf4\xf5]",
            rb"[\x80\xa0]" if with_containers else rb"[^\x00-\xff]",
            rb"[\x18\x38][\x18-\xff]",
            rb"[\x19\x39](?!\x00)[\x00-\xff]{2}",
            rb"[\x1a\x3a](?!\x00\x00)[\x00-\xff]{4}",
            rb"[\x1b\x3b](?!\x00{4})[\x00-\xff]{8}",
            *(re.escape(bytes((0x60 + length,))) + rb"[\x00-\x7f]{%d}" % length for length in lengths),
            *(re.escape(bytes((0x40 + length,))) + rb"[\x00-\xff]{%d}" % length for length in lengths),
        )
    )
    return [(count, re.compile(rb"(?:%b){%d}" % (item, count)).match) for count in (1024, 32, 1)]


def _skip_items(data: bytes, at: int, count: int, above: int) -> int:
    for at_once, match in _small_items(above < DEEPEST):
        while count >= at_once:
            items = match(data, at)
            if items:
                at = items.end()
            elif at_once == 1:
                at = skip(data, at, above)
            else:
                break
            count -= at_once
    return at


def read_key(data: bytes, at: int, before: bytes, above: int) -> tuple[bytes, int]:
    """A map's next key.

    Args:
        data: the message.
        at: where the key begins.
        before: the encoded key before it, empty for the first.
        above: how many levels are open around it, its map included.

    Returns:
        The encoded key, and the offset behind it.

    Raises:
        DecodeError: also for a key that is not greater than the one before.
    """
    behind = _skip_items(data, at, 1, above)
    key = data[at:behind]
    if key <= before:
        what = "duplicate key" if key == before else "key out of order"
        raise DecodeError(f"refused CBOR: {what} at byte {at}")
    return key, behind


def refuse_depth(at: int, above: int) -> None:
    """An array or a map may begin at `at`, inside of so many others, or not."""
    if above >= DEEPEST:
        raise DecodeError(f"nested deeper than {DEEPEST} at byte {at}")


def refuse_more(data: bytes, at: int) -> None:
    """Nothing stands behind the message's map."""
    if at < len(data):
        raise DecodeError(f"not CBOR: more after the value at byte {at}")


def _refuse_end(data: bytes) -> NoReturn:
    raise DecodeError(f"not CBOR: ends early at byte {len(data)}")


# ── encode ─────────────────────────────────────────────────────────────────────────────


def head(major: int, argument: int) -> bytes:
    """The shortest head with this argument."""
    first = major << 5
    if argument < 24:
        return bytes((first | argument,))
    if argument < 1 << 8:
        return bytes((first | 24, argument))
    if argument < 1 << 16:
        return bytes((first | 25,)) + argument.to_bytes(2, "big")
    if argument < 1 << 32:
        return bytes((first | 26,)) + argument.to_bytes(4, "big")
    return bytes((first | 27,)) + argument.to_bytes(8, "big")


def text(value: str) -> bytes:
    """A text string."""
    encoded = value.encode()
    length = len(encoded)
    return (_TEXT_HEADS[length] if length < 24 else head(TEXT, length)) + encoded


_TEXT_HEADS: Final = [head(TEXT, length) for length in range(24)]
