"""The codec against Go's own words (tests/vectors), and the exact text of each refusal."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_ws._core import decode_message, decode_response, encode_message, encode_response
from sage_ws.errors import DecodeError

VECTORS = Path(__file__).parents[2] / "vectors"
MESSAGE_KEYS = ("id", "context_id", "task_id", "payload", "did", "signature", "metadata", "role")
RESPONSE_KEYS = ("success", "message_id", "task_id", "data", "error")
DECODE: dict[str, Callable[[Any], Any]] = {"message": decode_message, "response": decode_response}
ENCODE: dict[str, Callable[..., bytes]] = {"message": encode_message, "response": encode_response}


def _vectors(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text())


def _field(value: dict[str, Any], key: str) -> Any:
    if f"{key}_gen" in value:
        return bytes((31 * index + 7) % 256 for index in range(value[f"{key}_gen"]))
    if key in {"payload", "signature", "data"}:
        return None if value[key] is None else bytes.fromhex(value[key])
    return value[key]


def _fields(case: dict[str, Any]) -> list[Any]:
    keys = MESSAGE_KEYS if case["kind"] == "message" else RESPONSE_KEYS
    return [_field(case["value"], key) for key in keys]


def _python_fields(case: dict[str, Any]) -> tuple[Any, ...]:
    """Without Go's nil."""
    keys = MESSAGE_KEYS if case["kind"] == "message" else RESPONSE_KEYS
    empty = {"payload": b"", "signature": b"", "data": b"", "metadata": {}}
    fields = zip(keys, _fields(case), strict=True)
    return tuple(empty[key] if value is None else value for key, value in fields)


def _is_writable(case: dict[str, Any]) -> bool:
    """Not Go's strings that are no text, nor its difference between nil and empty bytes, both `null` here."""
    return "value_hex" not in case and (case["kind"] == "response" or b"" not in _fields(case))


ENCODED = [case for case in _vectors("encode") if _is_writable(case)]
DECODED = _vectors("decode")


def test_enough_vectors() -> None:
    assert len(ENCODED) > 220
    assert len(DECODED) == 508


@pytest.mark.parametrize("case", ENCODED, ids=lambda case: case["name"])
def test_encodes_as_go(case: dict[str, Any]) -> None:
    wire = ENCODE[case["kind"]](*_python_fields(case))
    assert len(wire) == case["wire_len"]
    if "wire" in case:
        assert wire == case["wire"].encode()
    else:
        assert hashlib.sha256(wire).hexdigest() == case["wire_sha256"]
    assert DECODE[case["kind"]](wire) == _python_fields(case)


@pytest.mark.parametrize("case", DECODED, ids=lambda case: case["name"])
def test_decodes_as_go_or_refuses_on_purpose(case: dict[str, Any]) -> None:
    wire = base64.b64decode(case["wire"])
    if case["ok"] and case.get("ours", {}).get("ok", True):
        assert DECODE[case["kind"]](wire) == _python_fields(case)
        return
    with pytest.raises(DecodeError) as refused:
        DECODE[case["kind"]](wire)
    if case.get("error") == "type":
        assert refused.value.field == case.get("field")
    if case.get("error") in {"syntax", "truncated"}:
        assert refused.value.field is None
        assert str(refused.value).startswith(("not JSON: ", "not UTF-8 ", "nested deeper"))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_bytes(kind: Callable[[bytes], Any]) -> None:
    assert decode_message(kind(b'{"id":"m"}'))[0] == "m"
    assert decode_response(kind(b'{"message_id":"m"}'))[1] == "m"


def test_absent_fields_are_empty() -> None:
    assert decode_message(b"{}") == ("", "", "", b"", "", b"", {}, "")
    assert decode_response(b"{}") == (False, "", "", b"", "")


def test_empty_bytes_are_null() -> None:
    assert encode_message("", "", "", b"", "", b"", {}, "") == (
        b'{"id":"","payload":null,"did":"","signature":null}\n'
    )
    assert encode_response(True, "", "", b"", "") == b'{"success":true,"message_id":""}\n'


REFUSALS = [
    # not UTF-8: the first byte of the first bad sequence, before anything else
    (b"\xff", "not UTF-8 at byte 0"),
    (b"[[[\xff", "not UTF-8 at byte 3"),
    (b'{"id":"\xc3\xa9\xe2\x82"}', "not UTF-8 at byte 9"),
    (b'{"id":"\xed\xa0\x80"}', "not UTF-8 at byte 7"),
    (b'{"id":"m"} \xf0\x9f\x98', "not UTF-8 at byte 11"),
    # not JSON: where no text could go on
    (b"", "not JSON: ends early at byte 0"),
    (b" \t\r\n", "not JSON: ends early at byte 4"),
    (b"nul", "not JSON: ends early at byte 3"),
    (b"nulx", "not JSON: unexpected character at byte 3"),
    (b"tru ", "not JSON: unexpected character at byte 3"),
    (b"NaN", "not JSON: unexpected character at byte 0"),
    (b"\xef\xbb\xbf{}", "not JSON: unexpected character at byte 0"),
    (b"\x0b{}", "not JSON: unexpected character at byte 0"),
    (b'{"x":Infinity}', "not JSON: unexpected character at byte 5"),
    (b'{"x":-Infinity}', "not JSON: unexpected character at byte 6"),
    (b'{"x":01}', "not JSON: unexpected character at byte 6"),
    (b'{"x":1.}', "not JSON: unexpected character at byte 7"),
    (b'{"x":1.5.}', "not JSON: unexpected character at byte 8"),
    (b'{"x":1e+}', "not JSON: unexpected character at byte 8"),
    (b'{"x":-', "not JSON: ends early at byte 6"),
    (b'{"x":1e', "not JSON: ends early at byte 7"),
    (b'{"x":[1,]}', "not JSON: unexpected character at byte 8"),
    (b'{"x":[[[1]] 2]}', "not JSON: unexpected character at byte 12"),
    (b'{"x":[{"y":[[]]}]', "not JSON: ends early at byte 17"),
    (b'{"x":[1 2]}', "not JSON: unexpected character at byte 8"),
    (b'{"x":[1}', "not JSON: unexpected character at byte 7"),
    (b'{"x":{"y":1]', "not JSON: unexpected character at byte 11"),
    (b'{"x":1,}', "not JSON: unexpected character at byte 7"),
    (b'{,"x":1}', "not JSON: unexpected character at byte 1"),
    (b'{"x" 1}', "not JSON: unexpected character at byte 5"),
    (b'{"x":}', "not JSON: unexpected character at byte 5"),
    (b"{'x':1}", "not JSON: unexpected character at byte 1"),
    (b"{1:1}", "not JSON: unexpected character at byte 1"),
    (b'{"x":1 /*c*/}', "not JSON: unexpected character at byte 7"),
    (b'{"id":"a\nb"}', "not JSON: unexpected character at byte 8"),
    (b'{"id":"a\x00b"}', "not JSON: unexpected character at byte 8"),
    (b'{"id":"\\x41"}', "not JSON: unexpected character at byte 8"),
    (b'{"id":"\\u00g0"}', "not JSON: unexpected character at byte 11"),
    (b'{"id":"\\u00', "not JSON: ends early at byte 11"),
    (b'{"id":"\\', "not JSON: ends early at byte 8"),
    (b'{"id":"m', "not JSON: ends early at byte 8"),
    (b'{"id":"m"', "not JSON: ends early at byte 9"),
    (b'{"id":"m",', "not JSON: ends early at byte 10"),
    (b'{"id"', "not JSON: ends early at byte 5"),
    (b"{", "not JSON: ends early at byte 1"),
    (b'{"\xc3\xa9":1,"y":x}', "not JSON: unexpected character at byte 12"),
    (b"{}}", "not JSON: more after the value at byte 2"),
    (b'{"id":"m"}\n{"id":"n"}', "not JSON: more after the value at byte 11"),
    (b"nullx", "not JSON: more after the value at byte 4"),
    (b"01", "not JSON: more after the value at byte 1"),
    (b"[] x", "not JSON: more after the value at byte 3"),
    # depth and grammar, whichever comes first
    (b"[" * 129, "nested deeper than 128 at byte 128"),
    (b" [" * 129, "nested deeper than 128 at byte 257"),
    (b'{"x":' * 129, "nested deeper than 128 at byte 640"),
    (b"[" * 127 + b"{[", "not JSON: unexpected character at byte 128"),
    (b"[" * 128 + b"x" + b"[" * 9, "not JSON: unexpected character at byte 128"),
    (b"[" * 129 + b"x", "nested deeper than 128 at byte 128"),
    (b"[" * 128 + b"[],", "nested deeper than 128 at byte 128"),
    (b"[" * 128 + b"0,1,{}", "nested deeper than 128 at byte 132"),
    (b'{"x":' + b"[" * 127 + b'"]", [', "nested deeper than 128 at byte 137"),
    (b'{"x":"' + b"[" * 200 + b'",}', "not JSON: unexpected character at byte 208"),
    # the value as a whole
    (b"[]", "expected an object, found array"),
    (b' "id"', "expected an object, found string"),
    (b"5", "expected an object, found number"),
    (b"-0.5e+7\n", "expected an object, found number"),
    (b"false", "expected an object, found bool"),
]


@pytest.mark.parametrize(("data", "text"), REFUSALS, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("decode", DECODE.values(), ids=DECODE)
def test_refusals_name_the_place(decode: Callable[[bytes], Any], data: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode(data)
    assert str(refused.value) == text
    assert refused.value.field is None


FIELD_REFUSALS = [
    (b'{"id":5}', "id", "id: expected a string, found number"),
    (b'{"ID":5}', "id", "id: expected a string, found number"),
    ('{"ta\u017f\u212a_id":true}'.encode(), "task_id", "task_id: expected a string, found bool"),
    (b'{"did":["a"]}', "did", "did: expected a string, found array"),
    (b'{"role":{}}', "role", "role: expected a string, found object"),
    (b'{"payload":[7]}', "payload", "payload: expected a base64 string, found array"),
    (b'{"signature":1e9}', "signature", "signature: expected a base64 string, found number"),
    (b'{"metadata":"x"}', "metadata", "metadata: expected an object of strings, found string"),
    (b'{"metadata":[]}', "metadata", "metadata: expected an object of strings, found array"),
    (
        b'{"metadata":{"a":"b","c":1}}',
        "metadata",
        "metadata: expected an object of strings, found number in a value",
    ),
    (
        b'{"metadata":{"c":{"d":[]}}}',
        "metadata",
        "metadata: expected an object of strings, found object in a value",
    ),
    (b'{"payload":"QU,D"}', "payload", "payload: illegal base64 character at 2"),
    (b'{"payload":"\\nQUI\\u00e9="}', "payload", "payload: illegal base64 character at 4"),
    (b'{"payload":"QUJD\\ud800"}', "payload", "payload: illegal base64 character at 4"),
    (b'{"payload":"=*"}', "payload", "payload: illegal base64 character at 1"),
    (b'{"payload":"QQ"}', "payload", "payload: illegal base64 padding"),
    (b'{"payload":"QUJD===="}', "payload", "payload: illegal base64 padding"),
    (b'{"payload":"QUJD="}', "payload", "payload: illegal base64 padding"),
    (b'{"payload":"QQ==QUJD"}', "payload", "payload: illegal base64 padding"),
    (b'{"signature":"Q\\r\\n==="}', "signature", "signature: illegal base64 padding"),
    # the first of several in the text
    (b'{"did":1,"id":2}', "did", "did: expected a string, found number"),
    (b'{"signature":"*","payload":"!","id":5}', "signature", "signature: illegal base64 character at 0"),
    (
        b'{"metadata":{"a":true},"id":5}',
        "metadata",
        "metadata: expected an object of strings, found bool in a value",
    ),
    # even where a later duplicate would have fitted
    (b'{"payload":"*","payload":"QQ=="}', "payload", "payload: illegal base64 character at 0"),
]


@pytest.mark.parametrize(("data", "field", "text"), FIELD_REFUSALS, ids=lambda value: repr(value)[:40])
def test_refusals_name_the_field(data: bytes, field: str, text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_message(data)
    assert str(refused.value) == text
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("data", "field", "text"),
    [
        (b'{"success":"yes"}', "success", "success: expected a bool, found string"),
        (b'{"success":1}', "success", "success: expected a bool, found number"),
        (b'{"message_id":false}', "message_id", "message_id: expected a string, found bool"),
        (b'{"data":{}}', "data", "data: expected a base64 string, found object"),
        (b'{"data":"*"}', "data", "data: illegal base64 character at 0"),
        (b'{"error":5}', "error", "error: expected a string, found number"),
    ],
)
def test_refusals_name_the_responses_field(data: bytes, field: str, text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_response(data)
    assert str(refused.value) == text
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"id":5,}', "not JSON: unexpected character at byte 8"),
        (b'{"payload":"*"} x', "not JSON: more after the value at byte 16"),
        (b'{"id":5', "not JSON: ends early at byte 7"),
        (b"5 5", "not JSON: more after the value at byte 2"),
        (b'{"id":' + b"[" * 128, "nested deeper than 128 at byte 133"),
    ],
)
def test_the_grammar_comes_before_types(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_message(data)
    assert str(refused.value) == text


def test_as_deep_as_allowed() -> None:
    assert decode_message(b'{"id":"m","x":' + b"[" * 127 + b"]" * 127 + b"}")[0] == "m"
    assert decode_message(b'{"x":' * 127 + b"{}" + b"}" * 127) == decode_message(b"{}")


def test_wide_is_not_deep() -> None:
    assert decode_message(b'{"id":"m","x":[' + b"[],{}," * 500 + b'"[[[["]}')[0] == "m"


def test_numbers_of_any_length_are_skipped() -> None:
    digits = b"9" * 100_000
    assert decode_message(b'{"x":%b,"y":-%b.%be-%b,"id":"m"}' % ((digits,) * 4))[0] == "m"


def test_a_string_and_its_escapes() -> None:
    text = b'{"id":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\x7f \xf0\x9f\x98\x80"}'
    assert decode_message(text)[0] == '"\\/\b\f\n\r\t\u00e9\U0001f600\x7f \U0001f600'


def test_a_lone_surrogate_is_replaced_wherever_it_stands() -> None:
    text = (
        b'{"\\ud800":1,"id":"a\\ud800","did":"\\udc00\\ud83d\\ude00\\ud83d","metadata":{"\\uDFFF":"\\uDBFF"}}'
    )
    message = decode_message(text)
    assert message[0] == "a\ufffd"
    assert message[4] == "\ufffd\U0001f600\ufffd"
    assert message[6] == {"\ufffd": "\ufffd"}


def test_go_escapes_for_html_and_javascript() -> None:
    wire = encode_message(
        "<&>", "\u2028", "\u2029", b"", '\x00\x1f\x7f"\\/', b"", {"\u00e9<": "\n"}, "\U0001f600"
    )
    assert (
        wire
        == (
            '{"id":"\\u003c\\u0026\\u003e","context_id":"\\u2028","task_id":"\\u2029","payload":null,'
            '"did":"\\u0000\\u001f\x7f\\"\\\\/","signature":null,"metadata":{"\u00e9\\u003c":"\\n"},'
            '"role":"\U0001f600"}\n'
        ).encode()
    )


@pytest.mark.parametrize("place", [0, 1, 2, 4, 7])
def test_a_string_with_a_surrogate_cannot_be_encoded(place: int) -> None:
    fields: list[Any] = ["", "", "", b"", "", b"", {}, ""]
    fields[place] = "\u00e9<\ud800"
    with pytest.raises(UnicodeEncodeError) as refused:
        encode_message(*fields)
    assert refused.value.start == 2
    with pytest.raises(UnicodeEncodeError):
        encode_response(True, "m", "t", b"", "\udfff")


@pytest.mark.parametrize("metadata", [{"\ud800": ""}, {"": "\ud800"}])
def test_metadata_with_a_surrogate_cannot_be_encoded(metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="^metadata holds a lone surrogate$"):
        encode_message("", "", "", b"", "", b"", metadata, "")


def test_metadata_is_sorted_by_its_bytes() -> None:
    keys = ["b", "\U0001f600", "\uffff", "a", "", "B"]
    wire = encode_message("", "", "", b"", "", b"", dict.fromkeys(keys, ""), "")
    assert list(json.loads(wire)["metadata"]) == ["", "B", "a", "b", "\uffff", "\U0001f600"]


MEGABYTES = 10_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MEGABYTES,
        b'{"x":' + b"[" * MEGABYTES,
        b'{"":' * (MEGABYTES // 4),
        b" " * MEGABYTES,
        b'{"x":' + b"1" * MEGABYTES + b"x",
        b'{"x":"' + b"\\n[" * (MEGABYTES // 3) + b"\x01",
    ],
    ids=["brackets", "brackets in an object", "objects", "white", "digits", "string"],
)
def test_hostile_megabytes_are_refused_at_once(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(DecodeError):
        decode_message(data)
    assert time.process_time() - started < 20


def test_a_wide_text_takes_linear_time() -> None:
    def seconds(items: int) -> float:
        data = b'{"x":[' + b'[["a",{"b":[1]}],2],' * items + b"x"
        started = time.process_time()
        with pytest.raises(DecodeError):
            decode_message(data)
        return time.process_time() - started

    # Ten times the text in ten times the time, with room for a busy machine; quadratic would be a hundred.
    assert seconds(50_000) < 40 * max(seconds(5_000), 0.005)
