"""The client's end: requests out, answers in, each to the one who waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from sage_ws._core import Response, SecureMessage, encode_message, encode_response
from sage_ws._core.events import Pong, Undecodable
from sage_ws.errors import DecodeError, DuplicateIdError, MessageTooBigError

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MESSAGE = SecureMessage(b"hi", "did:x", "m-1", b"sig", "ctx", "task", {"k": "v"}, "user")
WIRE = encode_message("m-1", "ctx", "task", b"hi", "did:x", b"sig", {"k": "v"}, "user")


def _message(name: str, **fields: Any) -> SecureMessage:
    return SecureMessage(b"x", "did:x", name, **fields)


def _answer(endpoint: Any, wire: bytes, opcode: int = TEXT) -> list[Any]:
    return endpoint.receive(endpoint.frame(opcode, wire))


def test_a_message_out(client: Any) -> None:
    waiter = object()
    size = client.connection.send_message(MESSAGE, waiter, inf)
    assert size == client.connection.buffered == len(WIRE) + 8
    assert client.sent() == [(TEXT, WIRE)]
    assert client.connection.pending == 1
    assert client.connection.counters() == {
        "sent": 1,
        "received": 0,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }


def test_messages_of_every_size(client: Any) -> None:
    for size in [*range(1, 300), 5_000, 49_000, 70_000]:
        client.connection.send_message(SecureMessage(bytes(size), "d", f"m-{size}"), None, inf)
        ((opcode, wire),) = client.sent()
        assert opcode == TEXT
        assert wire == encode_message(f"m-{size}", "", "", bytes(size), "d", b"", {}, "")


def test_masking_keys_are_fresh(client: Any) -> None:
    keys = set()
    for number in range(500):
        client.connection.send_message(_message(f"m-{number}"), None, inf)
        keys.add(client.connection.data_to_send()[2:6])
    assert len(keys) > 495


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_answer_in(client: Any, opcode: int) -> None:
    waiter = object()
    client.connection.send_message(MESSAGE, waiter, inf)
    ((taken, response),) = _answer(client, encode_response(True, "m-1", "task", b"data", ""), opcode)
    assert taken is waiter
    assert type(response) is Response
    assert response == Response(True, "m-1", "task", b"data", "")
    assert client.connection.pending == 0
    assert client.connection.spoken
    assert client.connection.counters() == {
        "sent": 1,
        "received": 1,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }
    # Only once.
    assert _answer(client, encode_response(True, "m-1", "", b"", "")) == []
    assert client.connection.counters()["late"] == 1


def test_answers_in_any_order(client: Any) -> None:
    names = [f"m-{number}" for number in range(20)]
    for name in names:
        client.connection.send_message(_message(name), f"waiter of {name}", inf)
    wires = [encode_response(True, name, "", name.encode(), "") for name in reversed(names)]
    received = client.receive(*(client.frame(TEXT, wire) for wire in wires))
    assert received == [
        (f"waiter of {name}", Response(True, name, "", name.encode(), "")) for name in reversed(names)
    ]


@pytest.mark.parametrize(
    ("wire", "response"),
    [
        (b'{"success":true,"message_id":"m-1","error":"e"}', Response(False, "m-1", "task", b"", "e")),
        (b'{"success":true,"message_id":"m-1"}', Response(True, "m-1", "task")),
        (b'{"success":true,"message_id":"m-1","task_id":"other"}', Response(True, "m-1", "other")),
        (b'{"message_id":"m-1"}', Response(False, "m-1", "task")),
        (b'{"Message_ID":"m-1","SUCCESS":true,"x":[{}]}', Response(True, "m-1", "task")),
    ],
)
def test_what_the_client_fills_in(client: Any, wire: bytes, response: Response) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    assert _answer(client, wire) == [("waiter", response)]


def test_an_answer_to_nobody_is_late(client: Any) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    assert _answer(client, encode_response(True, "m-2", "", b"", "")) == []
    assert _answer(client, b"{}") == []
    assert client.connection.counters() == {
        "sent": 1,
        "received": 0,
        "late": 2,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }
    assert client.connection.pending == 1
    assert client.connection.spoken


@pytest.mark.parametrize(
    ("wire", "text", "field"),
    [
        (b'{"message_id":"m-1","data":"*"}', "data: illegal base64 character at 0", "data"),
        (b'{"success":"yes","message_id":"m-1"}', "success: expected a bool, found string", "success"),
        (
            b'{"message_id":5,"message_id":"m-1"}',
            "message_id: expected a string, found number",
            "message_id",
        ),
    ],
)
def test_a_wrong_answer_to_somebody(client: Any, wire: bytes, text: str, field: str) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    ((waiter, error),) = _answer(client, wire)
    assert waiter == "waiter"
    assert type(error) is DecodeError
    assert str(error) == text
    assert error.field == field
    assert client.connection.pending == 0
    assert not client.connection.spoken
    assert client.connection.counters() == {
        "sent": 1,
        "received": 0,
        "late": 0,
        "invalid": 1,
        "unknown": 0,
        "dropped": 0,
    }


@pytest.mark.parametrize(
    ("opcode", "wire", "text"),
    [
        (TEXT, b'{"message_id":"m-1"', "not JSON: ends early at byte 19"),
        (TEXT, b'{"message_id":"m-2","data":"*"}', "data: illegal base64 character at 0"),
        (TEXT, b'{"data":7}', "data: expected a base64 string, found number"),
        (TEXT, b'{"message_id":["m-1"]}', "message_id: expected a string, found array"),
        (BINARY, b'{"message_id":"m-1"}\xff', "not UTF-8 at byte 20"),
    ],
)
def test_an_undecodable_answer_to_nobody(client: Any, opcode: int, wire: bytes, text: str) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    client.sent()
    for count in range(1, 6):
        (event,) = _answer(client, wire, opcode)
        assert isinstance(event, Undecodable)
        assert str(event.error) == text
        assert client.connection.counters() == {
            "sent": 1,
            "received": 0,
            "late": 0,
            "invalid": count,
            "unknown": 0,
            "dropped": 0,
        }
    assert client.sent() == []
    assert client.connection.pending == 1
    assert not client.connection.closing


# ── what is refused ────────────────────────────────────────────────────────────────────


def test_an_id_in_flight(client: Any) -> None:
    client.connection.send_message(MESSAGE, "first", inf)
    before = client.connection.buffered
    with pytest.raises(DuplicateIdError, match="^a message with id 'm-1' is in flight$") as refused:
        client.connection.send_message(MESSAGE.replace(payload=b"other"), "second", 0.0)
    assert refused.value.message_id == "m-1"
    assert client.connection.buffered == before
    assert client.connection.earliest == inf
    assert _answer(client, encode_response(True, "m-1", "", b"", ""))[0][0] == "first"
    client.connection.send_message(MESSAGE, "again", inf)
    assert client.connection.counters()["sent"] == 2


def test_the_id_is_escaped_and_cut_in_the_text(client: Any) -> None:
    name = "\u00e9\n'" * 100
    client.connection.send_message(_message(name), None, inf)
    with pytest.raises(DuplicateIdError) as refused:
        client.connection.send_message(_message(name), None, inf)
    assert str(refused.value) == f"a message with id {name[:200]!a} … (300 characters) is in flight"
    assert refused.value.message_id == name


def test_a_message_over_the_limit(make_endpoint: Callable[..., Any]) -> None:
    size = len(WIRE)
    exact = make_endpoint("client", max_message_size=size)
    assert exact.connection.send_message(MESSAGE, None, inf) == size + 8
    tight = make_endpoint("client", max_message_size=size - 1)
    with pytest.raises(
        MessageTooBigError, match=f"^message of {size} bytes is over max_message_size {size - 1}$"
    ) as refused:
        tight.connection.send_message(MESSAGE, None, inf)
    assert refused.value.message_id == "m-1"
    with pytest.raises(MessageTooBigError, match=f"^message of {size - 4 + 13336} bytes is over"):
        tight.connection.send_message(MESSAGE.replace(payload=bytes(10_000)), None, inf)
    assert tight.connection.buffered == 0
    assert tight.connection.pending == 0
    assert tight.connection.counters()["sent"] == 0
    # Nothing of it stays: the DID was not sent either.
    assert tight.connection.send_keepalive() == 0


def test_no_limit(make_endpoint: Callable[..., Any]) -> None:
    client = make_endpoint("client", max_message_size=None)
    payload = bytes(13 * 1024 * 1024)
    client.connection.send_message(SecureMessage(payload, "d", "m"), None, inf)
    assert client.connection.buffered > 17 * 1024 * 1024


# ── who waits, and how long ────────────────────────────────────────────────────────────


def test_forget(client: Any) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    assert client.connection.forget("m-2") is False
    assert client.connection.forget("m-1") is True
    assert client.connection.forget("m-1") is False
    assert client.connection.pending == 0
    assert _answer(client, encode_response(True, "m-1", "", b"", "")) == []
    assert client.connection.counters() == {
        "sent": 1,
        "received": 0,
        "late": 1,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }


def test_an_answer_that_found_nobody_is_late(client: Any) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    assert len(_answer(client, encode_response(True, "m-1", "", b"", ""))) == 1
    client.connection.miss()
    assert client.connection.counters() == {
        "sent": 1,
        "received": 0,
        "late": 1,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }


def test_expire_in_sending_order(client: Any) -> None:
    assert client.connection.earliest == inf
    for name, deadline in [("a", 5.0), ("b", inf), ("c", 3.0), ("d", 4.0), ("e", 9.0)]:
        client.connection.send_message(_message(name), name.upper(), deadline)
    assert client.connection.earliest == 3.0
    assert client.connection.expire(2.9) == []
    assert client.connection.expire(4.0) == [("C", "c"), ("D", "d")]
    assert client.connection.earliest == 5.0
    assert client.connection.pending == 3
    assert client.connection.expire(100.0) == [("A", "a"), ("E", "e")]
    assert client.connection.earliest == inf
    assert client.connection.expire(1e300) == []
    assert client.connection.pending == 1
    assert _answer(client, encode_response(True, "a", "", b"", "")) == []
    assert client.connection.counters()["late"] == 1


def test_earliest_is_a_lower_bound(client: Any) -> None:
    client.connection.send_message(_message("a"), "A", 1.0)
    client.connection.send_message(_message("b"), "B", 2.0)
    _answer(client, encode_response(True, "a", "", b"", ""))
    assert client.connection.earliest <= 2.0
    assert client.connection.expire(1.5) == []
    assert client.connection.earliest == 2.0
    client.connection.send_message(_message("c"), "C", 0.5)
    assert client.connection.earliest == 0.5


def test_abandon_in_sending_order(client: Any) -> None:
    for name in "dacb":
        client.connection.send_message(_message(name), name.upper(), 1.0)
    client.connection.forget("a")
    client.connection.send_message(_message("a"), "A again", 1.0)
    assert client.connection.abandon() == [("D", "d"), ("C", "c"), ("B", "b"), ("A again", "a")]
    assert client.connection.pending == 0
    assert client.connection.abandon() == []
    assert client.connection.expire(inf) == []
    # What is written stays so: it may leave yet.
    assert client.connection.buffered > 0


def test_waiters_are_handed_back_untouched(client: Any) -> None:
    class Waiter:
        def __eq__(self, other: object) -> bool:
            pytest.fail("compared")

        __hash__ = None  # type: ignore[assignment]

    waiters = [Waiter(), Waiter(), Waiter(), None]
    for number, waiter in enumerate(waiters):
        client.connection.send_message(_message(f"m-{number}"), waiter, float(number))
    ((answered, _),) = _answer(client, encode_response(True, "m-1", "", b"", ""))
    assert answered is waiters[1]
    assert client.connection.expire(0.0)[0][0] is waiters[0]
    assert client.connection.abandon()[0][0] is waiters[2]


# ── keepalives ─────────────────────────────────────────────────────────────────────────


def test_no_keepalive_before_a_did_is_known(client: Any) -> None:
    assert client.connection.send_keepalive() == 0
    assert client.sent() == []


def test_a_keepalive_is_a_message_without_payload(client: Any) -> None:
    client.connection.send_message(_message("a").replace(did="did:first"), None, inf)
    client.connection.send_message(_message("b").replace(did="did:last"), None, inf)
    client.sent()
    assert client.connection.send_keepalive() == client.connection.buffered
    ((opcode, wire),) = client.sent()
    assert opcode == TEXT
    sent = json.loads(wire)
    name = sent.pop("id")
    assert len(name) == 36
    assert sent == {"payload": None, "did": "did:last", "signature": None}
    assert client.connection.pending == 2
    assert client.connection.counters()["sent"] == 2
    # Its answer is dropped, once.
    refusal = encode_response(False, name, "", b"", "payload is required")
    assert _answer(client, refusal) == []
    assert client.connection.counters() == {
        "sent": 2,
        "received": 0,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 0,
    }
    assert client.connection.spoken
    assert _answer(client, refusal) == []
    assert client.connection.counters()["late"] == 1


def test_several_keepalives_are_told_from_late_answers(client: Any) -> None:
    client.connection.send_message(_message("a"), None, inf)
    client.sent()
    for _ in range(3):
        client.connection.send_keepalive()
    names = [json.loads(wire)["id"] for _, wire in client.sent()]
    for name in names:
        assert _answer(client, encode_response(False, name, "", b"", "payload is required")) == []
    assert client.connection.counters()["late"] == 0


def test_unanswered_keepalives_are_not_kept_for_ever(client: Any) -> None:
    client.connection.send_message(_message("a"), None, inf)
    client.sent()
    for _ in range(100):
        client.connection.send_keepalive()
    names = [json.loads(wire)["id"] for _, wire in client.sent()]
    for name in names:
        _answer(client, encode_response(False, name, "", b"", "payload is required"))
    assert 0 < client.connection.counters()["late"] < 100


def test_pongs_and_answers_in_order(client: Any) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    answer = client.frame(TEXT, encode_response(True, "m-1", "", b"", ""))
    received = client.receive(client.frame(PONG, b"1"), answer, client.frame(PONG, b"2"))
    assert received == [Pong(b"1"), ("waiter", Response(True, "m-1", "task")), Pong(b"2")]


def test_a_server_s_keepalive_counts_as_nothing(client: Any) -> None:
    assert _answer(client, encode_response(True, "", "", b"", "")) == []
    assert client.connection.counters()["late"] == 0
    # but an error that names no message is the peer's answer to something that it could not read
    assert _answer(client, encode_response(False, "", "", b"", "not JSON")) == []
    assert client.connection.counters()["late"] == 1
