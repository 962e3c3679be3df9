"""The server's end: requests in, answers out, and what is answered without asking anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from sage_ws._core import Response, SecureMessage, encode_message, encode_response
from sage_ws._core.events import Closing, Undecodable
from sage_ws.errors import DecodeError, MessageTooBigError

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
REQUEST = SecureMessage(b"hi", "did:x", "m-1", b"sig", "ctx", "task", {"b": "2", "a": "1"}, "user")
WIRE = encode_message("m-1", "ctx", "task", b"hi", "did:x", b"sig", {"b": "2", "a": "1"}, "user")


def _answers(endpoint: Any) -> list[dict[str, Any]]:
    frames = endpoint.sent()
    assert all(opcode == TEXT and payload.endswith(b"}\n") for opcode, payload in frames)
    return [json.loads(payload) for _, payload in frames]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_request(server: Any, opcode: int) -> None:
    assert not server.connection.spoken
    (message,) = server.receive(server.frame(opcode, WIRE))
    assert type(message) is SecureMessage
    assert message == REQUEST
    assert message.metadata == {"a": "1", "b": "2"}
    assert message.metadata is message.metadata
    assert server.sent() == []
    assert server.connection.spoken
    assert server.connection.counters() == {
        "sent": 0,
        "received": 1,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }


def test_several_requests_in_order(server: Any) -> None:
    wires = [encode_message(f"m-{number}", "", "", b"x", "d", b"", {}, "") for number in range(50)]
    received = server.receive(*(server.frame(TEXT, wire) for wire in wires))
    assert [message.id for message in received] == [f"m-{number}" for number in range(50)]


def test_what_is_received_is_as_frozen_as_what_is_built(server: Any) -> None:
    (message,) = server.receive(server.frame(TEXT, WIRE))
    with pytest.raises(AttributeError, match="^cannot assign to field 'id'$"):
        message.id = "other"
    assert hash(message) == hash(REQUEST)
    assert repr(message) == repr(REQUEST)
    assert message.replace(role="agent").role == "agent"
    with pytest.raises(TypeError):
        message.metadata["c"] = "3"


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (b"{}", {"success": False, "message_id": "", "error": "message ID is required"}),
        (b"null", {"success": False, "message_id": "", "error": "message ID is required"}),
        (
            b'{"task_id":"t","did":"d","payload":"aGk="}',
            {"success": False, "message_id": "", "error": "message ID is required"},
        ),
        (
            b'{"id":"m","task_id":"t"}',
            {"success": False, "message_id": "m", "task_id": "t", "error": "DID is required"},
        ),
        (b'{"id":"m","payload":"aGk="}', {"success": False, "message_id": "m", "error": "DID is required"}),
        (
            b'{"id":"m","did":"d","task_id":"t","payload":""}',
            {"success": False, "message_id": "m", "task_id": "t", "error": "payload is required"},
        ),
        (
            b'{"id":"m","did":"d","payload":null}',
            {"success": False, "message_id": "m", "error": "payload is required"},
        ),
        (b'{"id":"m","did":"d"}', {"success": False, "message_id": "m", "error": "payload is required"}),
    ],
)
def test_validation(server: Any, given: bytes, answer: dict[str, Any]) -> None:
    assert server.receive(server.frame(TEXT, given)) == []
    assert _answers(server) == [answer]
    assert server.connection.spoken
    assert server.connection.counters() == {
        "sent": 0,
        "received": 0,
        "late": 0,
        "invalid": 1,
        "unknown": 0,
        "dropped": 0,
    }


# ── what cannot be decoded ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("opcode", "given", "text", "field"),
    [
        (TEXT, b"", "not JSON: ends early at byte 0", None),
        (TEXT, b"hello", "not JSON: unexpected character at byte 0", None),
        (TEXT, b'{"id":5}', "id: expected a string, found number", "id"),
        (TEXT, b'{"payload":"*"}', "payload: illegal base64 character at 0", "payload"),
        (BINARY, b'{"id":"\xff"}', "not UTF-8 at byte 7", None),
        (TEXT, b"[" * 500, "nested deeper than 128 at byte 128", None),
    ],
)
def test_undecodable(server: Any, opcode: int, given: bytes, text: str, field: str | None) -> None:
    (event,) = server.receive(server.frame(opcode, given))
    assert isinstance(event, Undecodable)
    assert type(event.error) is DecodeError
    assert str(event.error) == text
    assert event.error.field == field
    assert _answers(server) == [{"success": False, "message_id": "", "error": text}]
    assert not server.connection.spoken
    assert not server.connection.closing
    assert server.connection.counters() == {
        "sent": 0,
        "received": 0,
        "late": 0,
        "invalid": 1,
        "unknown": 0,
        "dropped": 0,
    }


def test_the_third_in_a_row_ends_it(server: Any) -> None:
    bad = server.frame(TEXT, b"no")
    received = server.receive(bad, bad, bad, bad, server.frame(TEXT, WIRE))
    assert [type(event) for event in received] == [Undecodable, Undecodable, Undecodable, Closing]
    assert received[-1] == Closing(1008, "three undecodable messages in a row", False)
    frames = server.sent()
    assert [opcode for opcode, _ in frames] == [TEXT, TEXT, TEXT, CLOSE]
    assert frames[-1] == (CLOSE, b"\x03\xf0three undecodable messages in a row")
    assert server.receive(server.frame(TEXT, WIRE)) == []


@pytest.mark.parametrize("good", [WIRE, b"{}"], ids=["valid", "refused by validation"])
def test_a_decodable_one_between_starts_anew(server: Any, good: bytes) -> None:
    bad = server.frame(TEXT, b"no")
    received = server.receive(bad, bad, server.frame(TEXT, good), bad, bad)
    assert sum(isinstance(event, Undecodable) for event in received) == 4
    assert not server.connection.closing
    assert server.receive(bad)[-1] == Closing(1008, "three undecodable messages in a row", False)


def test_control_frames_between_do_not_start_anew(server: Any) -> None:
    bad = server.frame(TEXT, b"no")
    received = server.receive(bad, server.frame(PING), bad, server.frame(PONG), bad)
    assert received[-1] == Closing(1008, "three undecodable messages in a row", False)


# ── answers ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (None, b'{"success":true,"message_id":"m-1","task_id":"task"}\n'),
        (b"", b'{"success":true,"message_id":"m-1","task_id":"task"}\n'),
        (b"hi", b'{"success":true,"message_id":"m-1","task_id":"task","data":"aGk="}\n'),
        (Response(data=b"hi"), b'{"success":true,"message_id":"m-1","task_id":"task","data":"aGk="}\n'),
        (
            Response(True, "other", "another"),
            b'{"success":true,"message_id":"other","task_id":"another"}\n',
        ),
        (Response(False), b'{"success":false,"message_id":"m-1","task_id":"task"}\n'),
        (
            Response(True, error="<no>"),
            b'{"success":false,"message_id":"m-1","task_id":"task","error":"\\u003cno\\u003e"}\n',
        ),
        (
            Response.failure("no", data=b"hi"),
            b'{"success":false,"message_id":"m-1","task_id":"task","data":"aGk=","error":"no"}\n',
        ),
    ],
)
def test_responses(server: Any, reply: Any, wire: bytes) -> None:
    buffered = server.connection.send_response(REQUEST, reply)
    assert buffered == server.connection.buffered == len(wire) + 2
    assert server.sent() == [(TEXT, wire)]
    assert server.connection.buffered == 0
    assert server.connection.counters()["sent"] == 1


@pytest.mark.parametrize("reply", [5, "text", bytearray(b"x"), ["x"], REQUEST, True])
def test_a_reply_of_another_type(server: Any, reply: Any) -> None:
    text = f"^a handler must return a Response, bytes or None, not {type(reply).__name__}$"
    with pytest.raises(TypeError, match=text):
        server.connection.send_response(REQUEST, reply)
    assert server.connection.buffered == 0
    assert server.connection.counters()["sent"] == 0


def test_a_response_over_the_limit(make_endpoint: Callable[..., Any]) -> None:
    server = make_endpoint("server", max_message_size=100)
    empty = len(b'{"success":true,"message_id":"m-1","task_id":"task","error":""}\n')
    fits = Response(success=False, error="x" * (100 - empty - 1))  # false is a character longer than true
    assert server.connection.send_response(REQUEST, fits) == 102
    with pytest.raises(
        MessageTooBigError, match="^response of 101 bytes is over max_message_size 100$"
    ) as refused:
        server.connection.send_response(REQUEST, Response(success=False, error="x" * (101 - empty - 1)))
    assert refused.value.message_id == "m-1"
    size = len(encode_response(True, "m-1", "task", b"x" * 1000, ""))
    with pytest.raises(MessageTooBigError, match=f"^response of {size} bytes is over max_message_size 100$"):
        server.connection.send_response(REQUEST, b"x" * 1000)
    assert server.connection.buffered == 102
    assert server.connection.counters()["sent"] == 1


def test_a_keepalive_is_an_answer_to_nothing(server: Any) -> None:
    size = server.connection.send_keepalive()
    assert size == server.connection.buffered
    assert _answers(server) == [{"success": True, "message_id": ""}]
    assert server.connection.counters()["sent"] == 0


def test_a_server_awaits_nothing(server: Any) -> None:
    server.receive(server.frame(TEXT, WIRE))
    assert server.connection.pending == 0
    assert server.connection.earliest == inf
    assert server.connection.expire(1e9) == []
    assert server.connection.abandon() == []
    assert server.connection.forget("m-1") is False


def test_raw_messages_are_not_read(make_endpoint: Callable[..., Any], role: str) -> None:
    endpoint = make_endpoint(role, raw=True)
    assert endpoint.receive(endpoint.frame(TEXT, b"{}"), endpoint.frame(BINARY, WIRE)) == ["{}", WIRE]
    assert endpoint.sent() == []
    assert not endpoint.connection.spoken
    assert endpoint.connection.counters() == {
        "sent": 0,
        "received": 0,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }
