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

WHITE = rb"[ \t\r\n]*+"
_CHARACTERS = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
STRING = rb'"' + _CHARACTERS + rb'"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
SCALAR = rb"(?:" + STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_COMMA = WHITE + rb"," + WHITE
_KEY = STRING + WHITE + rb":" + WHITE
_MEMBER = _KEY + SCALAR
_ITEMS = SCALAR + rb"(?:" + _COMMA + SCALAR + rb")*+"
_MEMBERS = _MEMBER + rb"(?:" + _COMMA + _MEMBER + rb")*+"
_FLAT_ARRAY = rb"\[" + WHITE + rb"(?:" + _ITEMS + rb")?+" + WHITE + rb"\]"
_FLAT_OBJECT = rb"\{" + WHITE + rb"(?:" + _MEMBERS + rb")?+" + WHITE + rb"\}"
_FLAT = rb"(?:" + SCALAR + rb"|" + _FLAT_ARRAY + rb"|" + _FLAT_OBJECT + rb")"

# As far as each could still become one.
_string_start = re.compile(rb'"' + _CHARACTERS).match
_escape_start = re.compile(rb"\\(?:u[0-9a-fA-F]{0,4})?").match
_number_start = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.(?:[0-9]++(?:[eE](?:[+-]?[0-9]*+))?+)?+|[eE](?:[+-]?[0-9]*+))?+)?+"
).match
_literal_start = re.compile(rb"t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?").match
_white = re.compile(WHITE).match

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
        rb"(?:" + key + value + WHITE + rb"(" + closing + rb")|" + key + rb"(?=([\[{])))?"
    )
    at_once = WHITE + rb"(?:(" + closing + rb")|"
    return _Steps(
        re.compile(opening + at_once + rest + rb")").match,
        re.compile(at_once + rb"," + WHITE + rest + rb")").match,
        bool(key),
    )


_STEPS: Final = {
    ord("["): _steps(rb"\[", rb"\]", b"", _FLAT),
    ord("{"): _steps(rb"\{", rb"\}", _KEY, _FLAT),
}
_STEPS_AT_THE_DEEPEST: Final = {
    ord("["): _steps(rb"\[", rb"\]", b"", SCALAR),
    ord("{"): _steps(rb"\{", rb"\}", _KEY, SCALAR),
}


class Unsound(Exception):
    """The text is broken; the error's text says where. Never leaves the core."""


def find_error(data: bytes, deepest: int) -> str | None:
    """What is wrong with a JSON text, and at which byte.

    Args:
        data: valid UTF-8.
        deepest: how many levels of containers there may be; the text's own is the first.

    Returns:
        The error's text, `None` for a sound text.
    """
    try:
        position = skip_white(data, 0)
        if data[position : position + 1] in {b"{", b"["}:
            position = skip_container(data, position, deepest)
        else:
            position = _scalar(data, position)
        refuse_more(data, position)
    except Unsound as error:
        return str(error)
    return None


def skip_container(data: bytes, position: int, deepest: int, above: int = 0) -> int:
    """From its opening bracket to behind its end, as are the two below; `above` levels are open already."""
    inside: list[_Steps] = []
    while True:
        level = above + len(inside) + 1
        if level > deepest:
            raise Unsound(f"nested deeper than {deepest} at byte {position}")
        steps = (_STEPS if level < deepest else _STEPS_AT_THE_DEEPEST)[data[position]]
        inside.append(steps)
        step = steps.first(data, position)
        while step and step.lastindex in _CLOSED:
            position = step.end()
            inside.pop()
            if not inside:
                return position
            step = inside[-1].after(data, position)
        if step is None:
            refuse(data, skip_white(data, position))
        position = step.end()
        if step.lastindex is None:
            refuse_member(data, position, inside[-1].has_keys)


def _scalar(data: bytes, position: int) -> int:
    if data[position : position + 1] == b'"':
        return _string(data, position)
    literal = _literal_start(data, position)
    if literal:
        if literal[0] not in _LITERALS:
            refuse(data, literal.end())
        return literal.end()
    number = _number_start(data, position)
    end = number.end() if number else position
    # An empty match is no number; one that ends in a sign, a point or an `e` is not whole.
    if not data[position:end][-1:].isdigit():
        refuse(data, end)
    return end


def _string(data: bytes, position: int) -> int:
    start = _string_start(data, position)
    if start is None:
        refuse(data, position)
    end = start.end()
    if data[end : end + 1] == b'"':
        return end + 1
    escape = _escape_start(data, end)
    return refuse(data, escape.end() if escape else end)


def skip_white(data: bytes, position: int) -> int:
    white = _white(data, position)
    return white.end() if white else position


def refuse_more(data: bytes, position: int) -> None:
    """Behind the text's value there may be white space."""
    position = skip_white(data, position)
    if position < len(data):
        raise Unsound(f"not JSON: more after the value at byte {position}")


def refuse_member(data: bytes, position: int, has_key: bool) -> NoReturn:
    """A member or item begins here, is no container, and cannot be read to its comma or bracket."""
    if has_key:
        position = skip_white(data, _string(data, position))
        if data[position : position + 1] != b":":
            refuse(data, position)
        position = skip_white(data, position + 1)
    refuse(data, skip_white(data, _scalar(data, position)))


def refuse(data: bytes, position: int) -> NoReturn:
    if position < len(data):
        raise Unsound(f"not JSON: unexpected character at byte {position}")
    raise Unsound(f"not JSON: ends early at byte {position}")
