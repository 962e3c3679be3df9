"""A message's JSON to its fields and back (WIRE.md, "Messages" and "JSON, as Go reads and writes it").

Go's reader is the law, but for what WIRE.md refuses on purpose: keys match after simple case folding, the last
duplicate wins and `metadata` merges, `null` leaves a string or bool alone and empties bytes and `metadata`, a lone
surrogate becomes U+FFFD. A wrong type or bad base64 is an error only in a text that is sound JSON.

The grammar is the standard library's, in C: objects come as tuples of pairs, so that duplicates stay visible and an
object cannot be taken for an array. Then there are two ways. A text as a program writes it, each key once and exact,
goes by lookups. Everything else goes pair by pair. Where the parser refuses, `scan` finds the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json import JSONDecoder
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn

from sage_ws._core._pure import base64
from sage_ws._core._pure.scan import find_error
from sage_ws._core._pure.utf8 import decode_binary
from sage_ws.errors import DecodeError

Message = tuple[str, str, str, bytes, str, bytes, dict[str, str], str]
"""id, context_id, task_id, payload, did, signature, metadata, role."""
Answer = tuple[bool, str, str, bytes, str]
"""success, message_id, task_id, data, error."""

DEEPEST: Final = 128
"""Levels of JSON containers, the message's own object being the first."""

_WHITE: Final = " \t\r\n"
_BYTES: Final = "a base64 string"
_ENTRIES: Final = "an object of strings"

_MESSAGE: Final = {
    "id": "a string",
    "context_id": "a string",
    "task_id": "a string",
    "payload": _BYTES,
    "did": "a string",
    "signature": _BYTES,
    "metadata": _ENTRIES,
    "role": "a string",
}
_RESPONSE: Final = {
    "success": "a bool",
    "message_id": "a string",
    "task_id": "a string",
    "data": _BYTES,
    "error": "a string",
}

_lone_surrogates = re.compile("[\ud800-\udfff]")
_surrogate_escape = re.compile(r"\\u[dD][89a-fA-F]").search


def _refuse_constant(name: str) -> NoReturn:
    """NaN and the infinities are not JSON, though the standard library reads them."""
    raise ValueError(name)


# Numbers stand in unknown fields only: no integer is built, however many digits the peer sends.
_parse = JSONDecoder(object_pairs_hook=tuple, parse_int=float, parse_constant=_refuse_constant).scan_once

# ── decode ─────────────────────────────────────────────────────────────────────────────


def decode_message(data: bytes | bytearray | memoryview) -> Message:
    """A message's JSON to its fields, in the wire's order; what is absent is empty.

    Raises:
        DecodeError: for anything but one JSON object with the right types; `field` names the key.
    """
    message, error = read_message(decode_binary(bytes(memoryview(data))))
    if error:
        raise error
    return message


def decode_response(data: bytes | bytearray | memoryview) -> Answer:
    """A response's JSON to its fields, in the wire's order; what is absent is empty or false.

    Raises:
        DecodeError: for anything but one JSON object with the right types; `field` names the key.
    """
    answer, error = read_response(decode_binary(bytes(memoryview(data))))
    if error:
        raise error
    return answer


def read_message(text: str) -> tuple[Message, DecodeError | None]:
    """As `decode_message`, but the other fields come with an error of type or base64.

    Raises:
        DecodeError: for what is not JSON.
    """
    pairs = _read_object(text)
    found = dict(pairs)
    if len(found) == len(pairs) and _MESSAGE.keys() >= found.keys() and not _has_surrogates(text):
        look = found.get
        message_id = look("id", "")
        context_id = look("context_id", "")
        task_id = look("task_id", "")
        payload = look("payload", "")
        did = look("did", "")
        signature = look("signature", "")
        role = look("role", "")
        metadata = dict(entries) if (entries := look("metadata", ())).__class__ is tuple else None
        if (
            message_id.__class__ is str
            and context_id.__class__ is str
            and task_id.__class__ is str
            and payload.__class__ is str
            and did.__class__ is str
            and role.__class__ is str
            and (signature is None or signature.__class__ is str)
            and metadata is not None
            and (not metadata or set(map(type, metadata.values())) == {str})
        ):
            try:
                content = base64.decode(payload)
                signed = base64.decode(signature) if signature else b""
            except base64.Base64Error:
                pass  # pair by pair, it gets its place among other errors
            else:
                return (message_id, context_id, task_id, content, did, signed, metadata, role), None
    fields: dict[str, Any] = dict.fromkeys(_MESSAGE, "")
    fields |= {"payload": b"", "signature": b"", "metadata": {}}
    error = _read_pairs(pairs, _MESSAGE, fields)
    return tuple(fields.values()), error  # type: ignore[return-value]


def read_response(text: str) -> tuple[Answer, DecodeError | None]:
    """As `decode_response`, but the other fields come with an error of type or base64.

    Raises:
        DecodeError: for what is not JSON.
    """
    pairs = _read_object(text)
    found = dict(pairs)
    if len(found) == len(pairs) and _RESPONSE.keys() >= found.keys() and not _has_surrogates(text):
        look = found.get
        success = look("success", False)  # noqa: FBT003
        message_id = look("message_id", "")
        task_id = look("task_id", "")
        data = look("data", "")
        text = look("error", "")
        if (
            success.__class__ is bool
            and message_id.__class__ is str
            and task_id.__class__ is str
            and data.__class__ is str
            and text.__class__ is str
        ):
            try:
                return (success, message_id, task_id, base64.decode(data) if data else b"", text), None
            except base64.Base64Error:
                pass  # pair by pair, it gets its place among other errors
    fields: dict[str, Any] = dict.fromkeys(_RESPONSE, "")
    fields |= {"success": False, "data": b""}
    error = _read_pairs(pairs, _RESPONSE, fields)
    return tuple(fields.values()), error  # type: ignore[return-value]


def _read_object(text: str) -> tuple[tuple[str, Any], ...]:
    """The members of the text's object, in their order.

    Raises:
        DecodeError: for a text that is not JSON, nests too deep, or is another kind of value.
    """
    # The parser recurses, so that the brackets are counted before they are believed.
    if text.count("{") + text.count("[") > DEEPEST:
        _refuse_unsound(text)
    start = 0 if text[:1] == "{" else len(text) - len(text.lstrip(_WHITE))
    try:
        value, end = _parse(text, start)
    except (ValueError, StopIteration):
        _refuse_unsound(text)
        raise
    if end != len(text) and text[end:].strip(_WHITE):
        _refuse_unsound(text)
    if value.__class__ is tuple:
        return value  # type: ignore[no-any-return]
    if value is None:
        return ()
    raise DecodeError(f"expected an object, found {_kind(value)}")


def _refuse_unsound(text: str) -> None:
    found = find_error(text.encode(), DEEPEST)
    if found:
        raise DecodeError(found)


def _has_surrogates(text: str) -> bool:
    """Whether an escape may stand for a surrogate; raw ones are not UTF-8 and never come here."""
    return "\\u" in text and _surrogate_escape(text) is not None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _canonical(key: str, names: Mapping[str, str]) -> str | None:
    """The field that Go would put this key's value into: simple folding adds two letters to ASCII's case."""
    if key in names:
        return key
    folded = key.lower().replace("\u017f", "s")
    return folded if folded in names else None


def _read_pairs(
    pairs: tuple[tuple[str, Any], ...], names: Mapping[str, str], fields: dict[str, Any]
) -> DecodeError | None:
    """Put the members into `fields`, the last one winning; the first that does not fit is returned."""
    first: DecodeError | None = None
    for key, value in pairs:
        name = _canonical(key, names)
        if name is None:
            continue
        expected = names[name]
        try:
            if value is None:
                if expected is _BYTES:
                    fields[name] = b""
                elif expected is _ENTRIES:
                    fields[name] = {}
            elif expected is _ENTRIES:
                _merge(value, fields[name])
            elif value.__class__ is not (bool if expected == "a bool" else str):
                raise DecodeError(f"{name}: expected {expected}, found {_kind(value)}", field=name)
            elif expected is _BYTES:
                fields[name] = base64.decode(_lone_surrogates.sub("\ufffd", value))
            else:
                fields[name] = value if value.__class__ is bool else _lone_surrogates.sub("\ufffd", value)
        except DecodeError as error:
            first = first or error
        except base64.Base64Error as error:
            first = first or DecodeError(f"{name}: {error}", field=name)
    return first


def _merge(value: object, metadata: dict[str, str]) -> None:
    if not isinstance(value, tuple):
        raise DecodeError(f"metadata: expected {_ENTRIES}, found {_kind(value)}", field="metadata")
    for key, entry in value:
        if entry is None:
            entry = ""  # noqa: PLW2901
        elif entry.__class__ is not str:
            raise DecodeError(
                f"metadata: expected {_ENTRIES}, found {_kind(entry)} in a value", field="metadata"
            )
        metadata[_lone_surrogates.sub("\ufffd", key)] = _lone_surrogates.sub("\ufffd", entry)


# ── encode ─────────────────────────────────────────────────────────────────────────────

# Go escapes these in strings, beside what JSON itself demands. U+2028 and U+2029 begin with the byte E2.
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_PLAIN: Final = bytes(set(range(0x20, 0x100)) - set(b'"\\<>&\xe2'))


def _quote(text: str) -> str:
    """What stands between the quotes."""
    return encode_basestring(text).translate(_ESCAPES)[1:-1]


def _is_plain(text: str) -> bool:
    """Whether no character of it needs an escape; some texts that need none are taken for others."""
    return not text.encode().translate(None, _PLAIN)


def encode_message(
    id: str,  # noqa: A002 -- the wire's name
    context_id: str,
    task_id: str,
    payload: bytes,
    did: str,
    signature: bytes,
    metadata: Mapping[str, str],
    role: str,
) -> bytes:
    """A message's JSON as Go writes it, final newline included."""
    if not _is_plain(f"{id}{context_id}{task_id}{did}{role}"):
        id, context_id, task_id, did, role = map(_quote, (id, context_id, task_id, did, role))  # noqa: A001
    head = f'{{"id":"{id}"'
    if context_id:
        head += f',"context_id":"{context_id}"'
    if task_id:
        head += f',"task_id":"{task_id}"'
    head += ',"payload":"' if payload else ',"payload":null'
    middle = f'","did":"{did}","signature":' if payload else f',"did":"{did}","signature":'
    tail = '"' if signature else ""
    middle += '"' if signature else "null"
    if metadata:
        tail += _encode_metadata(metadata)
    tail += f',"role":"{role}"}}\n' if role else "}\n"
    return b"".join(
        (head.encode(), base64.encode(payload), middle.encode(), base64.encode(signature), tail.encode())
    )


def _encode_metadata(metadata: Mapping[str, str]) -> str:
    # Code points and their UTF-8 sort alike.
    keys = sorted(metadata) if len(metadata) > 1 else metadata
    quote: Callable[[str], str] = _quote
    if _is_plain("".join(metadata) + "".join(metadata.values())):
        quote = str
    return ',"metadata":{' + ",".join([f'"{quote(key)}":"{quote(metadata[key])}"' for key in keys]) + "}"


def encode_response(success: bool, message_id: str, task_id: str, data: bytes, error: str) -> bytes:  # noqa: FBT001
    """A response's JSON as Go writes it, final newline included."""
    if not _is_plain(f"{message_id}{task_id}{error}"):
        message_id, task_id, error = map(_quote, (message_id, task_id, error))
    head = f'{{"success":{"true" if success else "false"},"message_id":"{message_id}"'
    if task_id:
        head += f',"task_id":"{task_id}"'
    tail = f',"error":"{error}"}}\n' if error else "}\n"
    if not data:
        return f"{head}{tail}".encode()
    return b"".join((head.encode(), b',"data":"', base64.encode(data), b'"', tail.encode()))
