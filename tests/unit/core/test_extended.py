"""The extended wire, read and written: `tests/vectors/extended.json`, in both encodings."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import cbor2
import pytest

from sage_ws import Response, SecureMessage
from sage_ws._core.events import Cancel, Credit, GoAway, Part, Undecodable

TEXT, BINARY = 1, 2
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "extended.json").read_text("utf-8")
)
MESSAGES = {case["name"]: case for case in VECTORS["messages"]}
SUBPROTOCOLS = ["sage.1.json", "sage.1.cbor"]
MESSAGE_FIELDS = SecureMessage.__match_args__
RESPONSE_FIELDS = Response.__match_args__

by_name = pytest.mark.parametrize("name", MESSAGES)
in_both = pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)


def cases(group: str) -> pytest.MarkDecorator:
    """The vectors of one group."""
    found = VECTORS[group]
    return pytest.mark.parametrize("case", found, ids=[one.get("name") or str(one) for one in found])


def fields(name: str) -> dict[str, Any]:
    """A vector's, with its bytes as bytes."""
    given = MESSAGES[name]["fields"].items()
    return {key: bytes.fromhex(value["hex"]) if "hex" in str(value)[:6] else value for key, value in given}


def wire(name: str, subprotocol: str) -> tuple[int, bytes]:
    """Opcode and payload."""
    if subprotocol == "sage.1.json":
        return TEXT, MESSAGES[name]["json"].encode()
    return BINARY, bytes.fromhex(MESSAGES[name]["cbor"])


def sends(endpoint: Any, name: str) -> None:
    """Has the connection send this vector."""
    given = fields(name)
    kind = given.pop("kind")
    connection = endpoint.connection
    if kind == "request":
        remaining, credit = given.pop("deadline_ms", inf), given.pop("credit", 0)
        # Milliseconds of that many digits are not a double's thousandth: but anything longer is cut to them.
        seconds = 1e300 if remaining == 2**53 - 1 else remaining / 1000
        connection.send_message(SecureMessage(**given), None, inf, seconds, credit)
    elif kind == "response":
        more, asked = given.pop("more", False), SecureMessage(b"x", "d", given.get("message_id", "m"))
        connection.send_response(asked, Response(**given), more)
    elif kind == "cancel":
        connection.send_cancel(given["id"])
    elif kind == "credit":
        connection.send_credit(given["id"], given["credit"])
    else:
        connection.send_goaway(given.get("reason", ""))


def expected(name: str, waiter: object) -> list[Any]:
    """What a connection gives for this vector; `waiter` waits for the answer to `m-1`."""
    given = fields(name)
    kind = given.pop("kind")
    if kind == "request":
        return [SecureMessage(**{key: value for key, value in given.items() if key in MESSAGE_FIELDS})]
    if kind == "response":
        if not given.get("message_id"):
            return []
        response = Response(**{key: value for key, value in given.items() if key in RESPONSE_FIELDS})
        return [Part(waiter, response) if given.get("more") else (waiter, response)]
    if kind == "cancel":
        return [Cancel(given["id"])]
    return [Credit(given["id"], given["credit"]) if kind == "credit" else GoAway(given.get("reason", ""))]


# ── the vectors ─────────────────────────────────────────────────────────────────────────
@by_name
@in_both
def test_a_message_is_read(
    endpoint: Any, make_endpoint: Callable[..., Any], name: str, subprotocol: str
) -> None:
    one = make_endpoint(endpoint.role, subprotocol=subprotocol)
    waiter = object()
    one.connection.send_message(SecureMessage(b"x", "d", "m-1"), waiter, inf)
    one.sent()
    received = one.receive(one.frame(*wire(name, subprotocol)))
    assert received == expected(name, waiter)
    assert one.sent() == []
    counters = one.connection.counters()
    assert (counters["unknown"], counters["invalid"]) == (0, 0)
    given = fields(name)
    if given["kind"] == "request":
        milliseconds, credit = given.get("deadline_ms"), given.get("credit")
        if milliseconds is None and credit is None:
            assert received[0]._terms is None
        else:
            assert received[0]._terms == (milliseconds / 1000, credit or 0)


@by_name
@in_both
def test_a_message_is_written(
    endpoint: Any, make_endpoint: Callable[..., Any], name: str, subprotocol: str
) -> None:
    if name == "response, to what could not be decoded":
        return  # what a server answers by itself
    one = make_endpoint(endpoint.role, subprotocol=subprotocol)
    sends(one, name)
    assert one.sent() == [wire(name, subprotocol)]


@by_name
def test_cbor2_says_the_same(name: str) -> None:
    encoded = bytes.fromhex(MESSAGES[name]["cbor"])
    assert cbor2.dumps(cbor2.loads(encoded), canonical=True) == encoded


@by_name
@in_both
def test_a_message_cut_short_is_not_read(
    make_endpoint: Callable[..., Any], name: str, subprotocol: str
) -> None:
    opcode, payload = wire(name, subprotocol)
    payload = payload.rstrip()
    for end in range(len(payload)):
        if not payload[end] & 0x80 or subprotocol == "sage.1.cbor":
            client = make_endpoint("client", subprotocol=subprotocol)
            (event,) = client.receive(client.frame(BINARY, payload[:end]))
            assert isinstance(event, Undecodable)
            assert "ends early" in str(event.error) or "not UTF-8" in str(event.error)


@cases("cbor_refused")
def test_cbor_that_is_refused(endpoint: Any, make_endpoint: Callable[..., Any], case: dict[str, Any]) -> None:
    one = make_endpoint(endpoint.role, subprotocol="sage.1.cbor")
    (event,) = one.receive(one.frame(BINARY, bytes.fromhex(case["cbor"])))
    assert isinstance(event, Undecodable)
    assert (str(event.error), event.error.field) == (case["error"], case.get("field"))
    answer = {0: 1, 9: False, 12: case["error"]}
    answers = [(BINARY, cbor2.dumps(answer))] if one.role == "server" else []
    assert one.sent() == answers


@cases("json_refused")
def test_json_that_is_refused(endpoint: Any, make_endpoint: Callable[..., Any], case: dict[str, Any]) -> None:
    one = make_endpoint(endpoint.role, subprotocol="sage.1.json")
    (event,) = one.receive(one.frame(TEXT, case["json"].encode()))
    assert isinstance(event, Undecodable)
    assert (str(event.error), event.error.field) == (case["error"], case.get("field"))
    answers = [{"kind": "response", "success": False, "error": case["error"]}] if one.role == "server" else []
    assert [json.loads(payload) for _, payload in one.sent()] == answers


@cases("cbor_unknown")
def test_cbor_that_is_counted(make_endpoint: Callable[..., Any], case: dict[str, Any]) -> None:
    client = make_endpoint("client", subprotocol="sage.1.cbor")
    data = bytes.fromhex(case["cbor"])
    known = [GoAway("")] if data[2] == 4 else []
    assert client.receive(client.frame(BINARY, data)) == known
    assert client.connection.counters()["unknown"] == 1
    assert client.connection.spoken


@cases("json_unknown")
def test_json_that_is_counted(make_endpoint: Callable[..., Any], case: dict[str, Any]) -> None:
    client = make_endpoint("client", subprotocol="sage.1.json")
    known = [GoAway("")] if '"goaway"' in case["json"] else []
    assert client.receive(client.frame(TEXT, case["json"].encode())) == known
    assert client.connection.counters()["unknown"] == 1


@cases("json_read")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_json_in_other_words(make_endpoint: Callable[..., Any], case: dict[str, Any], opcode: int) -> None:
    client = make_endpoint("client", subprotocol="sage.1.json")
    received = client.receive(client.frame(opcode, case["json"].encode()))
    assert received == expected(case["same_as"], None)
    assert client.connection.counters()["unknown"] == 0


def test_a_text_message_is_no_cbor(make_endpoint: Callable[..., Any]) -> None:
    client = make_endpoint("client", subprotocol="sage.1.cbor")
    (event,) = client.receive(client.frame(TEXT, b"{}"))
    assert str(event.error) == "expected CBOR, found a TEXT message"


def test_json_in_a_binary_message_is_text(make_endpoint: Callable[..., Any]) -> None:
    client = make_endpoint("client", subprotocol="sage.1.json")
    (event,) = client.receive(client.frame(BINARY, b'{"kind":"\xff"}'))
    assert str(event.error) == "not UTF-8 at byte 9"


# ── hostile sizes ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "item",
    [
        bytes([0x9A]) + (1 << 20).to_bytes(4, "big") + bytes(1 << 20),
        bytes([0x9A]) + (1 << 18).to_bytes(4, "big") + b"\x61a" * (1 << 18),
        bytes([0x9A]) + (1 << 18).to_bytes(4, "big") + b"\x81\x80" * (1 << 18),
        bytes([0x5A]) + (1 << 20).to_bytes(4, "big") + bytes(1 << 20),
    ],
    ids=["numbers", "texts", "arrays", "bytes"],
)
def test_much_that_is_unknown_is_passed_over(make_endpoint: Callable[..., Any], item: bytes) -> None:
    client = make_endpoint("client", subprotocol="sage.1.cbor")
    assert client.receive(client.frame(BINARY, b"\xa2\x00\x04\x18\x20" + item)) == [GoAway("")]


def test_much_metadata(make_endpoint: Callable[..., Any]) -> None:
    metadata = {f"{number:05}": "x" for number in range(30_000)}
    for subprotocol in SUBPROTOCOLS:
        client, server = (make_endpoint(role, subprotocol=subprotocol) for role in ("client", "server"))
        client.connection.send_message(SecureMessage(b"x", "d", metadata=metadata), None, inf)
        (message,) = server.receive(client.connection.data_to_send())
        assert message.metadata == metadata


# ── what is left out, and what does not fit ─────────────────────────────────────────────
@pytest.mark.parametrize(
    ("remaining", "milliseconds"),
    [
        (0.0015, 1),
        (0.0, 0),
        (-5.0, 0),
        (7, 7000),
        (1e300, 2**53 - 1),
        (inf, None),
        (-inf, None),
        (float("nan"), None),
    ],
)
@in_both
def test_the_remaining_time(
    make_endpoint: Callable[..., Any], subprotocol: str, remaining: float, milliseconds: int | None
) -> None:
    client = make_endpoint("client", subprotocol=subprotocol)
    client.connection.send_message(SecureMessage(b"x", "d"), None, inf, remaining)
    ((_, payload),) = client.sent()
    if subprotocol == "sage.1.json":
        assert json.loads(payload).get("deadline_ms") == milliseconds
    else:
        assert cbor2.loads(payload).get(13) == milliseconds


@pytest.mark.parametrize("credit", [-1, 1 << 32])
def test_a_credit_that_does_not_fit(make_endpoint: Callable[..., Any], credit: int) -> None:
    client = make_endpoint("client", subprotocol="sage.1.cbor")
    text = f"credit must be from 0 to 4294967295, not {credit}"
    with pytest.raises(ValueError, match=text):
        client.connection.send_message(SecureMessage(b"x", "d"), None, inf, inf, credit)
    with pytest.raises(ValueError, match=text):
        client.connection.send_credit("m", credit)
    assert client.connection.pending == 0
    assert client.sent() == []


@pytest.mark.parametrize("subprotocol", ["", "sage.1", "SAGE.1.JSON", "sage.1.cbor ", 5])
def test_no_other_subprotocol(make_endpoint: Callable[..., Any], subprotocol: Any) -> None:
    text = f"subprotocol must be sage.1.json, sage.1.cbor or None, not {subprotocol!r}"
    with pytest.raises(ValueError, match=text):
        make_endpoint("client", subprotocol=subprotocol)


def test_what_the_terms_are_not_part_of(make_endpoint: Callable[..., Any]) -> None:
    import pickle

    server = make_endpoint("server", subprotocol="sage.1.cbor")
    (message,) = server.receive(server.frame(*wire("request, all fields", "sage.1.cbor")))
    plain = SecureMessage(**{name: getattr(message, name) for name in MESSAGE_FIELDS})
    assert (plain._terms, message._terms) == (None, (1.5, 8))
    assert plain == message
    assert (hash(plain), repr(plain)) == (hash(message), repr(message))
    assert pickle.loads(pickle.dumps(message))._terms is None
    assert message.replace()._terms is None
    with pytest.raises(AttributeError):
        message._terms = None


@pytest.mark.parametrize("size", [23, 24, 255, 256, 65_535, 65_536])
def test_heads_of_every_size(make_endpoint: Callable[..., Any], size: int) -> None:
    client, server = (make_endpoint(role, subprotocol="sage.1.cbor") for role in ("client", "server"))
    sent = SecureMessage(bytes(size), "d" * size, "i" * size, metadata={"k" * size: "v" * size})
    client.connection.send_message(sent, None, inf)
    ((_, payload),) = client.sent()
    assert payload == cbor2.dumps(
        {0: 0, 1: sent.id, 4: sent.payload, 5: sent.did, 7: dict(sent.metadata)}, canonical=True
    )
    assert server.receive(server.frame(BINARY, payload)) == [sent]
