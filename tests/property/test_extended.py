"""Whatever can be built travels over the extended wire, and cbor2 reads and writes what we do."""

from __future__ import annotations

import json
from math import floor, inf
from typing import Any

import cbor2
from hypothesis import given, settings, strategies as st

from sage_ws import Response, SecureMessage
from sage_ws._core import Connection
from sage_ws._core.events import Cancel, Credit, GoAway, Part

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
BYTES = st.binary(max_size=3000)
MESSAGES = st.builds(
    SecureMessage,
    payload=st.binary(min_size=1, max_size=70_000),
    did=NAME,
    id=NAME,
    signature=BYTES,
    context_id=TEXT,
    task_id=TEXT,
    metadata=st.dictionaries(TEXT, TEXT, max_size=5),
    role=TEXT,
)
RESPONSES = st.builds(
    Response, success=st.booleans(), message_id=st.just("m"), task_id=NAME, data=BYTES, error=TEXT
)
COUNTS = st.integers(0, 2**32 - 1)
SECONDS = st.one_of(st.just(inf), st.floats(-1, 1e6), st.floats(0, 1e14))
SUBPROTOCOLS = ["sage.1.json", "sage.1.cbor"]
ASKED = SecureMessage(b"x", "d", "m", task_id="t")


def payload(connection: Connection) -> bytes:
    """Of the one message that a server has to send."""
    output = connection.data_to_send()
    length = output[1]
    return output[{126: 4, 127: 10}.get(length, 2) :]


def ends(subprotocol: str) -> tuple[Connection, Connection]:
    return Connection("client", subprotocol=subprotocol), Connection("server", subprotocol=subprotocol)


def present(fields: dict[int, Any]) -> dict[int, Any]:
    return {number: value for number, value in fields.items() if value not in ("", b"", {}, None)}


@settings(max_examples=150)
@given(message=MESSAGES, remaining=SECONDS, credit=COUNTS)
def test_a_message(message: SecureMessage, remaining: float, credit: int) -> None:
    milliseconds = None if remaining == inf else min(max(0, floor(remaining * 1000)), 2**53 - 1)
    terms = None
    if milliseconds is not None or credit:
        terms = (inf if milliseconds is None else milliseconds / 1000, credit)
    for subprotocol in SUBPROTOCOLS:
        client, server = ends(subprotocol)
        server.send_message(message, "waiter", inf, remaining, credit)
        output = server.data_to_send()
        (received,) = client.receive_data(output)
        assert (received, received._terms) == (message, terms)
    server.forget(message.id)
    server.send_message(message, "waiter", inf, remaining, credit)
    fields = [0, message.id, message.context_id, message.task_id, message.payload, message.did]
    fields += [message.signature, dict(message.metadata), message.role]
    numbered = present({**dict(enumerate(fields)), 13: milliseconds, 14: credit or None})
    assert payload(server) == cbor2.dumps(numbered, canonical=True)


@given(response=RESPONSES, more=st.booleans())
def test_a_response(response: Response, more: bool) -> None:
    success = response.success and not response.error
    expected = Response(success, "m", response.task_id, response.data, response.error)
    for subprotocol in SUBPROTOCOLS:
        client, server = ends(subprotocol)
        client.send_message(ASKED, "waiter", inf)
        server.send_response(ASKED, response, more)
        (event,) = client.receive_data(server.data_to_send())
        assert event == (Part("waiter", expected) if more else ("waiter", expected))
    server.send_response(ASKED, response, more)
    numbered = {0: 1, 3: response.task_id, 10: "m", 11: response.data, 12: response.error, 15: more or None}
    assert payload(server) == cbor2.dumps({**present(numbered), 9: success}, canonical=True)


@given(text=NAME, count=COUNTS)
def test_the_other_kinds(text: str, count: int) -> None:
    for subprotocol in SUBPROTOCOLS:
        client, server = ends(subprotocol)
        server.send_cancel(text)
        server.send_credit(text, count)
        server.send_goaway(text)
        assert client.receive_data(server.data_to_send()) == [Cancel(text), Credit(text, count), GoAway(text)]


# No bools: to Python they are the keys 0 and 1.
KEYS = st.one_of(st.integers(17, 2**64 - 1), st.integers(-(2**64), -1), TEXT, st.binary(max_size=9))
ITEMS = st.recursive(
    st.one_of(st.integers(-(2**64), 2**64 - 1), TEXT, BYTES, st.booleans()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def deterministic(item: Any) -> bytes:
    """RFC 8949 §4.2.1; cbor2 has its keys in RFC 7049's order, the shorter encoding first."""
    if isinstance(item, list):
        return cbor2.dumps([0] * len(item))[: -len(item) or None] + b"".join(map(deterministic, item))
    if isinstance(item, dict):
        entries = sorted((cbor2.dumps(key), deterministic(value)) for key, value in item.items())
        head = bytearray(cbor2.dumps([0] * len(item))[: -len(item) or None])
        head[0] += 0x20  # a map instead of an array
        return bytes(head) + b"".join(key + value for key, value in entries)
    return cbor2.dumps(item)


@given(unknown=st.dictionaries(KEYS, ITEMS, min_size=1, max_size=4), reason=TEXT)
def test_what_later_versions_may_add_is_skipped(unknown: dict[Any, Any], reason: str) -> None:
    message = deterministic({0: 4, 16: reason, **unknown})
    client = Connection("client", subprotocol="sage.1.cbor")
    head = b"\x82\x7f" + len(message).to_bytes(8, "big")
    if len(message) < 126:
        head = bytes((0x82, len(message)))
    elif len(message) <= 0xFFFF:
        head = b"\x82\x7e" + len(message).to_bytes(2, "big")
    assert client.receive_data(head + message) == [GoAway(reason)]
    assert client.counters()["unknown"] == 1


@given(reason=TEXT)
def test_json_reads_what_is_written(reason: str) -> None:
    server = Connection("server", subprotocol="sage.1.json")
    server.send_goaway(reason)
    assert json.loads(payload(server)) == {"kind": "goaway", **({"reason": reason} if reason else {})}
