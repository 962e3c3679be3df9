"""The exact place where a JSON text breaks its grammar (RFC 8259) or nests too deep.

The standard library's parser is the fast one, but the places that it names differ between Python versions,
and none of its errors is about depth. So a text that it refuses, or that holds many brackets, is read a
second time here, to its first error in the order of bytes: the first byte at which no JSON text could go on.

One step per bracket, each a regular expression that passes over everything up to the next bracket that
matters: scalars, members, and containers that hold no other container. Where it stops short the error is
near, and is looked for token by token. Repetitions are possessive, so that nothing is read back: the time is
linear in the length, whatever the peer sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

_WHITE = rb"[ \t\r\n]*+"
_CHARACTERS = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_STRING = rb'"' + _CHARACTERS + rb'"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_COMMA = _WHITE + rb"," + _WHITE
_KEY = _STRING + _WHITE + rb":" + _WHITE
_MEMBER = _KEY + _SCALAR
_ITEMS = _SCALAR + rb"(?:" + _COMMA + _SCALAR + rb")*+"
_MEMBERS = _MEMBER + rb"(?:" + _COMMA + _MEMBER + rb")*+"
_FLAT_ARRAY = rb"\[" + _WHITE + rb"(?:" + _ITEMS + rb")?+" + _WHITE + rb"\]"
_FLAT_OBJECT = rb"\{" + _WHITE + rb"(?:" + _MEMBERS + rb")?+" + _WHITE + rb"\}"
_FLAT = rb"(?:" + _SCALAR + rb"|" + _FLAT_ARRAY + rb"|" + _FLAT_OBJECT + rb")"

# As far as each could still become one.
_string_start = re.compile(rb'"' + _CHARACTERS).match
_escape_start = re.compile(rb"\\(?:u[0-9a-fA-F]{0,4})?").match
_number_start = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.(?:[0-9]++(?:[eE](?:[+-]?[0-9]*+))?+)?+|[eE](?:[+-]?[0-9]*+))?+)?+"
).match
_literal_start = re.compile(rb"t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?").match
_white = re.compile(_WHITE).match

_LITERALS: Final = frozenset((b"true", b"false", b"null"))

_Step = Callable[[bytes, int], re.Match[bytes] | None]


class _Steps(NamedTuple):
    """How to pass over a container: from its opening bracket, and from behind a value inside it.

    A step ends behind the container's end (group 1 or 2 matches), at the opening bracket of a value (group
    3), or where no step is possible (no group).
    """

    first: _Step
    after: _Step
    has_keys: bool


_CLOSED: Final = frozenset((1, 2))


def _steps(opening: bytes, closing: bytes, key: bytes, value: bytes) -> _Steps:
    rest = (
        rb"(?:" + key + value + _COMMA + rb")*+"
        rb"(?:" + key + value + _WHITE + rb"(" + closing + rb")|" + key + rb"(?=([\[{])))?"
    )
    at_once = _WHITE + rb"(?:(" + closing + rb")|"
    return _Steps(
        re.compile(opening + at_once + rest + rb")").match,
        re.compile(at_once + rb"," + _WHITE + rest + rb")").match,
        bool(key),
    )


_STEPS: Final = {
    ord("["): _steps(rb"\[", rb"\]", b"", _FLAT),
    ord("{"): _steps(rb"\{", rb"\}", _KEY, _FLAT),
}
_STEPS_AT_THE_DEEPEST: Final = {
    ord("["): _steps(rb"\[", rb"\]", b"", _SCALAR),
    ord("{"): _steps(rb"\{", rb"\}", _KEY, _SCALAR),
}


class _Unsound(Exception):
    """The text is broken; the error's text says where."""


def find_error(data: bytes, deepest: int) -> str | None:
    """What is wrong with a JSON text, and at which byte.

    Args:
        data: valid UTF-8.
        deepest: how many levels of containers there may be; the text's own is the first.

    Returns:
        The error's text, `None` for a sound text.
    """
    try:
        position = _skip_white(data, 0)
        if data[position : position + 1] in {b"{", b"["}:
            position = _container(data, position, deepest)
        else:
            position = _scalar(data, position)
        position = _skip_white(data, position)
    except _Unsound as error:
        return str(error)
    return f"not JSON: more after the value at byte {position}" if position < len(data) else None


def _container(data: bytes, position: int, deepest: int) -> int:
    """From its opening bracket to behind its end, as are the two below."""
    inside: list[_Steps] = []
    while True:
        if len(inside) == deepest:
            raise _Unsound(f"nested deeper than {deepest} at byte {position}")
        steps = (_STEPS if len(inside) + 1 < deepest else _STEPS_AT_THE_DEEPEST)[data[position]]
        inside.append(steps)
        step = steps.first(data, position)
        while step and step.lastindex in _CLOSED:
            position = step.end()
            inside.pop()
            if not inside:
                return position
            step = inside[-1].after(data, position)
        if step is None:
            _refuse(data, _skip_white(data, position))
        position = step.end()
        if step.lastindex is None:
            _refuse_member(data, position, inside[-1].has_keys)


def _scalar(data: bytes, position: int) -> int:
    if data[position : position + 1] == b'"':
        return _string(data, position)
    literal = _literal_start(data, position)
    if literal:
        if literal[0] not in _LITERALS:
            _refuse(data, literal.end())
        return literal.end()
    number = _number_start(data, position)
    end = number.end() if number else position
    # An empty match is no number; one that ends in a sign, a point or an `e` is not whole.
    if not data[position:end][-1:].isdigit():
        _refuse(data, end)
    return end


def _string(data: bytes, position: int) -> int:
    start = _string_start(data, position)
    if start is None:
        _refuse(data, position)
    end = start.end()
    if data[end : end + 1] == b'"':
        return end + 1
    escape = _escape_start(data, end)
    return _refuse(data, escape.end() if escape else end)


def _skip_white(data: bytes, position: int) -> int:
    white = _white(data, position)
    return white.end() if white else position


def _refuse_member(data: bytes, position: int, has_key: bool) -> NoReturn:
    """A member or item begins here, is no container, and cannot be read to its comma or bracket."""
    if has_key:
        position = _skip_white(data, _string(data, position))
        if data[position : position + 1] != b":":
            _refuse(data, position)
        position = _skip_white(data, position + 1)
    _refuse(data, _skip_white(data, _scalar(data, position)))


def _refuse(data: bytes, position: int) -> NoReturn:
    if position < len(data):
        raise _Unsound(f"not JSON: unexpected character at byte {position}")
    raise _Unsound(f"not JSON: ends early at byte {position}")
