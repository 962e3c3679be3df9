"""Messages of `sage.1.json` and `sage.1.cbor` to their fields and back (docs/reference/wire.md).

Both have one table of fields, by name and by number. A message has a `kind`; a field that belongs to another
kind is read, so that its type is checked, and not looked at. In JSON the rules are those of `wire`; in CBOR
those of `cbor`. The form in which nearly all messages come in CBOR is read by `usual` before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Any, Final, NamedTuple, cast

from sage_ws._core._pure import base64, cbor, usual, wire
from sage_ws._core._pure.utf8 import decode_binary
from sage_ws._core._pure.value import SecureMessage
from sage_ws.errors import DecodeError

SUBPROTOCOLS: Final = ("sage.1.json", "sage.1.cbor")

# ── the table ──────────────────────────────────────────────────────────────────────────

KIND: Final = 0
ID: Final = 1
CONTEXT_ID: Final = 2
TASK_ID: Final = 3
PAYLOAD: Final = 4
DID: Final = 5
SIGNATURE: Final = 6
METADATA: Final = 7
ROLE: Final = 8
SUCCESS: Final = 9
MESSAGE_ID: Final = 10
DATA: Final = 11
ERROR: Final = 12
DEADLINE_MS: Final = 13
CREDIT: Final = 14
MORE: Final = 15
REASON: Final = 16

KINDS: Final = ("request", "response", "cancel", "credit", "goaway")
REQUEST, RESPONSE, CANCEL, CREDITS, GOAWAY = range(5)

LONGEST_DEADLINE: Final = (1 << 53) - 1
"""Milliseconds: the largest integer that every JSON reader keeps."""
MOST_CREDIT: Final = (1 << 32) - 1


class _Field(NamedTuple):
    """What a field holds: its major type in CBOR, how its value is asked for, and a number's largest."""

    name: str
    major: int
    in_json: str
    in_cbor: str
    most: int = 0


def _text(name: str) -> _Field:
    return _Field(name, cbor.TEXT, wire.STRING, "a string")


def _bytes(name: str) -> _Field:
    return _Field(name, cbor.BYTES, wire.BYTES, "bytes")


def _bool(name: str) -> _Field:
    return _Field(name, cbor.OTHER, wire.BOOL, "a bool")


def _number(name: str, most: int) -> _Field:
    expected = f"an integer from 0 to {most}"
    return _Field(name, cbor.UNSIGNED, expected, expected, most)


FIELDS: Final = (
    _Field("kind", cbor.UNSIGNED, wire.STRING, "an integer", (1 << 64) - 1),
    _text("id"),
    _text("context_id"),
    _text("task_id"),
    _bytes("payload"),
    _text("did"),
    _bytes("signature"),
    _Field("metadata", cbor.MAP, wire.ENTRIES, "a map of strings"),
    _text("role"),
    _bool("success"),
    _text("message_id"),
    _bytes("data"),
    _text("error"),
    _number("deadline_ms", LONGEST_DEADLINE),
    _number("credit", MOST_CREDIT),
    _bool("more"),
    _text("reason"),
)
"""By their numbers."""

_NUMBERS: Final = {field.name: number for number, field in enumerate(FIELDS)}
_EMPTY: Final[dict[int, Any]] = {
    cbor.TEXT: "",
    cbor.BYTES: b"",
    cbor.OTHER: False,
    cbor.UNSIGNED: None,
    cbor.MAP: None,
}
_ABSENT: Final = tuple(_EMPTY[field.major] for field in FIELDS)
_MAJORS: Final = bytes(field.major for field in FIELDS)
_BASES: Final = bytes(field.major << 5 for field in FIELDS)
"""The first bytes of their items, less the argument."""

Values = list[Any]
"""A message's fields, by their numbers; what is absent is empty, false or `None`. An unknown kind is a number
that `KINDS` does not have."""


Parcel = tuple[Values, bool, DecodeError | None]
"""A message that was read: its fields; whether there were others, or its kind is none of ours; and the first
field of a wrong type or with bad base64, or the kind that is missing."""

# ── decode ─────────────────────────────────────────────────────────────────────────────


def read(message: str | bytes, subprotocol: str) -> Parcel:
    """A message to its fields.

    Raises:
        DecodeError: for what is not JSON, or not CBOR as it should be.
    """
    if subprotocol == "sage.1.cbor":
        if isinstance(message, str):
            raise DecodeError("expected CBOR, found a TEXT message")
        values = list(_ABSENT)
        if usual.read(message, _BASES, values):
            kind, credit = values[KIND], values[CREDIT]
            if kind is not None and (credit is None or credit <= MOST_CREDIT):
                return values, kind > GOAWAY, None
        values, is_unknown, error = read_cbor(message)
    else:
        text = message if isinstance(message, str) else decode_binary(message)
        values, is_unknown, error = read_json(text)
    kind = values[KIND]
    if kind is None:
        error = error or DecodeError("kind: missing", field="kind")
    return values, is_unknown or (kind is not None and kind > GOAWAY), error


def read_cbor(data: bytes) -> Parcel:
    """CBOR by all its rules.

    Returns:
        The fields, whether there were unknown ones, and the first that is not of its type.

    Raises:
        DecodeError: for what is not CBOR as it should be.
    """
    values = list(_ABSENT)
    is_unknown = False
    flaw: DecodeError | None = None
    major, count, at = cbor.read_head(data, 0)
    if major != cbor.MAP:
        cbor.refuse_more(data, cbor.skip(data, 0, 0))
        raise DecodeError(f"expected a map, found {cbor.KINDS[major]}")
    before = b""
    for _ in range(count):
        before, at = cbor.read_key(data, at, before, 1)
        number = before[0]
        if number >= len(FIELDS) or len(before) > 1:
            is_unknown = True
            at = cbor.skip(data, at, 1)
            continue
        end = cbor.skip(data, at, 1)
        try:
            values[number] = _value(data, at, end, FIELDS[number])
        except DecodeError as error:
            flaw = flaw or error
        at = end
    cbor.refuse_more(data, at)
    return values, is_unknown, flaw


def _value(data: bytes, at: int, end: int, field: _Field) -> Any:
    """What a field holds, whose item is sound.

    Raises:
        DecodeError: for a value of another type.
    """
    major, argument, behind = cbor.read_head(data, at)
    if major != field.major or (major == cbor.UNSIGNED and argument > field.most):
        raise DecodeError(
            f"{field.name}: expected {field.in_cbor}, found {cbor.KINDS[major]}", field=field.name
        )
    if major == cbor.TEXT:
        return data[behind:end].decode()
    if major == cbor.BYTES:
        return data[behind:end]
    if major == cbor.MAP:
        return _entries(data, behind, argument)
    return argument if major == cbor.UNSIGNED else argument == 21


def _entries(data: bytes, at: int, count: int) -> dict[str, str]:
    """The metadata, whose item is sound."""
    texts: list[str] = []
    for index in range(2 * count):
        major, length, behind = cbor.read_head(data, at)
        if major != cbor.TEXT:
            where = "value" if index % 2 else "key"
            raise DecodeError(
                f"metadata: expected a map of strings, found {cbor.KINDS[major]} in a {where}",
                field="metadata",
            )
        at = behind + length
        texts.append(data[behind:at].decode())
    return dict(zip(texts[::2], texts[1::2], strict=True))


def read_json(text: str) -> Parcel:
    """JSON by the rules of the plain wire.

    Returns:
        The fields, whether there were unknown ones, and the first that is not of its type.

    Raises:
        DecodeError: for what is not JSON.
    """
    values = list(_ABSENT)
    is_unknown = False
    flaw: DecodeError | None = None
    for key, value in wire.read_object(text):
        name = wire.canonical_key(key, _NUMBERS)
        if name is None:
            is_unknown = True
            continue
        number = _NUMBERS[name]
        field = FIELDS[number]
        try:
            if field.most and number != KIND:
                values[number] = _integer(field, value, values[number])
            else:
                before = {} if number == METADATA and values[number] is None else values[number]
                found = wire.read_field(name, field.in_json, value, before)
                if number == KIND and value is not None:
                    found = KINDS.index(found) if found in KINDS else len(KINDS)
                values[number] = found
        except DecodeError as error:
            flaw = flaw or error
    return values, is_unknown, flaw


def _integer(field: _Field, value: object, before: int | None) -> int | None:
    if value is None:
        return before
    # The parser makes a float of each number; up to the limits it keeps integers whole.
    if isinstance(value, float) and 0 <= value <= field.most and value.is_integer():
        return int(value)
    raise DecodeError(
        f"{field.name}: expected {field.in_json}, found {wire.kind_of(value)}", field=field.name
    )


def terms(values: Values) -> tuple[float, int] | None:
    """A request's remaining seconds and credit, where it has either."""
    deadline_ms, credit = values[DEADLINE_MS], values[CREDIT]
    if deadline_ms is None and credit is None:
        return None
    return inf if deadline_ms is None else deadline_ms / 1000, credit or 0


# ── encode ─────────────────────────────────────────────────────────────────────────────


def deadline_ms(remaining: float) -> int | None:
    """What travels of so many seconds; `None` for a time without end."""
    if not isfinite(remaining):
        return None
    return int(min(max(remaining * 1000, 0.0), LONGEST_DEADLINE))


def refuse_credit(count: int) -> None:
    """Parts that may come are counted in 32 bits.

    Raises:
        ValueError: for another number.
    """
    if not 0 <= count <= MOST_CREDIT:
        raise ValueError(f"credit must be from 0 to {MOST_CREDIT}, not {count}")


def write_request(message: SecureMessage, remaining: float, credit: int, subprotocol: str) -> bytes:
    """A request, with the seconds that are left for it and the parts in which its answer may come."""
    if subprotocol == "sage.1.cbor" and remaining == inf and not credit:
        usual_form = usual.write_request(message)
        if usual_form:
            return usual_form
    fields = (
        (ID, message.id),
        (CONTEXT_ID, message.context_id),
        (TASK_ID, message.task_id),
        (PAYLOAD, message.payload),
        (DID, message.did),
        (SIGNATURE, message.signature),
        (METADATA, message.metadata),
        (ROLE, message.role),
        (DEADLINE_MS, None if remaining == inf else deadline_ms(remaining)),
        (CREDIT, credit or None),
    )
    return write(REQUEST, fields, subprotocol)


def write_response(
    success: bool, message_id: str, task_id: str, data: bytes, error: str, more: bool, subprotocol: str
) -> bytes:
    """A response, or a part of one where `more` will follow."""
    if data and success and not error and not more and subprotocol == "sage.1.cbor":
        usual_form = usual.write_success(message_id, task_id, data)
        if usual_form:
            return usual_form
    fields = (
        (TASK_ID, task_id),
        (SUCCESS, success),
        (MESSAGE_ID, message_id),
        (DATA, data),
        (ERROR, error),
        (MORE, more or None),
    )
    return write(RESPONSE, fields, subprotocol)


Fields = Iterable[tuple[int, str | bytes | int | Mapping[str, str] | None]]
"""Numbers and values, by number."""


def write(kind: int, fields: Fields, subprotocol: str) -> bytes:
    """A message; of its fields those that are not empty, and any bool and number.

    Args:
        kind: one of `KINDS`.
        fields: the others.
        subprotocol: how it is written.
    """
    if subprotocol == "sage.1.cbor":
        return _write_cbor(kind, fields)
    return _write_json(kind, fields)


def _write_cbor(kind: int, fields: Fields) -> bytes:
    parts = [b"", _KIND_ITEMS[kind]]
    for number, value in fields:
        if type(value) is str:
            if value:
                encoded = value.encode()
                parts += (_head(number, len(encoded)), encoded)
        elif type(value) is bytes:
            if value:
                parts += (_head(number, len(value)), value)
        elif type(value) is bool:
            parts += (_head(number, _FALSE_AND_TRUE[value]), b"")
        elif type(value) is int:
            parts += (_head(number, value), b"")
        elif value:
            entries = cast("Mapping[str, str]", value)
            parts += (_head(number, len(entries)), _entries_to_cbor(entries))
    parts[0] = _MAP_HEADS[len(parts) // 2]
    return b"".join(parts)


def _entries_to_cbor(metadata: Mapping[str, str]) -> bytes:
    text = cbor.text
    if len(metadata) == 1:
        ((key, entry),) = metadata.items()
        return text(key) + text(entry)
    entries = sorted((text(key), text(entry)) for key, entry in metadata.items())
    return b"".join([key + entry for key, entry in entries])


def _head(number: int, argument: int) -> bytes:
    """A field's number, and the head of its item."""
    return bytes((number,)) + cbor.head(_MAJORS[number], argument)


_FALSE_AND_TRUE: Final = (20, 21)
_KIND_ITEMS: Final = [bytes((KIND, kind)) for kind in range(len(KINDS))]
_MAP_HEADS: Final = [cbor.head(cbor.MAP, count) for count in range(len(FIELDS) + 1)]


def _write_json(kind: int, fields: Fields) -> bytes:
    parts = [f'{{"kind":"{KINDS[kind]}"'.encode()]
    for number, value in fields:
        name = FIELDS[number].name
        if isinstance(value, str):
            if value:
                quoted = value if wire.is_plain(value) else wire.quote(value)
                parts.append(f',"{name}":"{quoted}"'.encode())
        elif isinstance(value, bytes):
            if value:
                parts += (f',"{name}":"'.encode(), base64.encode(value), b'"')
        elif isinstance(value, bool):
            parts.append(f',"{name}":{"true" if value else "false"}'.encode())
        elif isinstance(value, int):
            parts.append(f',"{name}":{value}'.encode())
        elif value:
            parts.append(wire.encode_metadata(value).encode())
    parts.append(b"}\n")
    return b"".join(parts)
