"""The way for a text of very many values: member by member, and nothing is built of what nobody asked for.

The standard library's parser makes an object of every value, up to forty times the size of a text that is
all brackets and commas, and keeps them until the last is there. Such a text is read by `scan`'s expressions
instead: slower, but what is kept is one member at a time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from json import JSONDecoder
from typing import Any, Final, cast

from sage_ws._core._pure import scan
from sage_ws.errors import DecodeError

# A key, and its value as far as it is a scalar; else the bracket that opens it.
_member_start = re.compile(
    rb"(" + scan.STRING + rb")" + scan.WHITE + rb":" + scan.WHITE + rb"(?:(" + scan.SCALAR + rb")|[\[{])"
).match
_comma_or_brace = re.compile(scan.WHITE + rb"[,}]").match

_parse = JSONDecoder().raw_decode

_LITERALS: Final = {b"true": True, b"false": False, b"null": None}


class Object:
    """A member's value that is an object, and sound; iterated over, it gives its own members."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return _members(self._data, self._start, sys.maxsize)


def read_members(text: str, deepest: int) -> Iterator[tuple[str, Any]]:
    """The members of the text's object: keys, and values as the parser would give them.

    Args:
        text: it begins with a brace, but for white space; whether it is JSON shows as one iterates.
        deepest: how many levels of containers there may be.

    Yields:
        Key and value; an array comes empty, an object as an `Object`.

    Raises:
        DecodeError: at the first error in the order of bytes.
    """
    data = text.encode()
    try:
        end = yield from _members(data, scan.skip_white(data, 0), deepest)
        scan.refuse_more(data, end)
    except scan.Unsound as error:
        raise DecodeError(str(error)) from None


def _members(data: bytes, position: int, deepest: int) -> Generator[tuple[str, Any], None, int]:
    """From the opening brace; returns where the object ends."""
    position = scan.skip_white(data, position + 1)
    if data[position : position + 1] == b"}":
        return position + 1
    while True:
        begin = position
        start = _member_start(data, begin)
        if start is None:
            scan.refuse_member(data, begin, has_key=True)
        key, scalar = start.groups()
        position = start.end()
        if scalar:
            yield _string(key), _scalar(scalar)
        else:
            bracket = position - 1
            position = scan.skip_container(data, bracket, deepest, above=1)
            yield _string(key), [] if data[bracket] == ord("[") else Object(data, bracket)
        separator = _comma_or_brace(data, position)
        if separator is None:
            if scalar:  # which may be the beginning of a broken one, such as 1 of 1.e
                scan.refuse_member(data, begin, has_key=True)
            scan.refuse(data, scan.skip_white(data, position))
        position = separator.end()
        if data[position - 1] == ord("}"):
            return position
        position = scan.skip_white(data, position)


def _string(token: bytes) -> str:
    return cast("str", _parse(token.decode())[0])


def _scalar(token: bytes) -> str | float | bool | None:
    if token[:1] == b'"':
        return _string(token)
    # As the parser makes them.
    return _LITERALS[token] if token in _LITERALS else float(token)
