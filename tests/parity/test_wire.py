"""The codec of both bodies side by side: equal values, or equal errors by type, field and text.

Cases are Go's vectors first, then vectors with bytes changed, then arbitrary JSON. The third opinions: the
standard library says whether a text is sound, and a naive reader, byte by byte, where it breaks. Known
differences of the standard library are in the code that asks it: it takes NaN and infinities, and knows no
limit of depth.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import example, given, settings, strategies as st

from sage_ws._core import _pure, _rust
from sage_ws.errors import DecodeError

VECTORS = Path(__file__).parents[1] / "vectors"
DEEPEST = 128
MESSAGE_KEYS = ["id", "context_id", "task_id", "payload", "did", "signature", "metadata", "role"]
RESPONSE_KEYS = ["success", "message_id", "task_id", "data", "error"]
EXAMPLES = settings(max_examples=600, deadline=None)

Outcome = tuple[Any, ...]


def _outcome(function: Callable[..., Any], *arguments: Any) -> Outcome:
    try:
        return "returned", function(*arguments)
    except Exception as error:
        return "raised", type(error), str(error), getattr(error, "field", None)


def _same(name: str, *arguments: Any) -> Outcome:
    """What both bodies make of it."""
    pure = _outcome(getattr(_pure, name), *arguments)
    rust = _outcome(getattr(_rust, name), *arguments)
    assert pure == rust, (name, arguments)
    if pure[0] == "returned" and isinstance(pure[1], tuple):
        assert [type(field) for field in pure[1]] == [type(field) for field in rust[1]]
        assert _order(pure[1]) == _order(rust[1])
    return pure


def _order(fields: tuple[Any, ...]) -> list[list[str]]:
    return [list(field) for field in fields if isinstance(field, dict)]


def _decode_both(data: bytes) -> None:
    for name in ("decode_message", "decode_response"):
        outcome = _same(name, data)
        assert outcome[0] == "returned" or outcome[1] is DecodeError


# ── vectors ────────────────────────────────────────────────────────────────────────────

DECODED = [base64.b64decode(case["wire"]) for case in json.loads((VECTORS / "decode.json").read_text())]
ENCODED = [
    case["wire"].encode() for case in json.loads((VECTORS / "encode.json").read_text()) if "wire" in case
]
SHORT = [wire for wire in DECODED + ENCODED if len(wire) < 2000]


def test_all_vectors() -> None:
    assert len(DECODED) + len(ENCODED) > 700
    for wire in DECODED + ENCODED:
        _decode_both(wire)


def test_every_prefix_of_the_vectors() -> None:
    for wire in {wire for wire in SHORT if len(wire) < 120}:
        for end in range(len(wire)):
            _decode_both(wire[:end])


BYTES = st.one_of(
    st.sampled_from(
        list(
            b'{}[]:,"\\/ \t\r\n0123456789-+.eEtrufalsn=Kk\x00\x0b\x1f\x7f\x80\xbf\xc0\xc3\xe2\xed\xf0\xf4\xff'
        )
    ),
    st.integers(0, 255),
).map(lambda byte: bytes([byte]))
TOKENS = st.sampled_from(
    [
        b"null", b"true", b"false", b"NaN", b"-0.5e+7", b'""', b'"QUJD"', b'"*"', b"\\ud800", b"\\u0000",
        b"\\n", b'"id":', b'"ID":5,', b'"payload":"QQ==",', b'"metadata":{"a":null},', b'"metadata":null,',
        b"[]", b"{}", b'{"a":[', b"]}", b"[" * 130, b"9" * 30, "\u017f\u212a\u00e9\U0001f600".encode(),
        b"\xed\xa0\x80", b"\xef\xbb\xbf",
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A vector with a few places cut, replaced or added to."""
    wire = draw(st.sampled_from(SHORT))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(wire)))
        end = min(len(wire), start + draw(st.sampled_from([0, 0, 1, 1, 2, 7])))
        wire = wire[:start] + draw(st.one_of(st.just(b""), BYTES, TOKENS)) + wire[end:]
    return wire


@EXAMPLES
@given(mutated())
def test_mutated_vectors(wire: bytes) -> None:
    _decode_both(wire)
    _compare_with_third_opinions(wire)


@EXAMPLES
@given(st.lists(st.one_of(BYTES, TOKENS), max_size=30).map(b"".join))
@example(b"")
@example(b"[" * 128)
@example(b"[" * 129)
@example(b'{"x":' * 128 + b"1" + b"}" * 128)
@example(b'{"x":' * 129 + b"1" + b"}" * 129)
@example(b'{"x":[' + b"[]," * 200 + b"]}")
def test_arbitrary_bytes(data: bytes) -> None:
    _decode_both(data)
    _compare_with_third_opinions(data)


# ── arbitrary JSON ─────────────────────────────────────────────────────────────────────


def _any_case(key: str) -> st.SearchStrategy[str]:
    variants = {"s": "sS\u017f", "k": "kK\u212a"}
    letters = [st.sampled_from(variants.get(letter, letter + letter.upper())) for letter in key]
    return st.tuples(*letters).map("".join)


KEYS = st.one_of(
    st.sampled_from(MESSAGE_KEYS + RESPONSE_KEYS),
    st.sampled_from(MESSAGE_KEYS + RESPONSE_KEYS).flatmap(_any_case),
    st.sampled_from(["", "\u00df", "\u0130d", "i\u0307d", "i d", "id\0", "taſk_id", "metadata "]),
    st.text(max_size=5),
)
TEXT = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too: dumps escapes them
BASE64 = st.one_of(
    st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()),
    st.text(st.sampled_from("QUJDz09+/=\r\n-_ \u00e9"), max_size=12),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT, BASE64
)


class Members(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.tuples(KEYS, inner), max_size=4).map(Members),
        st.lists(st.tuples(TEXT, st.one_of(TEXT, st.none())), max_size=4).map(Members),
    ),
    max_leaves=12,
)
MESSAGES = st.lists(st.tuples(KEYS, VALUES), max_size=10).map(Members)


def _dumps(value: Any, *, space: str, ascii_only: bool) -> str:
    if isinstance(value, Members):
        members = [
            f"{space}{_dumps(key, space=space, ascii_only=ascii_only)}{space}:"
            f"{space}{_dumps(entry, space=space, ascii_only=ascii_only)}"
            for key, entry in value
        ]
        return "{" + ",".join(members) + space + "}"
    if isinstance(value, list):
        items = [_dumps(item, space=space, ascii_only=ascii_only) for item in value]
        return f"[{space}" + f"{space},{space}".join(items) + f"{space}]"
    return json.dumps(value, ensure_ascii=ascii_only)


@EXAMPLES
@given(st.one_of(MESSAGES, MESSAGES, VALUES), st.sampled_from(["", "", " ", "\n\t\r "]), st.booleans())
def test_arbitrary_json(value: Any, space: str, ascii_only: bool) -> None:
    text = _dumps(value, space=space, ascii_only=ascii_only)
    wire = text.encode(errors="replace") + space.encode()
    _decode_both(wire)
    for name in ("decode_message", "decode_response"):
        outcome = _outcome(getattr(_pure, name), wire)
        assert outcome[0] == "returned" or not outcome[2].startswith("not JSON"), "it is"
    _compare_with_third_opinions(wire)


FIELDS = st.text(st.characters(codec="utf-8"), max_size=12)
STRINGS = st.one_of(
    FIELDS,
    st.sampled_from(["", "m-1", '<&>"\\/', "\u2028\u2029\x7f\x80", "\0\x1f\b\f\n\r\t", "\u20ac\ue228"]),
)
METADATA = st.dictionaries(STRINGS, STRINGS, max_size=5)


MESSAGE_FIELDS = st.tuples(
    STRINGS, STRINGS, STRINGS, st.binary(max_size=60), STRINGS, st.binary(max_size=9), METADATA, STRINGS
)
RESPONSE_FIELDS = st.tuples(st.booleans(), STRINGS, STRINGS, st.binary(max_size=60), STRINGS)


@EXAMPLES
@given(MESSAGE_FIELDS)
def test_encode_message(fields: tuple[Any, ...]) -> None:
    outcome = _same("encode_message", *fields)
    assert outcome[0] == "returned"
    wire = outcome[1]
    assert _same("decode_message", wire) == ("returned", fields)
    shown = {key: value for key, value in zip(MESSAGE_KEYS, fields, strict=True) if value}
    seen = json.loads(wire)
    always = {"id", "did", "payload", "signature"}
    assert list(seen) == [key for key in MESSAGE_KEYS if key in shown or key in always]
    for key in ("id", "context_id", "task_id", "did", "role", "metadata"):
        assert seen.get(key) == shown.get(key, "" if key in always else None)
    assert list(seen.get("metadata", {})) == sorted(shown.get("metadata", {}), key=str.encode)


@EXAMPLES
@given(RESPONSE_FIELDS)
def test_encode_response(fields: tuple[Any, ...]) -> None:
    outcome = _same("encode_response", *fields)
    assert outcome[0] == "returned"
    assert _same("decode_response", outcome[1]) == ("returned", fields)
    assert json.loads(outcome[1])["success"] is fields[0]


@pytest.mark.parametrize("place", range(8))
def test_a_lone_surrogate_cannot_be_encoded(place: int) -> None:
    fields: list[Any] = ["i", "c", "t", b"p", "d", b"s", {"k": "v"}, "r"]
    for bad in ("a\ud800", "<\udc00"):
        fields[place] = {3: bad.encode("utf-8", "surrogatepass"), 5: b""}.get(place, bad)
        if place == 6:
            for metadata in ({bad: "v"}, {"k": bad}):
                fields[6] = metadata
                outcome = _same("encode_message", *fields)
                assert outcome[1:3] == (ValueError, "metadata holds a lone surrogate")
        elif isinstance(fields[place], str):
            assert _same("encode_message", *fields)[1] is UnicodeEncodeError
            assert _same("encode_response", True, "", "", b"", bad)[1] is UnicodeEncodeError


@pytest.mark.parametrize("size", [0, 1, 2, 3, 47, 48, 49, 1023, 65536, 1 << 20])
def test_large_payloads(size: int) -> None:
    content = bytes((31 * index + 7) % 256 for index in range(size))
    wire = _same("encode_message", "m", "", "", content, "d", content, {}, "")[1]
    assert _same("decode_message", wire)[1][3] == content
    with_breaks = wire.replace(b"JkWEg", b"JkW\\r\\nEg").replace(b'"}', b'\\n"}')
    assert _same("decode_message", with_breaks)[1][3] == content


# ── the third opinions ─────────────────────────────────────────────────────────────────


def _compare_with_third_opinions(data: bytes) -> None:
    outcome = _outcome(_pure.decode_message, data)
    text = outcome[2] if outcome[0] == "raised" else ""
    first_bad = next(iter(_bad_bytes(data)), None)
    if first_bad is not None:
        assert text == f"not UTF-8 at byte {first_bad}"
        return
    expected = _naive_error(data)
    if expected:
        assert text == expected
        return
    assert not text.startswith(("not JSON", "nested"))
    assert _is_sound(data.decode())


def _bad_bytes(data: bytes) -> list[int]:
    places = []

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        places.append(error.start)
        return "", error.end

    codecs.register_error("sage_ws.note", note)
    data.decode(errors="sage_ws.note")
    return places


def _refuse(_: str) -> NoReturn:
    raise ValueError


def _is_sound(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse, parse_int=float)
    except ValueError:
        return False
    return True


class _Naive:
    """RFC 8259 as its grammar has it, one byte after the other, no expression and no table."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def refuse(self) -> NoReturn:
        if self.at < len(self.data):
            raise ValueError(f"not JSON: unexpected character at byte {self.at}")
        raise ValueError(f"not JSON: ends early at byte {self.at}")

    def peek(self) -> str:
        return chr(self.data[self.at]) if self.at < len(self.data) else ""

    def take(self, allowed: str) -> str:
        byte = self.peek()
        if not byte or byte not in allowed:
            self.refuse()
        self.at += 1
        return byte

    def white(self) -> None:
        while self.peek() and self.peek() in " \t\r\n":
            self.at += 1

    def text(self) -> None:
        self.value(1)
        self.white()
        if self.peek():
            raise ValueError(f"not JSON: more after the value at byte {self.at}")

    def value(self, level: int) -> None:
        self.white()
        first = self.peek()
        if first and first in "{[":
            if level > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} at byte {self.at}")
            self.container(level)
        elif first == '"':
            self.string()
        elif first and first in "-0123456789":
            self.number()
        else:
            for letter in {"t": "true", "f": "false", "n": "null"}.get(first) or self.refuse():
                self.take(letter)

    def container(self, level: int) -> None:
        is_object = self.take("{[") == "{"
        close = "}" if is_object else "]"
        self.white()
        if self.peek() == close:
            self.at += 1
            return
        while True:
            if is_object:
                self.white()
                self.string()
                self.white()
                self.take(":")
            self.value(level + 1)
            self.white()
            if self.take("," + close) == close:
                return

    def string(self) -> None:
        self.take('"')
        while (byte := self.peek()) != '"':
            if not byte or byte < " ":
                self.refuse()
            self.at += 1
            if byte == "\\" and self.take('"\\/bfnrtu') == "u":
                for _ in range(4):
                    self.take("0123456789abcdefABCDEF")
        self.at += 1

    def digits(self) -> None:
        self.take("0123456789")
        while self.peek() and self.peek() in "0123456789":
            self.at += 1

    def number(self) -> None:
        if self.peek() == "-":
            self.at += 1
        if self.peek() == "0":
            self.at += 1
        else:
            self.digits()
        if self.peek() == ".":
            self.at += 1
            self.digits()
        if self.peek() and self.peek() in "eE":
            self.at += 1
            if self.peek() and self.peek() in "+-":
                self.at += 1
            self.digits()


def _naive_error(data: bytes) -> str:
    try:
        _Naive(data).text()
    except ValueError as error:
        return str(error)
    return ""


@EXAMPLES
@given(st.one_of(mutated(), st.lists(st.one_of(BYTES, TOKENS), max_size=20).map(b"".join)))
def test_the_naive_reader_agrees_with_the_standard_library(data: bytes) -> None:
    """Or else it would prove nothing."""
    error = _naive_error(data)
    if not error.startswith("nested"):
        text = data.decode(errors="replace")
        assert _is_sound(text) is not bool(error)
