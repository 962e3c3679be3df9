"""An extended connection: requests both ways, answers in parts, and what else two ends of ours say."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from typing import Any

import cbor2
import pytest

from sage_ws import ClosedError, DuplicateIdError, MessageTooBigError, Response, SecureMessage
from sage_ws._core.events import Cancel, Closing, Credit, GoAway, Part, Undecodable

TEXT, BINARY, CLOSE = 1, 2, 8
NORMAL = (1000).to_bytes(2, "big")
NAMES = ["kind", "id", "context_id", "task_id", "payload", "did", "signature", "metadata", "role", "success"]
NAMES += ["message_id", "data", "error", "deadline_ms", "credit", "more", "reason"]
KINDS = ["request", "response", "cancel", "credit", "goaway"]
ASKED = SecureMessage(b"x", "d", "m-1", task_id="t")


class End:
    """An endpoint of the core's conftest, and its peer's messages by their fields."""

    def __init__(self, endpoint: Any, subprotocol: str, role: str) -> None:
        self.role = role
        self.endpoint = endpoint
        self.connection = endpoint.connection
        self.is_cbor = subprotocol == "sage.1.cbor"

    def counts(self, role: str) -> dict[str, int]:
        """What was sent and received as this role does in plain SAGE; whole answers, however many parts."""
        counters, back = self.connection.counters(), self.connection.counters_back()
        of_its_own = {name: counters[name] for name in back}
        return of_its_own if role == self.role else back

    def frame(self, **fields: Any) -> bytes:
        if not self.is_cbor:
            return bytes(self.endpoint.frame(TEXT, json.dumps(fields).encode()))
        numbered = {NAMES.index(name): value for name, value in fields.items()}
        if "kind" in fields:
            numbered[0] = KINDS.index(fields["kind"])
        return bytes(self.endpoint.frame(BINARY, cbor2.dumps(numbered, canonical=True)))

    def receive(self, *messages: dict[str, Any]) -> list[Any]:
        received: list[Any] = self.connection.receive_data(b"".join(self.frame(**one) for one in messages))
        return received

    def sent(self) -> list[dict[str, Any]]:
        """The messages, by their fields."""
        found = []
        for opcode, payload in self.endpoint.sent():
            assert opcode == (BINARY if self.is_cbor else TEXT)
            message = cbor2.loads(payload) if self.is_cbor else json.loads(payload)
            if self.is_cbor:
                message = {NAMES[number]: value for number, value in message.items()}
                message["kind"] = KINDS[message["kind"]]
            found.append(message)
        return found


@pytest.fixture(params=["sage.1.json", "sage.1.cbor"])
def subprotocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def one(role: str, make_endpoint: Callable[..., Any], subprotocol: str) -> End:
    """Either end: both do the same."""
    return End(make_endpoint(role, subprotocol=subprotocol), subprotocol, role)


def request_from(end: End, **fields: Any) -> dict[str, Any]:
    payload = b"x" if end.is_cbor else "eA=="
    return {"kind": "request", "id": "p-1", "did": "d", "payload": payload, "task_id": "t", **fields}


def answer(**fields: Any) -> dict[str, Any]:
    return {"kind": "response", "success": True, "message_id": "m-1", **fields}


# ── answers ─────────────────────────────────────────────────────────────────────────────
def test_parts_and_the_last(one: End) -> None:
    waiter = object()
    one.connection.send_message(ASKED, waiter, 5.0)
    part = answer(more=True)
    first, second, last = one.receive(part, answer(more=True, task_id="other"), answer(error="but"))
    assert first == Part(waiter, Response(True, "m-1", "t"))
    assert second == Part(waiter, Response(True, "m-1", "other"))
    assert last == (waiter, Response(False, "m-1", "t", b"", "but"))
    assert first.waiter is second.waiter is last[0] is waiter
    assert type(last) is tuple
    assert one.connection.pending == 0
    assert one.receive(part, answer()) == []
    assert one.connection.counters()["late"] == 2
    assert one.counts("client") == {"sent": 1, "received": 1}


def test_a_call_in_parts_expires_and_is_forgotten_like_any_other(one: End) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    one.receive(answer(more=True))
    assert one.connection.expire(4.9) == []
    assert one.connection.expire(5.0) == [("waiter", "m-1")]
    one.connection.send_message(ASKED, "waiter", inf)
    assert one.connection.forget("m-1")
    assert one.receive(answer(more=True)) == []
    assert one.connection.counters()["late"] == 1


def test_an_answer_to_nobody_is_late_be_it_empty(one: End) -> None:
    assert one.receive({"kind": "response", "success": True}) == []
    assert one.connection.counters()["late"] == 1


@pytest.mark.parametrize("more", [True, False])
def test_a_bad_answer_ends_its_call(one: End, more: bool) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    ((waiter, error),) = one.receive(answer(error=5, more=more))
    assert (waiter, str(error), error.field) == ("waiter", "error: expected a string, found number", "error")
    assert one.connection.pending == 0
    assert one.sent()[1:] == []
    assert one.connection.counters()["invalid"] == 1


def test_of_another_kind_a_message_id_is_not_believed(one: End) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    (event,) = one.receive({"kind": "cancel", "id": 5, "message_id": "m-1"})
    assert isinstance(event, Undecodable)
    assert one.connection.pending == 1


# ── requests ────────────────────────────────────────────────────────────────────────────
def test_a_request_and_its_answer(one: End) -> None:
    (message,) = one.receive(request_from(one))
    assert message == SecureMessage(b"x", "d", "p-1", task_id="t")
    one.connection.send_response(message, b"part", True)
    one.connection.send_response(message, None)
    part, last = one.sent()
    assert (part.pop("more"), part.pop("data")) == (True, b"part" if one.is_cbor else "cGFydA==")
    assert part == last == {"kind": "response", "task_id": "t", "success": True, "message_id": "p-1"}
    assert one.counts("server") == {"sent": 1, "received": 1}


@pytest.mark.parametrize(
    ("absent", "text", "ids"),
    [
        ("id", "message ID is required", {}),
        ("did", "DID is required", {"task_id": "t", "message_id": "p-1"}),
        ("payload", "payload is required", {"task_id": "t", "message_id": "p-1"}),
    ],
)
def test_a_request_that_lacks_something(one: End, absent: str, text: str, ids: dict[str, str]) -> None:
    request = request_from(one)
    del request[absent]
    assert one.receive(request) == []
    assert one.sent() == [{"kind": "response", "success": False, "error": text, **ids}]
    assert one.connection.counters()["invalid"] == 1


def test_ids_of_both_ends_are_their_own(one: End) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    (message,) = one.receive(request_from(one, id="m-1"))
    one.connection.send_response(message, None)
    with pytest.raises(DuplicateIdError):
        one.connection.send_message(ASKED, "waiter", 5.0)
    assert one.receive(answer()) == [("waiter", Response(True, "m-1", "t"))]


def test_three_undecodable_messages_end_a_server(make_endpoint: Callable[..., Any], subprotocol: str) -> None:
    server = End(make_endpoint("server", subprotocol=subprotocol), subprotocol, "server")
    bad = {"kind": "cancel", "id": 5}
    text = "id: expected a string, found number"
    first, second, _ = server.receive(bad, bad, {"kind": "goaway"})
    assert [str(event.error) for event in (first, second)] == [text, text]
    assert server.sent() == [{"kind": "response", "success": False, "error": text}] * 2
    *_, closing = server.receive(bad, bad, bad)
    assert closing == Closing(1008, "three undecodable messages in a row", False)


def test_a_client_goes_on(make_endpoint: Callable[..., Any], subprotocol: str) -> None:
    client = End(make_endpoint("client", subprotocol=subprotocol), subprotocol, "client")
    events = client.receive(*[{"kind": "cancel", "id": 5}] * 4)
    assert [type(event) for event in events] == [Undecodable] * 4
    assert client.sent() == []
    assert not client.connection.closing


# ── notes ───────────────────────────────────────────────────────────────────────────────
def test_notes(one: End) -> None:
    connection = one.connection
    before = connection.buffered
    assert connection.send_cancel("m-1") > before
    connection.send_credit("m-1", 3)
    connection.send_goaway()
    assert connection.send_goaway("soon") == connection.buffered
    assert one.sent() == [
        {"kind": "cancel", "id": "m-1"},
        {"kind": "credit", "id": "m-1", "credit": 3},
        {"kind": "goaway"},
        {"kind": "goaway", "reason": "soon"},
    ]
    assert connection.counters()["sent"] == 0


def test_notes_that_say_little(one: End) -> None:
    events = one.receive({"kind": "cancel"}, {"kind": "credit", "id": "m"}, {"kind": "goaway"})
    assert events == [Cancel(""), Credit("m", 0), GoAway("")]


def test_a_note_over_the_limit_is_let_be(make_endpoint: Callable[..., Any], subprotocol: str) -> None:
    client = make_endpoint("client", subprotocol=subprotocol, max_message_size=40)
    assert client.connection.send_goaway("x" * 41) == 0
    assert client.sent() == []


# ── sizes ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("size", [20, 600])
def test_what_is_too_big_says_its_size(
    make_endpoint: Callable[..., Any], subprotocol: str, size: int
) -> None:
    message = SecureMessage(bytes(size), "d", "m", bytes(size), metadata={"b": "", "aa": "<"})
    free = make_endpoint("server", subprotocol=subprotocol)
    free.connection.send_message(message, None, inf, 1.5, 3)
    free.connection.send_response(message, bytes(size), True)
    of_request, of_response = (len(payload) for _, payload in free.sent())
    sends: list[tuple[int, Callable[[Any], Any]]] = [
        (of_request, lambda connection: connection.send_message(message, None, inf, 1.5, 3)),
        (of_response, lambda connection: connection.send_response(message, bytes(size), True)),
    ]
    for exact, send in sends:
        one = make_endpoint("server", subprotocol=subprotocol, max_message_size=exact - 1)
        with pytest.raises(MessageTooBigError) as raised:
            send(one.connection)
        assert f" of {exact} bytes is over max_message_size {exact - 1}" in str(raised.value)
        assert (one.sent(), one.connection.pending) == ([], 0)
        one = make_endpoint("server", subprotocol=subprotocol, max_message_size=exact)
        send(one.connection)
        assert [len(payload) for _, payload in one.sent()] == [exact]


# ── closing ─────────────────────────────────────────────────────────────────────────────
def test_after_closing_answers_alone_are_taken(one: End) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    one.connection.send_close()
    one.endpoint.sent()
    connection = one.connection
    assert connection.send_cancel("m") == connection.send_credit("m", 1) == connection.send_goaway() == 0
    assert connection.send_response(ASKED, b"", True) == 0
    with pytest.raises(ClosedError):
        connection.send_message(ASKED, "other", inf)
    events = one.receive(
        request_from(one),
        request_from(one, did=""),
        {"kind": "cancel", "id": "m"},
        {"kind": "credit", "id": "m"},
        {"kind": "goaway"},
        answer(more=True),
        answer(),
    )
    response = Response(True, "m-1", "t")
    assert events == [Part("waiter", response), ("waiter", response)]
    bad = one.receive(*[{"kind": 5}] * 4) if not one.is_cbor else []
    assert [type(event) for event in bad] == (
        [] if one.endpoint.role == "server" or one.is_cbor else [Undecodable] * 4
    )
    assert one.endpoint.receive(one.endpoint.frame(CLOSE, NORMAL)) == [Closing(1000, "", True)]
    assert one.endpoint.sent() == []


def test_a_bad_answer_after_closing(one: End) -> None:
    one.connection.send_message(ASKED, "waiter", 5.0)
    one.connection.send_close()
    ((waiter, error),) = one.receive(answer(error=5))
    assert (waiter, error.field) == ("waiter", "error")


# ── plain ───────────────────────────────────────────────────────────────────────────────
def test_plain_is_as_ever(endpoint: Any) -> None:
    connection = endpoint.connection
    assert not connection.extended
    assert connection.send_cancel("m") == connection.send_credit("m", 1) == connection.send_goaway("x") == 0
    with pytest.raises(ValueError, match="a response in parts needs an extended connection"):
        connection.send_response(ASKED, b"", True)
    connection.send_message(ASKED, None, inf)
    ((_, written),) = endpoint.sent()
    connection.forget("m-1")
    connection.send_message(ASKED, None, inf, 1.5, 7)
    assert endpoint.sent() == [(TEXT, written)]


def test_an_extended_connection_needs_no_keepalives(one: End) -> None:
    assert one.connection.extended
    one.connection.send_message(ASKED, None, inf)
    one.endpoint.sent()
    assert one.connection.send_keepalive() == 0


def test_raw_messages_are_not_read(make_endpoint: Callable[..., Any], role: str) -> None:
    raw = make_endpoint(role, raw=True, subprotocol="sage.1.cbor")
    assert raw.receive(raw.frame(TEXT, b"a"), raw.frame(BINARY, b"b")) == ["a", b"b"]
