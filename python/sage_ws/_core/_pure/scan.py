"""The exact place where a JSON text breaks its grammar (RFC 8259) or nests too deep.

The standard library's parser is the fast one, but the places that it names differ between Python versions,
and none of its errors is about depth. So a text that it refuses, or that holds many brackets, is read a
second time here, to its first error in the order of bytes: the first byte at which no JSON text could go on.

One step per token, each a regular expression. Runs of members and items that hold no container, or a flat
one, are passed over by a single expression each, since a step costs a hundred times as much as a byte. Every
repetition is possessive, so that nothing is read back: the time is linear in the length, whatever the peer
sends.
"""

from __future__ import annotations

import re
from typing import Final

_WHITE = rb"[ \t\r\n]*+"
_CHARACTERS = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_STRING = rb'"' + _CHARACTERS + rb'"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_COMMA = _WHITE + rb"," + _WHITE
_MEMBER = _STRING + _WHITE + rb":" + _WHITE + _SCALAR
_FLAT_OBJECT = rb"\{" + _WHITE + rb"(?:" + _MEMBER + rb"(?:" + _COMMA + _MEMBER + rb")*+)?+" + _WHITE + rb"\}"
_FLAT_ARRAY = rb"\[" + _WHITE + rb"(?:" + _SCALAR + rb"(?:" + _COMMA + _SCALAR + rb")*+)?+" + _WHITE + rb"\]"
_FLAT = rb"(?:" + _SCALAR + rb"|" + _FLAT_ARRAY + rb"|" + _FLAT_OBJECT + rb")"

_white = re.compile(_WHITE).match
_members = re.compile(rb"(?:" + _STRING + _WHITE + rb":" + _WHITE + _FLAT + _COMMA + rb")*+").match
_items = re.compile(rb"(?:" + _FLAT + _COMMA + rb")*+").match
# At the deepest level no container may follow.
_deepest_members = re.compile(rb"(?:" + _MEMBER + _COMMA + rb")*+").match
_deepest_items = re.compile(rb"(?:" + _SCALAR + _COMMA + rb")*+").match

# As far as each could still become one.
_string_start = re.compile(rb'"' + _CHARACTERS).match
_escape_start = re.compile(rb"\\(?:u[0-9a-fA-F]{0,4})?").match
_number_start = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.(?:[0-9]++(?:[eE](?:[+-]?[0-9]*+))?+)?+|[eE](?:[+-]?[0-9]*+))?+)?+"
).match
_literal_start = re.compile(rb"t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?").match

_CLOSE: Final = {ord("{"): ord("}"), ord("["): ord("]")}
_COMPLETE_LITERALS: Final = frozenset((b"true", b"false", b"null"))


class Unsound(Exception):  # noqa: N818 -- a finding, not a failure of the search
    """Where and how the text breaks: its text is the error's."""


def find_error(data: bytes, deepest: int) -> str | None:
    """What is wrong with a JSON text, and at which byte.

    Args:
        data: valid UTF-8.
        deepest: how many levels of containers there may be; the text's own is the first.

    Returns:
        The error's text, `None` for a sound text.
    """
    try:
        _scan(data, deepest)
    except Unsound as error:
        return str(error)
    return None


def _unexpected(data: bytes, position: int) -> Unsound:
    if position >= len(data):
        return Unsound(f"not JSON: ends early at byte {len(data)}")
    return Unsound(f"not JSON: unexpected character at byte {position}")


def _skip_white(data: bytes, position: int) -> int:
    return _white(data, position).end()  # type: ignore[union-attr]  # an empty match is one


def _scan(data: bytes, deepest: int) -> None:
    containers = bytearray()
    position = _skip_white(data, 0)
    while True:
        # A value is due at `position`; in an object its key has been read.
        if data[position : position + 1] in (b"{", b"["):
            if len(containers) == deepest:
                raise Unsound(f"nested deeper than {deepest} at byte {position}")
            containers.append(data[position])
            position = _skip_white(data, position + 1)
            if position == len(data) or data[position] != _CLOSE[containers[-1]]:
                position = _next_value(data, position, containers, deepest)
                continue
            containers.pop()
            position += 1
        else:
            position = _scalar(data, position)
        # A value has ended at `position`: so may its containers, or the next value follows.
        while True:
            position = _skip_white(data, position)
            if not containers:
                if position < len(data):
                    raise Unsound(f"not JSON: more after the value at byte {position}")
                return
            mark = data[position : position + 1]
            if mark == b",":
                position = _next_value(data, _skip_white(data, position + 1), containers, deepest)
                break
            if not mark or mark[0] != _CLOSE[containers[-1]]:
                raise _unexpected(data, position)
            containers.pop()
            position += 1


def _next_value(data: bytes, position: int, containers: bytearray, deepest: int) -> int:
    """Pass over what is flat, and over the key before the value that is not."""
    inside = len(containers) == deepest
    if containers[-1] == ord("["):
        run = (_deepest_items if inside else _items)(data, position)
        return run.end() if run else position
    run = (_deepest_members if inside else _members)(data, position)
    position = run.end() if run else position
    if data[position : position + 1] != b'"':
        raise _unexpected(data, position)
    position = _skip_white(data, _string(data, position))
    if data[position : position + 1] != b":":
        raise _unexpected(data, position)
    return _skip_white(data, position + 1)


def _scalar(data: bytes, position: int) -> int:
    mark = data[position : position + 1]
    if mark == b'"':
        return _string(data, position)
    literal = _literal_start(data, position)
    if literal:
        if literal[0] not in _COMPLETE_LITERALS:
            raise _unexpected(data, literal.end())
        return literal.end()
    number = _number_start(data, position)
    end = number.end() if number else position
    # An empty match is no number; one that ends in a sign, a point or an `e` is not whole.
    if end == position or not data[end - 1 : end].isdigit():
        raise _unexpected(data, end)
    return end


def _string(data: bytes, position: int) -> int:
    """From its first quote to behind its last."""
    start = _string_start(data, position)
    end = start.end() if start else position
    if data[end : end + 1] == b'"':
        return end + 1
    escape = _escape_start(data, end)
    raise _unexpected(data, escape.end() if escape else end)
