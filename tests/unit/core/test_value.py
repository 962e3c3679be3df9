"""SecureMessage and Response: what they take, refuse, show and promise."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import pickle
import re
import sys
from collections import UserDict
from types import MappingProxyType
from typing import Any

import pytest

from sage_ws._core import Response, SecureMessage
from sage_ws.errors import AnsweredError

MESSAGE_FIELDS = ("payload", "did", "id", "signature", "context_id", "task_id", "metadata", "role")
RESPONSE_FIELDS = ("success", "message_id", "task_id", "data", "error")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

FULL = SecureMessage(b"hello", "did:x", "m-1", b"s", "ctx", "task", {"key": "value"}, "user")
FULL_RESPONSE = Response(False, "m-1", "task", b"data", "went wrong")


def test_the_constructors_order_and_defaults() -> None:
    message = SecureMessage(b"p", "d")
    assert [getattr(message, name) for name in MESSAGE_FIELDS] == [
        b"p", "d", message.id, b"", "", "", {}, "",
    ]  # fmt: skip
    assert [getattr(FULL, name) for name in MESSAGE_FIELDS] == [
        b"hello", "did:x", "m-1", b"s", "ctx", "task", {"key": "value"}, "user",
    ]  # fmt: skip
    response = Response()
    assert [getattr(response, name) for name in RESPONSE_FIELDS] == [True, "", "", b"", ""]
    assert [getattr(FULL_RESPONSE, name) for name in RESPONSE_FIELDS] == [
        False, "m-1", "task", b"data", "went wrong",
    ]  # fmt: skip


def test_every_field_is_a_keyword_too() -> None:
    fields = {name: getattr(FULL, name) for name in MESSAGE_FIELDS}
    assert SecureMessage(**fields) == FULL
    fields = {name: getattr(FULL_RESPONSE, name) for name in RESPONSE_FIELDS}
    assert Response(**fields) == FULL_RESPONSE


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SecureMessage, {}),
        (SecureMessage, {"payload": b""}),
        (SecureMessage, {"payload": b"", "did": "", "ID": ""}),
        (Response, {"code": 1}),
    ],
)
def test_the_constructor_refuses_other_arguments(kind: type, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(**arguments)


@pytest.mark.parametrize(("kind", "fields"), [(SecureMessage, MESSAGE_FIELDS), (Response, RESPONSE_FIELDS)])
def test_where_they_say_they_are_from(kind: type, fields: tuple[str, ...]) -> None:
    assert kind.__module__ == "sage_ws"
    assert kind.__qualname__ in {"SecureMessage", "Response"}
    assert kind.__match_args__ == fields  # type: ignore[attr-defined]
    assert tuple(inspect.signature(kind).parameters) == fields
    assert kind.__doc__


def test_match_statements_take_them_apart() -> None:
    match FULL:
        case SecureMessage(payload, did, id="m-1"):
            assert (payload, did) == (b"hello", "did:x")
        case _:
            pytest.fail("no match")


# ── what is taken and refused ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_copied(kind: type) -> None:
    source = bytearray(b"abc")
    message = SecureMessage(kind(source), "d", signature=kind(source))
    response = Response(data=kind(source))
    source[:] = b"xyz"
    for held in (message.payload, message.signature, response.data):
        assert type(held) is bytes
        assert held == b"abc"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("name", ["did", "id", "context_id", "task_id", "role"])
def test_strings_of_a_message(name: str) -> None:
    fields: dict[str, Any] = {"payload": b"", "did": ""}
    for text in ("plain", "\u00e9", "\U0001f600", "a\0b", Text("kept")):
        assert getattr(SecureMessage(**{**fields, name: text}), name) == text
    with pytest.raises(TypeError, match=f"^{name} must be str, not int$"):
        SecureMessage(**{**fields, name: 5})
    with pytest.raises(TypeError, match=f"^{name} must be str, not bytes$"):
        SecureMessage(**{**fields, name: b"x"})
    with pytest.raises(TypeError, match=f"^{name} must be str, not NoneType$"):
        SecureMessage(**{**fields, name: None})
    with pytest.raises(ValueError, match=f"^{name} holds a lone surrogate at character 2$"):
        SecureMessage(**{**fields, name: "\U0001f600\u00e9\udc00\ud800"})


@pytest.mark.parametrize("name", ["message_id", "task_id", "error"])
def test_strings_of_a_response(name: str) -> None:
    assert getattr(Response(**{name: "\u00e9"}), name) == "\u00e9"
    with pytest.raises(TypeError, match=f"^{name} must be str, not float$"):
        Response(**{name: 1.5})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{name} holds a lone surrogate at character 0$"):
        Response(**{name: "\ud83d"})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["text", 5, None, [1]])
def test_bytes_must_be_bytes(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=f"^payload must be bytes, not {kind}$"):
        SecureMessage(value, "d")
    with pytest.raises(TypeError, match=f"^signature must be bytes, not {kind}$"):
        SecureMessage(b"", "d", signature=value)
    with pytest.raises(TypeError, match=f"^data must be bytes, not {kind}$"):
        Response(data=value)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_success_is_a_bool(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^success must be bool, not {type(value).__name__}$"):
        Response(value)


def test_the_first_wrong_field_is_named() -> None:
    with pytest.raises(TypeError, match="^payload must be bytes, not int$"):
        SecureMessage(1, 2, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^did must be str, not int$"):
        SecureMessage(b"", 2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mapping", [{"b": "2", "a": "1"}, MappingProxyType({"b": "2", "a": "1"}), UserDict(b="2", a="1")]
)
def test_metadata_is_copied_and_read_only(mapping: Any) -> None:
    message = SecureMessage(b"", "d", metadata=mapping)
    assert message.metadata == {"b": "2", "a": "1"}
    assert message.metadata is message.metadata
    assert type(message.metadata) is MappingProxyType
    with pytest.raises(TypeError):
        message.metadata["c"] = "3"  # type: ignore[index]
    if not isinstance(mapping, MappingProxyType):
        mapping["c"] = "3"
        assert "c" not in message.metadata


def test_no_metadata_is_an_empty_mapping() -> None:
    assert SecureMessage(b"", "d").metadata == {}
    assert SecureMessage(b"", "d", metadata={}).metadata == {}


@pytest.mark.parametrize("value", [[], None, "ab", 5, [("a", "b")]])
def test_metadata_is_a_mapping(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^metadata must be a mapping, not {type(value).__name__}$"):
        SecureMessage(b"", "d", metadata=value)


@pytest.mark.parametrize("entries", [{1: "a"}, {"a": 1}, {"a": None}, {b"a": "b"}, {"ok": "ok", "a": b""}])
def test_metadata_maps_str_to_str(entries: Any) -> None:
    with pytest.raises(TypeError, match="^metadata must map str to str$"):
        SecureMessage(b"", "d", metadata=entries)


@pytest.mark.parametrize("entries", [{"\ud800": "a"}, {"a": "\udfff"}, {"a": "\ud800", "\udc00": "b"}])
def test_metadata_holds_no_surrogate(entries: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="^metadata holds a lone surrogate$"):
        SecureMessage(b"", "d", metadata=entries)


def test_surrogates_do_not_pair_over_an_edge() -> None:
    with pytest.raises(ValueError, match="^metadata holds a lone surrogate$"):
        SecureMessage(b"", "d", metadata={"a\ud83d": "\ude00"})


# ── ids ────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_id_is_a_version_4_uuid() -> None:
    ids = {SecureMessage(b"", "d", "").id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(UUID4.fullmatch(text) for text in ids)
    variants = {text[19] for text in ids}
    assert variants == set("89ab")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_makes_other_ids() -> None:
    SecureMessage(b"", "d")  # the parent's source of ids is in use
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, SecureMessage(b"", "d").id.encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert UUID4.fullmatch(theirs)
    assert theirs not in {SecureMessage(b"", "d").id for _ in range(1000)}


# ── frozen, equal, hashed, copied ──────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [FULL, FULL_RESPONSE], ids=["message", "response"])
def test_frozen(value: Any) -> None:
    for name in type(value).__match_args__:
        before = getattr(value, name)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"^cannot assign to field '{name}'$"):
            setattr(value, name, before)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"^cannot delete field '{name}'$"):
            delattr(value, name)
        assert getattr(value, name) == before
    with pytest.raises(AttributeError):
        value.other = 1


@pytest.mark.parametrize("name", MESSAGE_FIELDS)
def test_messages_are_equal_in_every_field(name: str) -> None:
    fields = {field: getattr(FULL, field) for field in MESSAGE_FIELDS}
    same = SecureMessage(**fields)
    assert same == FULL
    assert hash(same) == hash(FULL)
    other = {"metadata": {"key": "other"}}.get(name, b"other" if isinstance(fields[name], bytes) else "other")
    different = SecureMessage(**{**fields, name: other})
    assert different != FULL
    assert (hash(different) == hash(FULL)) is (name == "metadata")


@pytest.mark.parametrize("name", RESPONSE_FIELDS)
def test_responses_are_equal_in_every_field(name: str) -> None:
    fields = {field: getattr(FULL_RESPONSE, field) for field in RESPONSE_FIELDS}
    same = Response(**fields)
    assert same == FULL_RESPONSE
    assert hash(same) == hash(FULL_RESPONSE)
    other = {"success": True, "data": b"other"}.get(name, "other")
    different = Response(**{**fields, name: other})
    assert different != FULL_RESPONSE
    assert hash(different) != hash(FULL_RESPONSE)


def test_equal_to_nothing_else() -> None:
    assert FULL != FULL_RESPONSE
    assert FULL.__eq__("m-1") is NotImplemented
    assert FULL_RESPONSE.__eq__(()) is NotImplemented
    assert FULL != (b"hello", "did:x", "m-1", b"s", "ctx", "task", {"key": "value"}, "user")


def test_the_hash_is_the_fields_tuples() -> None:
    assert hash(FULL) == hash((b"hello", "did:x", "m-1", b"s", "ctx", "task", "user"))
    assert hash(FULL_RESPONSE) == hash((False, "m-1", "task", b"data", "went wrong"))


def test_how_they_are_taken_apart_for_pickling() -> None:
    assert FULL.__reduce__() == (
        SecureMessage,
        (b"hello", "did:x", "m-1", b"s", "ctx", "task", {"key": "value"}, "user"),
    )
    assert type(FULL.__reduce__()[1][6]) is dict  # type: ignore[index]
    assert FULL_RESPONSE.__reduce__() == (Response, (False, "m-1", "task", b"data", "went wrong"))


@pytest.mark.parametrize("value", [FULL, FULL_RESPONSE], ids=["message", "response"])
def test_copies_are_equal(value: Any) -> None:
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value


def test_replace() -> None:
    changed = FULL.replace(role="agent", metadata={})
    assert changed.role == "agent"
    assert changed.metadata == {}
    assert changed.replace(role="user", metadata={"key": "value"}) == FULL
    assert FULL.replace() == FULL
    assert UUID4.fullmatch(FULL.replace(id="").id)
    assert FULL.__replace__(did="other").did == "other"  # type: ignore[attr-defined]
    assert FULL_RESPONSE.__replace__(error="").error == ""  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        FULL.replace(nothing=1)
    with pytest.raises(TypeError):
        FULL_RESPONSE.__replace__(nothing=1)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="^did must be str, not int$"):
        FULL.replace(did=1)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace is of Python 3.13")
def test_copy_replace() -> None:
    assert copy.replace(FULL, role="agent").role == "agent"  # type: ignore[attr-defined, unused-ignore]
    assert copy.replace(FULL_RESPONSE, error="").error == ""  # type: ignore[attr-defined, unused-ignore]


# ── what they show ─────────────────────────────────────────────────────────────────────


def test_a_repr_shows_no_payload() -> None:
    assert repr(FULL) == (
        "SecureMessage(id='m-1', did='did:x', payload=<5 bytes>, signature=<1 byte>, context_id='ctx', "
        "task_id='task', metadata=<1 entry>, role='user')"
    )
    assert repr(FULL.replace(payload=b"", signature=b"", metadata={"a": "1", "b": "2"})) == (
        "SecureMessage(id='m-1', did='did:x', payload=<0 bytes>, signature=<0 bytes>, context_id='ctx', "
        "task_id='task', metadata=<2 entries>, role='user')"
    )
    assert "metadata=<0 entries>" in repr(FULL.replace(metadata={}))
    assert repr(FULL_RESPONSE) == (
        "Response(success=False, message_id='m-1', task_id='task', data=<4 bytes>, error='went wrong')"
    )
    assert repr(Response(data=b"x")) == (
        "Response(success=True, message_id='', task_id='', data=<1 byte>, error='')"
    )


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        'say "hi"',
        'it\'s "both"',
        "back\\slash",
        "\n\r\t\0\x1b\x7f",
        "\u00e9\u00ad\u200b\u2028",
        "\U0001f600\U000e0001\uffff\u0378",
    ],
)
def test_strings_are_shown_as_python_does(text: str) -> None:
    assert repr(Response(error=text)).endswith(f"error={text!r})")
    assert f"did={text!r}, payload" in repr(SecureMessage(b"", text, "i"))


def test_long_strings_are_cut() -> None:
    assert repr(Response(error="\u00e9" * 200)).endswith("error='" + "\u00e9" * 200 + "')")
    assert repr(Response(error="\u00e9" * 201)).endswith("error='" + "\u00e9" * 200 + "'…)")
    assert repr(Response(error="x" * 200 + "'")).endswith("error='" + "x" * 200 + "'…)")


# ── answers ────────────────────────────────────────────────────────────────────────────


def test_failure() -> None:
    assert Response.failure("no") == Response(False, "", "", b"", "no")
    assert Response.failure("no", data=b"why") == Response(False, "", "", b"why", "no")
    with pytest.raises(TypeError):
        Response.failure("no", b"why")  # type: ignore[misc]


def test_raise_for_error() -> None:
    response = Response(True, data=b"x")
    assert response.raise_for_error() is response
    with pytest.raises(AnsweredError, match="^went wrong$") as answered:
        FULL_RESPONSE.raise_for_error()
    assert answered.value.response is FULL_RESPONSE
    with pytest.raises(AnsweredError):
        Response(False).raise_for_error()
