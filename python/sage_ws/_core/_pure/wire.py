"""A message's JSON to its fields and back (docs/reference/wire.md, "Messages" and "JSON").

Go's reader is the law, but for what wire.md refuses on purpose: keys match after simple case folding, the
last duplicate wins and `metadata` merges, `null` leaves a string or bool alone and empties bytes and
`metadata`, a lone surrogate becomes U+FFFD. A wrong type or bad base64 is an error only in a text that is
sound JSON.

The grammar is the standard library's, in C: objects come as tuples of pairs, so that duplicates stay visible
and an object cannot be taken for an array. The form in which nearly all messages come is read by `canonical`
before that, and a text of more values than the parser should build by `bulk`. Where the parser refuses,
`scan` finds the place.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from json import JSONDecoder
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn, cast

from sage_ws._core._pure import base64, canonical
from sage_ws._core._pure.utf8 import decode_binary
from sage_ws.errors import DecodeError

Message = tuple[str, str, str, bytes, str, bytes, dict[str, str], str]
"""id, context_id, task_id, payload, did, signature, metadata, role."""
Answer = tuple[bool, str, str, bytes, str]
"""success, message_id, task_id, data, error."""
Pairs = Iterable[tuple[str, Any]]
"""A JSON object: its members, in their order."""

DEEPEST: Final = 128
"""Levels of JSON containers, the message's own object being the first."""

_MANY: Final = 16 * 1024
"""Values of which the parser takes a megabyte or two at most; more are not left to it."""

_WHITE: Final = " \t\r\n"
STRING: Final = "a string"
BOOL: Final = "a bool"
BYTES: Final = "a base64 string"
ENTRIES: Final = "an object of strings"

_MESSAGE: Final = {
    "id": STRING,
    "context_id": STRING,
    "task_id": STRING,
    "payload": BYTES,
    "did": STRING,
    "signature": BYTES,
    "metadata": ENTRIES,
    "role": STRING,
}
_RESPONSE: Final = {
    "success": BOOL,
    "message_id": STRING,
    "task_id": STRING,
    "data": BYTES,
    "error": STRING,
}

_lone_surrogates = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> NoReturn:
    """NaN and the infinities are not JSON, though the standard library reads them."""
    raise ValueError(name)


# No integer is built, however many digits the peer sends: the extended wire's are small, others unread.
_parse = JSONDecoder(object_pairs_hook=tuple, parse_int=float, parse_constant=_refuse_constant).raw_decode

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
    message = canonical.read_message(text)
    if message:
        return message, None
    pairs = read_object(text)
    fields: dict[str, Any] = dict.fromkeys(_MESSAGE, "")
    fields.update(payload=b"", signature=b"", metadata={})
    error = _read_pairs(pairs, _MESSAGE, fields)
    return cast("Message", tuple(fields.values())), error


def read_response(text: str) -> tuple[Answer, DecodeError | None]:
    """As `decode_response`, but the other fields come with an error of type or base64.

    Raises:
        DecodeError: for what is not JSON.
    """
    answer = canonical.read_response(text)
    if answer:
        return answer, None
    pairs = read_object(text)
    fields: dict[str, Any] = dict.fromkeys(_RESPONSE, "")
    fields.update(success=False, data=b"")
    error = _read_pairs(pairs, _RESPONSE, fields)
    return cast("Answer", tuple(fields.values())), error


def read_object(text: str) -> Pairs:
    """The members of the text's object.

    Raises:
        DecodeError: for a text that is not JSON, or is another kind of value; of one with many values, when
            its members are iterated over.
    """
    start = 0 if text[:1] == "{" else len(text) - len(text.lstrip(_WHITE))
    if _has_many_values(text):
        if text[start] == "{":
            from sage_ws._core._pure.bulk import read_members

            return read_members(text, DEEPEST)
        _refuse_unsound(text)
        raise DecodeError(f"expected an object, found {'array' if text[start] == '[' else 'string'}")
    try:
        value, end = _parse(text, start)
    except (ValueError, RecursionError):
        _refuse_unsound(text)
        raise
    if end != len(text) and text[end:].strip(_WHITE):
        _refuse_unsound(text)
    _refuse_depth(text)
    if value.__class__ is tuple:
        return cast("Pairs", value)
    if value is None:
        return ()
    raise DecodeError(f"expected an object, found {kind_of(value)}")


def _has_many_values(text: str) -> bool:
    """Each value but the first stands behind a comma or an opening bracket."""
    return len(text) > _MANY and text.count(",") + text.count("[") + text.count("{") > _MANY


def _refuse_depth(text: str) -> None:
    """Most texts cannot nest too deep: they have too few brackets."""
    if text.count("{") + text.count("[") > DEEPEST:
        _refuse_unsound(text)


def _refuse_unsound(text: str) -> None:
    # Late, since its expressions take milliseconds to compile, and few processes ever see an error.
    from sage_ws._core._pure.scan import find_error

    found = find_error(text.encode(), DEEPEST)
    if found:
        raise DecodeError(found)


def kind_of(value: object) -> str:
    """What errors call a parsed value; `null`, which fits everywhere, never needs a name."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def canonical_key(key: str, names: Container[str]) -> str | None:
    """The field that this key means to Go: simple folding adds two letters to those of ASCII."""
    if key in names:
        return key
    folded = key.lower().replace("\u017f", "s")
    return folded if folded in names else None


def _read_pairs(pairs: Pairs, names: Mapping[str, str], fields: dict[str, Any]) -> DecodeError | None:
    """Put the members into `fields`, the last one winning; the first that does not fit is returned."""
    first: DecodeError | None = None
    for key, value in pairs:
        name = canonical_key(key, names)
        if name is None:
            continue
        try:
            fields[name] = read_field(name, names[name], value, fields[name])
        except DecodeError as error:
            first = first or error
    return first


def read_field(name: str, expected: str, value: object, before: Any) -> object:
    """What a field becomes.

    Args:
        name: its key.
        expected: what its value should be.
        value: what its value is.
        before: what an earlier duplicate set, or nothing.

    Raises:
        DecodeError: for a value of another type, or bad base64.
    """
    if value is None:
        return b"" if expected is BYTES else {} if expected is ENTRIES else before
    if expected is ENTRIES and kind_of(value) == "object":
        _merge(cast("Pairs", value), before)
        return before
    if isinstance(value, bool) and expected is BOOL:
        return value
    if isinstance(value, str) and expected in {STRING, BYTES}:
        whole = _without_surrogates(value)
        if expected is STRING:
            return whole
        try:
            return base64.decode(whole)
        except base64.Base64Error as error:
            raise DecodeError(f"{name}: {error}", field=name) from None
    raise DecodeError(f"{name}: expected {expected}, found {kind_of(value)}", field=name)


def _merge(pairs: Pairs, metadata: dict[str, str]) -> None:
    for key, entry in pairs:
        if not (entry is None or isinstance(entry, str)):
            found = kind_of(entry)
            raise DecodeError(f"metadata: expected {ENTRIES}, found {found} in a value", field="metadata")
        metadata[_without_surrogates(key)] = _without_surrogates(entry or "")


def _without_surrogates(text: str) -> str:
    """As Go: an escape that stands for a surrogate without its other half is U+FFFD."""
    return text if text.isascii() else _lone_surrogates.sub("\ufffd", text)


# ── encode ─────────────────────────────────────────────────────────────────────────────


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
    try:
        return write_message(id, context_id, task_id, payload, did, signature, metadata, role)
    except UnicodeEncodeError:
        _refuse_surrogate(id, context_id, task_id, did, role)
        raise ValueError("metadata holds a lone surrogate") from None


def encode_response(success: bool, message_id: str, task_id: str, data: bytes, error: str) -> bytes:
    """A response's JSON as Go writes it, final newline included."""
    try:
        return write_response(success, message_id, task_id, data, error)
    except UnicodeEncodeError:
        _refuse_surrogate(message_id, task_id, error)
        raise


def _refuse_surrogate(*texts: str) -> None:
    """Raise the codec's own error for the first that holds one, with the place in that text."""
    for text in texts:
        text.encode()


# Go escapes these in strings, beside what JSON itself demands. U+2028 and U+2029 begin with the byte E2.
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_PLAIN: Final = bytes(set(range(0x20, 0x100)) - set(b'"\\<>&\xe2'))


def quote(text: str) -> str:
    """What stands between the quotes."""
    return encode_basestring(text).translate(_ESCAPES)[1:-1]


def is_plain(text: str) -> bool:
    """Whether no character of it needs an escape; some texts that need none are taken for others."""
    return not text.encode().translate(None, _PLAIN)


def write_message(
    id: str,  # noqa: A002 -- the wire's name
    context_id: str,
    task_id: str,
    payload: bytes,
    did: str,
    signature: bytes,
    metadata: Mapping[str, str],
    role: str,
) -> bytes:
    """As `encode_message`, of strings that are known to hold no surrogate: a value's."""
    if not is_plain(f"{id}{context_id}{task_id}{did}{role}"):
        id = quote(id)  # noqa: A001
        context_id = quote(context_id)
        task_id = quote(task_id)
        did = quote(did)
        role = quote(role)
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
        tail += encode_metadata(metadata)
    tail += f',"role":"{role}"}}\n' if role else "}\n"
    return b"".join(
        (head.encode(), base64.encode(payload), middle.encode(), base64.encode(signature), tail.encode())
    )


def encode_metadata(metadata: Mapping[str, str]) -> str:
    # Code points and their UTF-8 sort alike.
    keys = sorted(metadata) if len(metadata) > 1 else metadata
    if is_plain("".join([*metadata, *metadata.values()])):
        entries = [f'"{key}":"{metadata[key]}"' for key in keys]
    else:
        entries = [f'"{quote(key)}":"{quote(metadata[key])}"' for key in keys]
    return f',"metadata":{{{",".join(entries)}}}'


def write_response(success: bool, message_id: str, task_id: str, data: bytes, error: str) -> bytes:
    """As `encode_response`, of strings that are known to hold no surrogate: a value's."""
    if not is_plain(f"{message_id}{task_id}{error}"):
        message_id, task_id, error = map(quote, (message_id, task_id, error))
    head = f'{{"success":{"true" if success else "false"},"message_id":"{message_id}"'
    if task_id:
        head += f',"task_id":"{task_id}"'
    tail = f',"error":"{error}"}}\n' if error else "}\n"
    if not data:
        return f"{head}{tail}".encode()
    return b"".join((head.encode(), b',"data":"', base64.encode(data), b'"', tail.encode()))
