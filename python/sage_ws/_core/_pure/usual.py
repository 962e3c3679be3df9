"""The fast way for CBOR messages of known fields alone, each of its type: nearly all of them.

As `canonical` does for JSON: whatever differs, be it in a single byte and be it an error, is not refused here
but left to `extended` and `cbor`, which have all the rules.
"""

from __future__ import annotations

from typing import Any

from sage_ws._core._pure.cbor import BYTES, MAP, TEXT, UNSIGNED


def read(data: bytes, majors: bytes, values: list[Any]) -> bool:
    """A message to its fields.

    Args:
        data: the message.
        majors: the major type of each field, by its number.
        values: takes the fields, by number.

    Returns:
        Whether it was such a message; otherwise `values` holds nothing of use.
    """
    try:
        count = data[0] - (MAP << 5)
        if not 0 <= count < 24:
            return False
        at = 1
        last = -1
        for _ in range(count):
            number = data[at]
            if number <= last:
                return False
            last = number
            major = majors[number]
            argument = data[at + 1] - (major << 5)
            at += 2
            if not 0 <= argument < 24:
                if argument == 24 and data[at] > 23:
                    argument = data[at]
                    at += 1
                else:
                    argument, at = _long_argument(data, at, argument)
                    if not at:
                        return False
            if major == TEXT:
                end = at + argument
                values[number] = data[at:end].decode()
                at = end
            elif major == BYTES:
                end = at + argument
                values[number] = data[at:end]
                at = end
            elif major == MAP:
                entries: dict[str, str] = {}
                at = _read_entries(data, at, argument, entries)
                if not at:
                    return False
                values[number] = entries
            elif major == UNSIGNED:
                values[number] = argument
            elif argument in {20, 21}:
                values[number] = argument == 21
            else:
                return False
    except (IndexError, UnicodeDecodeError):
        return False
    return at == len(data)


def _long_argument(data: bytes, at: int, information: int) -> tuple[int, int]:
    """An argument in bytes of its own, and the offset behind it: 0 where it is not in its shortest form."""
    if information == 24:
        argument, behind, least = data[at], at + 1, 24
    elif information == 25:
        argument, behind, least = data[at] << 8 | data[at + 1], at + 2, 1 << 8
    elif information == 26:
        behind = at + 4
        argument, least = int.from_bytes(data[at:behind], "big"), 1 << 16
    else:
        return 0, 0
    return argument, behind if argument >= least else 0


def _read_entries(data: bytes, at: int, count: int, entries: dict[str, str]) -> int:
    """The metadata's keys and values; returns the offset behind them, or 0."""
    before = b""
    for _ in range(count):
        start = at
        length = data[at] - (TEXT << 5)
        at += 1
        if not 0 <= length < 24:
            length, at = _long_argument(data, at, length)
            if not at:
                return 0
        end = at + length
        key = data[start:end]
        if key <= before:
            return 0
        before = key
        name = data[at:end].decode()
        length = data[end] - (TEXT << 5)
        at = end + 1
        if not 0 <= length < 24:
            length, at = _long_argument(data, at, length)
            if not at:
                return 0
        end = at + length
        entries[name] = data[at:end].decode()
        at = end
    return at
