"""Scripts of operations on both bodies' connections: messages, answers, closing, keepalives, deadlines.

Scripts that hold one rule each come first, generated ones second. What is compared after each step stands in
this folder's conftest; here is only what may be done.
"""

from __future__ import annotations

import itertools
import json
from math import inf
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st

Role = Literal["client", "server"]

EXAMPLES = settings(max_examples=600, deadline=None)
LIMIT = 402


def request(writer: Any, text: str | bytes | dict[str, Any]) -> bytes:
    return message(writer, "server", text)


def answer(writer: Any, text: str | bytes | dict[str, Any]) -> bytes:
    return message(writer, "client", text)


def message(writer: Any, role: Role, text: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(text, dict):
        text = json.dumps(text)
    frame: bytes = writer(role, 1, text.encode() if isinstance(text, str) else text)
    return frame


def requests(events: list[Any]) -> list[Any]:
    return [event for event in events if event[0] == "SecureMessage"]


SOUND = {"id": "m-1", "did": "did:x", "payload": "QUI=", "task_id": "t-1", "metadata": {"b": "2", "a": "1"}}
SENT = {"payload": b"AB", "did": "did:x", "id": "m-1", "task_id": "t-1", "metadata": {"b": "2", "a": "1"}}


# ── a rule each: the server ────────────────────────────────────────────────────────────
def test_a_request_and_each_kind_of_reply(pair: Any, writer: Any) -> None:
    server = pair("server")
    assert len(requests(server.receive([request(writer, SOUND)]))) == 1
    replies: list[Any] = [
        None,
        b"",
        b"bytes",
        {"success": True, "data": b"data"},
        {"success": True, "error": "both"},
        {"success": False},
        {"message_id": "other", "task_id": "else", "error": "<&>\u2028\n\x7f"},
    ]
    for reply in replies:
        server.do("send_response", 0, reply)
    assert len(server.output()) == len(replies)


@pytest.mark.parametrize("reply", [5, "text", bytearray(b"x"), object, {}.keys()], ids=repr)
def test_what_is_no_reply(pair: Any, writer: Any, reply: Any) -> None:
    server = pair("server")
    server.receive([request(writer, SOUND)])
    kind, text, _, _ = server.do("send_response", 0, reply)
    assert (kind, text[:23]) == (TypeError, "a handler must return a")


@pytest.mark.parametrize("absent", ["id", "did", "payload"])
def test_requests_that_lack_something(pair: Any, writer: Any, absent: str) -> None:
    server = pair("server")
    assert not server.receive([request(writer, {**SOUND, absent: ""})])
    assert server.sides[0].connection.counters()["invalid"] == 1
    assert server.sides[0].connection.spoken


def test_three_undecodable_messages_in_a_row(pair: Any, writer: Any) -> None:
    server = pair("server")
    bad, sound, lacking = (request(writer, text) for text in ("[", SOUND, "{}"))
    events = server.receive([bad, bad, sound, bad, bad, lacking, bad, bad + bad + sound])
    assert [event[0] for event in events[-3:]] == ["Undecodable", "Undecodable", "Closing"]
    assert events[-1][1:] == (1008, "three undecodable messages in a row", False)
    assert [first for first, _, _ in server.output()][-2:] == [0x81, 0x88]
    assert server.receive([sound]) == []


def test_binary_is_read_too_and_may_be_wrong(pair: Any, writer: Any) -> None:
    server = pair("server")
    sound = json.dumps(SOUND).encode()
    events = server.receive([writer("server", 2, sound), writer("server", 2, b'{"id":"\xff"}')])
    assert [event[0] for event in events] == ["SecureMessage", "Undecodable"]


def test_a_server_that_closed_discards_messages(pair: Any, writer: Any) -> None:
    server = pair("server")
    server.receive([request(writer, SOUND)])
    server.do("send_close", 1001, "going away")
    server.do("send_response", 0, b"too late")
    assert server.receive([request(writer, SOUND), request(writer, "["), writer("server", 9, b"ping")]) == []
    assert server.receive([writer("server", 8, b"\x03\xe9")])[-1] == ("Closing", 1001, "", True)
    assert len(server.output()) == 2  # our close frame and the pong, which it does not excuse us from


def test_pongs_that_are_stuck(pair: Any, writer: Any) -> None:
    server = pair("server")
    server.do("set_blocked", True)
    assert server.receive([writer("server", 9, b"a") * 64]) == []
    server.do("set_blocked", False)
    server.do("set_blocked", True)
    assert server.receive([writer("server", 9, b"b") * 64]) == []
    [closing] = server.receive([writer("server", 9, b"c")])
    assert closing == ("Closing", 1008, "too many pings unanswered", False)
    assert len(server.output()) == 129


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_message_at_the_limit(pair: Any, writer: Any, role: Role) -> None:
    text = json.dumps({**SOUND, "success": True, "message_id": "m-1"}).encode()
    for size, events in ((LIMIT, 1), (LIMIT + 1, 1)):
        both = pair(role, max_message_size=LIMIT)
        if role == "client":
            both.do("send_message", SENT, "w", inf)
        found = both.receive([writer(role, 1, text.ljust(size))])
        assert len(found) == events
        assert (found[0][0] == "Closing") == (size > LIMIT)


# ── a rule each: the client ────────────────────────────────────────────────────────────
def test_answers_and_who_waits(pair: Any, writer: Any) -> None:
    client = pair("client")
    for name in "abcdefg":
        client.do("send_message", {**SENT, "id": name}, f"waiter of {name}", 5.0)
    events = client.receive(
        [
            answer(writer, {"message_id": "a", "success": True, "task_id": "of the answer", "data": "QQ=="}),
            answer(writer, {"message_id": "b", "success": True}),
            answer(writer, {"message_id": "c", "success": True, "error": "but"}),
            answer(writer, {"message_id": "d", "success": "no bool"}),
            answer(writer, {"message_id": "e", "data": "*"}),
            answer(writer, '{"message_id":"f","data":"*"'),
            answer(writer, {"message_id": 5, "success": 5}),
            answer(writer, {"message_id": "a"}),
            answer(writer, {"message_id": "nobody's"}),
            answer(writer, {"message_id": "", "success": True}),
            answer(writer, "null"),
        ]
    )
    assert [event[0] for event in events] == [f"waiter of {name}" for name in "abcde"] + ["Undecodable"] * 2
    client.do("forget", "f")
    client.do("forget", "f")
    client.receive([answer(writer, {"message_id": "f"})])
    assert client.do("abandon") == [("waiter of g", "g")]


def test_deadlines(pair: Any) -> None:
    client = pair("client")
    for name, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("never", inf), ("A", 1.0)):
        client.do("send_message", {**SENT, "id": name}, name.upper(), deadline)
    assert client.do("expire", 0.5) == []
    assert client.do("expire", 1.0) == [("A", "a"), ("A", "A")]
    client.do("forget", "b")
    assert client.do("expire", 10.0) == [("C", "c")]
    assert client.do("expire", inf) == [("NEVER", "never")]
    assert client.do("abandon") == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(SENT, id="in-flight"),
        pytest.param({**SENT, "id": "m-\u2028\n" + "x" * 300}, id="in-flight-and-strange"),
    ],
)
def test_an_id_in_flight(pair: Any, fields: dict[str, Any]) -> None:
    client = pair("client", max_message_size=None)
    client.do("send_message", fields, 1, inf)
    kind, *_, attributes = client.do("send_message", fields, 2, inf)
    assert (kind.__name__, attributes) == ("DuplicateIdError", {"message_id": fields["id"]})


@pytest.mark.parametrize("over", [0, 1, 500, 100_000])
def test_messages_over_the_limit(pair: Any, writer: Any, over: int) -> None:
    client = pair("client", max_message_size=LIMIT)
    bare = len(
        b'{"id":"m-1","task_id":"t-1","payload":null,"did":"","signature":null,"metadata":{"a":"1","b":"2"}}\n'
    )
    sent = client.do("send_message", {**SENT, "payload": b"", "did": "d" * (LIMIT - bare + over)}, 1, inf)
    assert isinstance(sent, int) == (over == 0)
    client.do("send_message", {**SENT, "id": "payload", "payload": bytes(LIMIT + over)}, 1, inf)
    client.do("send_message", {**SENT, "id": "signature", "signature": bytes(LIMIT + over)}, 1, inf)
    client.do("send_message", {**SENT, "id": "metadata", "metadata": {"\n": "<" * (LIMIT + over)}}, 1, inf)
    client.do("send_raw", "x" * (LIMIT + over))
    client.do("send_raw", "€" * (LIMIT // 3) + "x" * over)
    server = pair("server", max_message_size=LIMIT)
    server.receive([request(writer, SOUND)])
    server.do("send_response", 0, bytes(LIMIT + over))
    server.do("send_response", 0, {"error": "<" * (LIMIT // 6 + over)})
    assert len(client.output()) + len(server.output()) == (3 if over == 0 else 0)


def test_nothing_is_sent_after_a_close(pair: Any, writer: Any) -> None:
    for closes in ("send", "receive", "fail"):
        client = pair("client")
        client.do("send_message", SENT, "w", inf)
        if closes == "send":
            client.do("send_close")
        elif closes == "receive":
            client.receive([writer("client", 8, b"\x0f\xa0why")])
        else:
            client.receive([writer("client", 3)])
        client.do("data_to_send")
        error, *_ = client.do("send_message", {**SENT, "id": "m-2"}, "w", inf)
        assert error.__name__ == "ClosedError"
        for operation in (
            ("send_ping", b""),
            ("send_raw", "x"),
            ("send_keepalive",),
            ("send_close", 1000, "x"),
        ):
            client.do(*operation)
        assert client.output() == []
        answered = client.receive(
            [answer(writer, {"message_id": "m-1", "success": True}), writer("client", 9)]
        )
        assert len(answered) == (closes == "send")


@pytest.mark.parametrize(
    "code", [None, 1000, 1003, 1004, 1005, 1006, 1013, 1014, 3000, 4999, 5000, 0, -1, 70000]
)
@pytest.mark.parametrize("reason", ["", "why", "é" * 61, "é" * 62])
def test_our_close_frame(pair: Any, code: int | None, reason: str) -> None:
    client = pair("client")
    client.do("send_close", code, reason)
    client.output()


@pytest.mark.parametrize("role", ["client", "server"])
def test_keepalives(pair: Any, writer: Any, role: Role) -> None:
    both = pair(role)
    both.do("send_keepalive")
    if role == "client":
        assert both.output() == []
        both.do("send_message", SENT, "w", inf)
        for _ in range(3):
            both.do("send_keepalive")
        assert len(both.output()) == 4
        both.do("answer_keepalive")
        assert both.sides[0].connection.counters()["late"] == 0
        both.do("answer_keepalive")
        assert both.sides[0].connection.counters()["late"] == 1
    else:
        assert len(both.output()) == 1


@pytest.mark.parametrize("role", ["client", "server", "peer", None, 5, ["client"]])
def test_roles(pair: Any, role: Any) -> None:
    outcomes = []
    for side in pair("client").sides:
        try:
            outcomes.append(bool(side.body.Connection(role)))
        except ValueError as error:
            outcomes.append(str(error))
        except TypeError:
            outcomes.append("a TypeError")
    if role != ["client"]:  # not hashable, for one of them
        assert outcomes[0] == outcomes[1]


# ── generated scripts ──────────────────────────────────────────────────────────────────
IDS = st.sampled_from(["a", "b", "c", "ä\n", "x" * 40])
STRINGS = st.sampled_from(["", "t", "did:x", "<é😀\u2028>", '"\\', "y" * 70])
BASE64 = st.sampled_from(["", "QQ==", "QUI=", "QUJD", "QUJ\nD", "Q", "*", "QR==", "QUJD" * 40])
JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), STRINGS, BASE64, st.just([1]), st.just({"a": "b"})
)
BODIES = st.one_of(
    st.fixed_dictionaries(
        {"id": IDS, "did": STRINGS, "payload": BASE64},
        optional={
            "task_id": STRINGS,
            "context_id": STRINGS,
            "metadata": st.dictionaries(STRINGS, STRINGS, max_size=3),
        },
    ),
    st.fixed_dictionaries(
        {"message_id": IDS, "success": st.booleans()},
        optional={"task_id": STRINGS, "data": BASE64, "error": STRINGS},
    ),
    st.dictionaries(
        st.sampled_from(
            ["id", "ID", "message_id", "success", "data", "error", "payload", "did", "metadata", "x"]
        ),
        JSON_VALUES,
        max_size=5,
    ),
    JSON_VALUES,
)
TEXTS = st.one_of(
    st.tuples(BODIES, st.booleans()).map(lambda body: json.dumps(body[0], ensure_ascii=body[1]).encode()),
    st.sampled_from([b"", b"{", b"null ", b"\xff", b'{"id":"\xc3', b"[" * 200, b'{"a":1}x']),
)
CONTROLS = st.one_of(
    st.tuples(st.sampled_from([9, 9, 10]), st.binary(max_size=5)),
    st.tuples(
        st.just(8), st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03\xed", b"\x03", b"\x0f\xa0\xff"])
    ),
)
CUTS = st.lists(st.integers(0, 400), max_size=6)


@st.composite
def received(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]], list[int]]:
    """A few messages, in fragments or not, control frames among them; now and then a rule is broken."""
    frames: list[dict[str, Any]] = []
    for text in draw(st.lists(TEXTS, max_size=4)):
        opcode = draw(st.sampled_from([1, 1, 1, 2]))
        ends = sorted({*draw(st.lists(st.integers(0, len(text)), max_size=2)), len(text)})
        for start, end in itertools.pairwise([0, *ends]):
            frames.append({"opcode": opcode, "payload": text[start:end], "fin": end == len(text)})
            opcode = 0
            if draw(st.integers(0, 5)) == 0:
                control, payload = draw(CONTROLS.filter(lambda control: control[0] != 8))
                frames.append({"opcode": control, "payload": payload})
    last = draw(st.integers(0, 11))
    if last == 0:
        control, payload = draw(CONTROLS)
        frames.append({"opcode": control, "payload": payload})
    if last == 1:
        frames.append({"opcode": draw(st.integers(0, 15)), "payload": b"x", "rsv": draw(st.integers(0, 1))})
    return "receive", frames, draw(CUTS)


MESSAGES = st.fixed_dictionaries(
    {"id": IDS, "did": STRINGS, "payload": st.binary(max_size=5) | st.just(bytes(400))},
    optional={
        "signature": st.binary(max_size=5),
        "task_id": STRINGS,
        "context_id": STRINGS,
        "role": STRINGS,
        "metadata": st.dictionaries(STRINGS, STRINGS, max_size=3),
    },
)
REPLIES = st.one_of(
    st.none(),
    st.binary(max_size=5),
    st.just(bytes(400)),
    st.fixed_dictionaries(
        {},
        optional={
            "success": st.booleans(),
            "message_id": IDS,
            "task_id": STRINGS,
            "data": st.binary(),
            "error": STRINGS,
        },
    ),
)
DEADLINES = st.sampled_from([1.0, 2.0, 3.0, inf])
OPERATIONS = st.one_of(
    received(),
    received(),
    received(),
    st.tuples(st.just("send_message"), MESSAGES, st.integers(0, 99), DEADLINES),
    st.tuples(st.just("send_message"), MESSAGES, st.integers(0, 99), DEADLINES),
    st.tuples(st.just("send_response"), st.integers(0, 9), REPLIES),
    st.tuples(st.just("send_response"), st.integers(0, 9), REPLIES),
    st.tuples(st.just("send_keepalive")),
    st.tuples(st.just("send_raw"), st.one_of(STRINGS, st.binary(max_size=9), st.just("z" * 401))),
    st.tuples(st.just("send_ping"), st.sampled_from([b"", b"p", bytes(125), bytes(126)])),
    st.tuples(st.just("set_blocked"), st.booleans()),
    st.tuples(st.just("forget"), IDS),
    st.tuples(st.just("expire"), DEADLINES),
    st.tuples(st.just("abandon")),
    st.tuples(st.just("data_to_send")),
)
CLOSES = st.tuples(st.just("send_close"), st.sampled_from([None, 1000, 1001, 1005]), STRINGS)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("raw", [False, True], ids=["sage", "raw"])
@EXAMPLES
@given(
    script=st.lists(OPERATIONS, max_size=14),
    closing=st.one_of(st.none(), CLOSES),
    end=st.lists(OPERATIONS, max_size=4),
    limit=st.sampled_from([None, LIMIT]),
)
def test_generated_scripts(
    pair: Any,
    writer: Any,
    cutter: Any,
    role: Role,
    raw: bool,
    script: list[Any],
    closing: Any,
    end: list[Any],
    limit: int | None,
) -> None:
    both = pair(role, raw=raw, max_message_size=limit)
    for name, *arguments in [*script, *([closing] if closing else []), *end, ("data_to_send",)]:
        if name == "receive":
            frames, cuts = arguments
            data = b"".join(writer(role, **frame) for frame in frames)
            both.receive(cutter(data, cuts))
        elif name == "send_message" and role == "server":
            continue  # what a client alone does
        else:
            both.do(name, *arguments)
