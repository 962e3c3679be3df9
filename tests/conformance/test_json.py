"""JSON under attack: one clear answer each, the connection as wire.md says, and memory by the message's size.

The attacks run in a process of their own for each role, one after the other, so that the peak of each can be
told from the others' garbage. None asserts a time: what is not linear would not end within the test's.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sage_ws._core import Connection, SecureMessage, decode_message, decode_response
from sage_ws._core.events import Closing, Undecodable
from sage_ws.errors import DecodeError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "decode.json").read_text())
TEXT, CLOSE = 1, 8
MIB = 1024 * 1024

SLACK = 4 * MIB
"""What a process grows by anyway."""


def most(size: int) -> int:
    """Bytes that a message may take while it is read, all copies and values together."""
    return 6 * size + SLACK


def most_of_metadata(size: int) -> int:
    """As `most`: an entry of ten bytes becomes two Python strings and their place in a dict."""
    return 12 * size + SLACK


NO_ID = "message ID is required"


class Attack(NamedTuple):
    """A text, as an expression over `N` for the process that is measured, and what the server answers."""

    text: str
    answer: str


def early(at: int) -> str:
    return f"not JSON: ends early at byte {at}"


def unexpected(at: int) -> str:
    return f"not JSON: unexpected character at byte {at}"


def deep(at: int) -> str:
    return f"nested deeper than 128 at byte {at}"


def attacks(n: int) -> dict[str, Attack]:
    """Most of about `n` bytes, which an expression knows as `N`; `ENTRIES` are 100,000 members."""
    return {
        # depth
        "depth-200000-arrays": Attack("""b'{"x":' + b'[' * 200_000 + b']' * 200_000 + b'}'""", deep(132)),
        "depth-200000-objects": Attack("""b'{"x":' * 200_000 + b'0' + b'}' * 200_000""", deep(640)),
        "depth-200000-mixed": Attack("""b'[{"a":' * 100_000 + b'0' + b'}]' * 100_000""", deep(64 * 6)),
        "depth-200000-unclosed": Attack("b'[' * 200_000", deep(128)),
        "depth-in-metadata": Attack("""b'{"metadata":' * 200_000""", deep(128 * 12)),
        "depth-in-an-id": Attack("""b'{"id":' + b'[' * 200_000""", deep(6 + 127)),
        "depth-128-often": Attack("""b'{"x":[' + (b'[' * 126 + b']' * 126 + b',') * 1000 + b'0]}'""", NO_ID),
        "depth-129-late": Attack("""b'{"x":[' + b'[],' * 99_998 + b'[' * 127""", deep(300_126)),
        # ten million brackets
        "brackets-opening": Attack("b'[' * N", deep(128)),
        "brackets-closing": Attack("b']' * N", unexpected(0)),
        "braces-opening": Attack("b'{' * N", unexpected(1)),
        "braces-closing": Attack("b'}' * N", unexpected(0)),
        "brackets-in-turn": Attack("b'[]' * (N // 2)", "not JSON: more after the value at byte 2"),
        "brackets-crossed": Attack("b'[}' * (N // 2)", unexpected(1)),
        "brackets-in-a-field": Attack("""b'{"x":' + b'[' * N""", deep(132)),
        "brackets-flat": Attack("""b'{"x":[' + b'[],' * (N // 3) + b'[]]}'""", NO_ID),
        "brackets-flat-broken": Attack(
            """b'{"x":[' + b'[],' * (N // 10) + b'[}'""", unexpected(7 + n // 10 * 3)
        ),
        "brackets-flat-on-top": Attack(
            "b'[' + b'[],' * (N // 10) + b'[]]'", "expected an object, found array"
        ),
        "braces-flat": Attack("""b'{"x":[' + b'{},' * (N // 10) + b'{}]}'""", NO_ID),
        "braces-with-members": Attack("""b'{"x":[' + b'{"":0},' * (N // 20) + b'{}]}'""", NO_ID),
        # members
        "members-unknown": Attack("""b'{' + ENTRIES + b'}'""", NO_ID),
        "members-the-same": Attack("""b'{' + b'"task_id":"",' * 30_000 + b'"x":0}'""", NO_ID),
        "members-empty": Attack("""b'{' + b'"":0,' * 60_000 + b'"":0}'""", NO_ID),
        "members-of-a-field": Attack("""b'{"x":{' + ENTRIES + b'}}'""", NO_ID),
        "items": Attack("""b'{"x":[' + b'0,' * (N // 10) + b'0]}'""", NO_ID),
        "items-and-garbage": Attack("""b'{"x":[' + b'0,' * 20_000 + b'0] 1}'""", unexpected(40_009)),
        "items-of-text": Attack("""b'{"x":[' + b'"ab",' * (N // 10) + b'0]}'""", NO_ID),
        "commas": Attack("""b'{"x":[' + b',' * N""", unexpected(6)),
        # numbers
        "number-without-end": Attack("""b'{"x":' + b'1' * N""", early(n + 5)),
        "number-of-digits": Attack("""b'{"x":' + b'1' * N + b'}'""", NO_ID),
        "number-negative": Attack("""b'{"x":-' + b'9' * N + b'}'""", NO_ID),
        "number-with-a-fraction": Attack("""b'{"x":0.' + b'0' * N + b'1}'""", NO_ID),
        "number-with-an-exponent": Attack("""b'{"x":1e' + b'9' * N + b'}'""", NO_ID),
        "number-with-a-small-exponent": Attack("""b'{"x":1E-' + b'9' * N + b'}'""", NO_ID),
        "number-of-zeros": Attack("""b'{"x":' + b'0' * N + b'}'""", unexpected(6)),
        "number-of-signs": Attack("""b'{"x":' + b'-' * N + b'}'""", unexpected(6)),
        # texts
        "text-without-end": Attack("""b'{"id":"' + b'a' * N""", early(n + 7)),
        "text-of-escapes": Attack(r"""b'{"x":"' + b'\\u0000' * (N // 6) + b'"}'""", NO_ID),
        "text-of-surrogates": Attack(r"""b'{"x":"' + b'\\ud800' * (N // 6) + b'"}'""", NO_ID),
        "text-of-backslashes": Attack(r"""b'{"x":"' + b'\\' * N""", early(n + 6)),
        "text-of-quotes": Attack("""b'"' * N""", "not JSON: more after the value at byte 2"),
        "text-as-a-key": Attack("""b'{"' + b'k' * N + b'":0}'""", NO_ID),
        "white-space": Attack("b' ' * N", early(n)),
        "white-space-inside": Attack(r"""b'{' + b'\n' * N + b'}'""", NO_ID),
        "white-space-behind": Attack("b'{}' + b' ' * N", NO_ID),
        # base64
        "base64-of-padding": Attack(
            """b'{"payload":"' + b'=' * N + b'"}'""", "payload: illegal base64 padding"
        ),
        "base64-bad-at-the-end": Attack(
            """b'{"payload":"' + b'A' * N + b'!"}'""", f"payload: illegal base64 character at {n}"
        ),
        "base64-of-line-ends": Attack(r"""b'{"payload":"' + b'\\n' * (N // 2) + b'"}'""", NO_ID),
        "not-utf8-at-the-end": Attack(r"""b'{"x":"' + b'a' * N + b'\xff'""", f"not UTF-8 at byte {n + 6}"),
    }


SIZES = {"server": 10_000_000, "client": 1_000_000}
"""The readers of requests and of responses are one; the larger is for the side that strangers talk to."""

NAMES = list(attacks(0))

PROGRAM = """
    N = {N}
    ENTRIES = b",".join(b'"k%d":"v"' % n for n in range(100_000))
    outcomes = {{}}
    # a sound message is read first: what a process needs once is no message's
    connection().receive_data(frame(BINARY, b"{{}}"))
    for name, text in {attacks!r}.items():
        data = frame(BINARY, eval(text))
        one = connection()
        before, events = start(), one.receive_data(data)
        growth = grown_since(before)
        sent = one.data_to_send().decode("latin-1")
        outcomes[name] = len(data), growth, [str(event[0]) for event in events], sent
        del data, one, events
    print(json.dumps([0, outcomes]))
"""


@pytest.fixture(scope="module")
def outcomes(measure: Any) -> dict[str, dict[str, Any]]:
    """Per role and attack: the message's size, the growth, the events, and what was sent."""
    texts = {name: attack.text for name, attack in attacks(0).items()}
    return {role: measure(PROGRAM.format(N=size, attacks=texts), role)[1] for role, size in SIZES.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_server_answers(outcomes: Any, name: str) -> None:
    size, growth, events, sent = outcomes["server"][name]
    answer = attacks(SIZES["server"])[name].answer
    assert json.loads(sent[sent.index("{") :]) == {"success": False, "message_id": "", "error": answer}
    assert events == ([] if answer == NO_ID else [answer])
    assert growth <= most(size)


@pytest.mark.parametrize("name", NAMES)
def test_a_client_goes_on(outcomes: Any, name: str) -> None:
    size, growth, events, sent = outcomes["client"][name]
    answer = attacks(SIZES["client"])[name].answer
    # a request's keys are none of a response's: what is unknown is passed over
    assert events == ([] if answer == NO_ID or answer.startswith("payload: ") else [answer])
    assert sent == ""
    assert growth <= most(size)


# ── metadata ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        pytest.param('b\'"k%d":"v"\' % n', 100_000, id="100000-keys"),
        pytest.param("b'\"k%d\":null' % n", 100_000, id="100000-nulls"),
        pytest.param('b\'"\\\\ud800%d":"v"\' % n', 100_000, id="100000-escaped-keys"),
        pytest.param('b\'"k":"v%d"\' % n', 1, id="one-key-100000-times"),
        pytest.param('b\'"":""\'', 1, id="an-empty-key-100000-times"),
    ],
)
@pytest.mark.parametrize("order", ["as-go-writes", "another"])
def test_100_000_metadata_keys(measure: Any, entries: str, kept: int, order: str) -> None:
    before, behind = b'{"id":"m","payload":"AA==","did":"d","signature":null,"metadata":{', b"}}"
    if order == "another":
        before, behind = b'{"metadata":{', b'},"id":"m","payload":"AA==","did":"d"}'
    growth, (size, count, sent) = measure(
        f"""
        data = frame(TEXT, {before} + b",".join({entries} for n in range(100_000)) + {behind})
        connection().receive_data(frame(BINARY, b"{{}}"))
        one = connection()
        def act():
            (message,) = one.receive_data(data)
            return len(data), len(message.metadata), one.buffered
        grown(act)
        """,
        "server",
    )
    assert (count, sent) == (kept, 0)
    assert growth <= most_of_metadata(size)


# More values than a parser should build: whatever way reads such a text must read as the others do.
MANY_VALUES = b'"x":[' + b"0," * 20_000 + b"0]"


OBJECTS = [case for case in VECTORS if base64.b64decode(case["wire"][:1000]).lstrip(b" \t\r\n")[:1] == b"{"]


@pytest.mark.parametrize("case", OBJECTS, ids=lambda case: case["name"])
def test_many_values_in_front_change_nothing(case: dict[str, Any]) -> None:
    data, kind = base64.b64decode(case["wire"]), case["kind"]
    before, brace, behind = data.partition(b"{")
    front = MANY_VALUES if behind.lstrip(b" \t\r\n")[:1] == b"}" else MANY_VALUES + b","
    fields, text = verdict(kind, data)
    # the places of errors move along
    moved = re.sub(r"(?<=at byte )\d+", lambda place: str(int(place[0]) + len(front)), text)
    assert verdict(kind, before + brace + front + behind) == (fields, moved)


# ── one after the other ───────────────────────────────────────────────────────────────
DEEP = b"[" * 200_000
SOUND = b'{"id":"m","did":"d","payload":"AA=="}'
INVALID = b'{"id":"","did":"d"}'


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
def test_three_in_a_row_close_with_1008(server: Any, opcode: int) -> None:
    peer = server.peer
    connection = Connection("server")
    for attack in (DEEP, b"1" * 100_000, b'{"id":'):
        assert not connection.closing
        events = connection.receive_data(peer.frame(opcode, attack))
    assert events[-1] == Closing(1008, "three undecodable messages in a row", False)
    *answers, close = peer.read(connection.data_to_send())
    assert [json.loads(payload)["error"] for _, payload in answers] == [
        "nested deeper than 128 at byte 128",
        "expected an object, found number",
        "not JSON: ends early at byte 6",
    ]
    assert close == (CLOSE, b"\x03\xf0three undecodable messages in a row")
    assert connection.receive_data(peer.text(SOUND)) == []


@pytest.mark.parametrize("between", [SOUND, INVALID], ids=["sound", "invalid-but-decodable"])
def test_a_decodable_message_sets_the_count_back(server: Any, between: bytes) -> None:
    peer = server.peer
    connection = Connection("server")
    for _ in range(10):
        for attack in (DEEP, b'{"payload":"!"}', between):
            connection.receive_data(peer.text(attack))
    assert not connection.closing
    events = connection.receive_data(peer.text(DEEP) * 3)
    assert [type(event) for event in events] == [Undecodable] * 3 + [Closing]


def test_control_frames_and_chunks_do_not_set_it_back(server: Any) -> None:
    peer = server.peer
    sage = server.with_options(raw=False)
    data = (peer.ping() + peer.text(b"[", fin=False) + peer.pong() + peer.last(b"1")) * 3
    for size in (1, 2, 7, len(data)):
        connection = sage.connection()
        events = [
            event
            for at in range(0, len(data), size)
            for event in connection.receive_data(data[at : at + size])
        ]
        assert events[-1] == Closing(1008, "three undecodable messages in a row", False)
        assert sum(isinstance(event, Undecodable) for event in events) == 3


def test_a_client_is_not_closed_by_bad_answers(client: Any) -> None:
    connection = Connection("client")
    events = connection.receive_data(client.peer.text(DEEP) * 100)
    assert [type(event) for event in events] == [Undecodable] * 100
    assert connection.counters()["invalid"] == 100
    assert not connection.closing
    assert connection.data_to_send() == b""


# ── every truncation ──────────────────────────────────────────────────────────────────
DECODERS = {"message": decode_message, "response": decode_response}
PLACED = re.compile(r"(?:unexpected character|nested deeper than 128|more after the value) at byte (\d+)|^$")


def verdict(kind: str, data: bytes) -> tuple[Any, str]:
    """The fields, or None and the error's text."""
    try:
        return DECODERS[kind](data), ""
    except DecodeError as error:
        return None, str(error)


def expected(data: bytes, whole: tuple[Any, str], at: int) -> tuple[Any, str] | None:
    """What the first `at` bytes must give, knowing what all of them gave; None where it may be several.

    A text that is cut before its first error could still have become JSON: it ends early. From the error on
    nothing that follows changes it. And a text that is whole but for white space says what it said.
    """
    cut = data[:at]
    try:
        cut.decode()
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    if whole[1].startswith("not UTF-8"):
        return None
    placed = PLACED.search(whole[1])
    if placed and placed[1]:
        if at > int(placed[1]):
            return whole
        if "more after" in whole[1]:
            return None  # the first value may be whole by now
    elif "ends early" not in whole[1] and at >= len(data.rstrip(b" \t\r\n")):
        return whole
    elif whole[1].endswith("found number"):
        return None if data.lstrip()[:1] in b"-0123456789" else (None, early(at))
    return None, early(at)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS])
def test_every_truncation(case: dict[str, Any]) -> None:
    data, kind = base64.b64decode(case["wire"]), case["kind"]
    peer_role = "server" if kind == "message" else "client"
    whole = verdict(kind, data)
    assert (whole[0] is not None) == (case["ok"] and "ours" not in case)
    # long ones at their ends, where all of them differ, and here and there
    places = (
        range(len(data)) if len(data) <= 1000 else [*range(200), *range(200, len(data), 977), len(data) - 1]
    )
    connection = Connection(peer_role)
    for at in places:
        fields, text = verdict(kind, data[:at])
        assert (fields is None) == bool(text)
        wanted = expected(data, whole, at)
        assert wanted is None or (fields, text) == wanted
        # as a message: an answer or an event, and the connection stands
        events = connection.receive_data(_frame(peer_role, data[:at]))
        told = [str(event.error) for event in events if isinstance(event, Undecodable)]
        assert told == ([text] if text else [])
        if peer_role == "server":
            answers = connection.data_to_send()
            dispatched = any(isinstance(event, SecureMessage) for event in events)
            assert dispatched == (not answers)
            if text:
                assert json.loads(answers[answers.index(b"{") :])["error"] == text
            connection.receive_data(_frame(peer_role, b"{}"))  # or three in a row would close it
            connection.data_to_send()
        assert not connection.closing


def _frame(role: str, content: bytes) -> bytes:
    """BINARY, so that a text which is not UTF-8 is no failure of the frame; masked with zeros."""
    mask_bit, key = (0x80, bytes(4)) if role == "server" else (0, b"")
    length = len(content)
    if length < 126:
        return bytes([0x82, mask_bit | length]) + key + content
    return bytes([0x82, mask_bit | 126]) + length.to_bytes(2, "big") + key + content
