"""The fast way for CBOR messages of known fields alone, each of its type: nearly all of them.

As `canonical` does for JSON: whatever differs, be it in a single byte and be it an error, is not refused here
but left to `extended` and `cbor`, which have all the rules. What is written here has short strings of ASCII,
and is put together as text in which each character is a byte.
"""

from __future__ import annotations

from typing import Any, Final

from sage_ws._core._pure.cbor import BYTES, MAP, TEXT, UNSIGNED, head
from sage_ws._core._pure.value import SecureMessage

_UNSIGNED: Final = UNSIGNED << 5
_BYTES: Final = BYTES << 5
_TEXT: Final = TEXT << 5
_MAP: Final = MAP << 5


def read(data: bytes, bases: bytes, values: list[Any]) -> bool:
    """A message to its fields.

    Args:
        data: the message.
        bases: the first byte of each field's item, less the argument, by the field's number.
        values: takes the fields, by number.

    Returns:
        Whether it was such a message; otherwise `values` holds nothing of use.
    """
    try:
        count = data[0] - _MAP
        if not 0 <= count < 24:
            return False
        at = 1
        last = -1
        for _ in range(count):
            number = data[at]
            if number <= last:
                return False
            last = number
            base = bases[number]
            argument = data[at + 1] - base
            at += 2
            if argument > 23 or argument < 0:
                if argument == 24 and data[at] > 23:
                    argument = data[at]
                    at += 1
                else:
                    argument, at = _long_argument(data, at, argument)
                    if not at:
                        return False
            if base == _TEXT:
                start = at
                at += argument
                values[number] = data[start:at].decode()
            elif base == _BYTES:
                start = at
                at += argument
                values[number] = data[start:at]
            elif base == _MAP:
                entries: dict[str, str] = {}
                at = _read_entries(data, at, argument, entries)
                if not at:
                    return False
                values[number] = entries
            elif base == _UNSIGNED:
                values[number] = argument
            elif argument == 21 or argument == 20:  # noqa: PLR1714 -- a set costs more
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
        length = data[at] - _TEXT
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
        length = data[end] - _TEXT
        at = end + 1
        if not 0 <= length < 24:
            length, at = _long_argument(data, at, length)
            if not at:
                return 0
        end = at + length
        entries[name] = data[at:end].decode()
        at = end
    return at


# ── encode ─────────────────────────────────────────────────────────────────────────────


def _heads(number: int, base: int) -> list[str]:
    """A field's number and its item's head, by the length of its string; an empty one is left out."""
    heads = [bytes((number,)) + head(base >> 5, length) for length in range(_SHORT)]
    return ["", *(one.decode("latin-1") for one in heads[1:])]


_SHORT: Final = 80
_IDS: Final = _heads(1, _TEXT)
_CONTEXT_IDS: Final = _heads(2, _TEXT)
_TASK_IDS: Final = _heads(3, _TEXT)
_DIDS: Final = _heads(5, _TEXT)
_ROLES: Final = _heads(8, _TEXT)
_MESSAGE_IDS: Final = _heads(10, _TEXT)
_TEXTS: Final = [head(TEXT, length).decode("latin-1") for length in range(24)]


def write_request(message: SecureMessage) -> bytes | None:
    """A request without terms, if its strings are short and of ASCII, and its metadata one entry or none."""
    message_id, context_id, task_id = message.id, message.context_id, message.task_id
    did, role, payload, signature = message.did, message.role, message.payload, message.signature
    metadata = message.metadata
    entry = ""
    try:
        if metadata:
            if len(metadata) > 1:
                return None
            ((key, value),) = metadata.items()
            if not (key.isascii() and value.isascii()):
                return None
            entry = f"\x07\xa1{_TEXTS[len(key)]}{key}{_TEXTS[len(value)]}{value}"
        if not (
            message_id.isascii()
            and context_id.isascii()
            and task_id.isascii()
            and did.isascii()
            and role.isascii()
            and payload
            and did
        ):
            return None
        first = (
            f"\x00\x00{_IDS[len(message_id)]}{message_id}{_CONTEXT_IDS[len(context_id)]}{context_id}"
            f"{_TASK_IDS[len(task_id)]}{task_id}\x04"
        )
        second = f"{_DIDS[len(did)]}{did}\x06" if signature else f"{_DIDS[len(did)]}{did}"
        third = f"{entry}{_ROLES[len(role)]}{role}"
    except IndexError:
        return None
    # Kind, id, payload and DID are there; the others are counted.
    count = 4 + (context_id != "") + (task_id != "") + (signature != b"") + (entry != "") + (role != "")
    return b"".join(
        (
            _MAPS[count],
            first.encode("latin-1"),
            head(BYTES, len(payload)),
            payload,
            second.encode("latin-1"),
            head(BYTES, len(signature)) if signature else b"",
            signature,
            third.encode("latin-1"),
        )
    )


def write_success(message_id: str, task_id: str, data: bytes) -> bytes | None:
    """A success with data, if its strings are short and of ASCII."""
    if not (message_id.isascii() and task_id.isascii() and message_id):
        return None
    try:
        first = (
            f"\x00\x01{_TASK_IDS[len(task_id)]}{task_id}\x09\xf5"
            f"{_MESSAGE_IDS[len(message_id)]}{message_id}\x0b"
        )
    except IndexError:
        return None
    count = 5 if task_id else 4
    return b"".join((_MAPS[count], first.encode("latin-1"), head(BYTES, len(data)), data))


_MAPS: Final = [head(MAP, count) for count in range(24)]
