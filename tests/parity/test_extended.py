"""The extended wire on both bodies' connections: sound, nearly sound and hostile messages, in any chunks.

Both must say the same of any bytes: the same events, the same error, the same answer.
"""

from __future__ import annotations

import itertools
import json
from math import inf
from pathlib import Path
from typing import Any, Literal

import cbor2
import pytest
from hypothesis import given, settings, strategies as st

Role = Literal["client", "server"]

EXAMPLES = settings(max_examples=400, deadline=None)
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "extended.json").read_text("utf-8")
)
JSON, CBOR = "sage.1.json", "sage.1.cbor"
SENT = {"payload": b"x", "did": "d", "id": "m-1", "task_id": "t"}

roles = st.sampled_from(["client", "server"])
cuts = st.lists(st.integers(0, 700), max_size=4)

# ── CBOR: heads of every form, items that are sound or broken in one place ──────────────
IN_CBOR = [bytes.fromhex(case["cbor"]) for group in VECTORS.values() for case in group if "cbor" in case]
IN_JSON = [case["json"].encode() for group in VECTORS.values() for case in group if "json" in case]

texts = st.one_of(st.sampled_from(["", "m-1", "é", "d" * 24]), st.text(max_size=6))
numbers = st.one_of(
    st.integers(0, 30), st.sampled_from([255, 256, 65_536, 2**32 - 1, 2**32, 2**53, 2**64 - 1])
)
leaves = st.one_of(numbers, numbers.map(lambda one: -1 - one), texts, st.binary(max_size=30), st.booleans())
keys = st.one_of(st.integers(0, 18), texts, st.integers(-3, -1), st.booleans(), st.binary(max_size=2))
items = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
metadata = st.dictionaries(texts, texts, max_size=3)


def of_type(number: int) -> st.SearchStrategy[Any]:
    """Values that field mostly has."""
    if number in {0, 13, 14}:
        return numbers
    if number in {4, 6, 11}:
        return st.binary(max_size=40)
    if number == 7:
        return metadata
    return st.booleans() if number in {9, 15} else texts


@st.composite
def maps(draw: st.DrawFn) -> bytes:
    """A message in CBOR: its fields mostly of their types, its encoding mostly as it should be."""
    numbers_of_fields = draw(st.sets(st.integers(0, 17), max_size=7)) | {0}
    message: dict[Any, Any] = {
        number: draw(items if draw(st.integers(0, 9)) == 0 else of_type(number))
        for number in sorted(numbers_of_fields)
    }
    message[0] = draw(st.one_of(st.integers(0, 4), st.integers(0, 6)))
    if draw(st.integers(0, 5)) == 0:
        message[draw(keys)] = draw(items)
    return cbor2.dumps(message, canonical=draw(st.integers(0, 9)) > 0)


@st.composite
def broken(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """The same with a few bytes that do not belong there."""
    data = draw(sound)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        noise = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"\xff", b"\x9f", b"\xc0", b"\xf6", b"\xfb", b"\x18\x00"])
        )
        data = data[:at] + noise + data[at + draw(st.integers(0, 3)) :]
    return data


in_cbor = broken(st.one_of(maps(), st.sampled_from(IN_CBOR), st.binary(max_size=20)))
in_json = broken(st.sampled_from(IN_JSON))


@EXAMPLES
@given(
    role=roles,
    messages=st.lists(in_cbor, min_size=1, max_size=4),
    opcode=st.sampled_from([2, 2, 2, 1]),
    cuts=cuts,
)
def test_cbor(
    pair: Any, writer: Any, cutter: Any, role: Role, messages: list[bytes], opcode: int, cuts: list[int]
) -> None:
    check(pair, cutter, role, CBOR, b"".join(writer(role, opcode, one) for one in messages), cuts)


@EXAMPLES
@given(
    role=roles,
    messages=st.lists(in_json, min_size=1, max_size=4),
    opcode=st.sampled_from([1, 1, 2]),
    cuts=cuts,
)
def test_json(
    pair: Any, writer: Any, cutter: Any, role: Role, messages: list[bytes], opcode: int, cuts: list[int]
) -> None:
    check(pair, cutter, role, JSON, b"".join(writer(role, opcode, one) for one in messages), cuts)


def check(pair: Any, cutter: Any, role: Role, subprotocol: str, stream: bytes, cuts: list[int]) -> None:
    """Both take the stream in these chunks, while they wait for an answer."""
    both = pair(role, subprotocol=subprotocol)
    both.do("send_message", SENT, "waiter", 5.0)
    both.receive(cutter(stream, cuts))
    both.do("send_response", 0, b"answer")
    both.output()


# ── scripts ─────────────────────────────────────────────────────────────────────────────
replies = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.builds(dict, success=st.booleans(), data=st.binary(max_size=300), error=texts, task_id=texts),
)
sendings = st.one_of(
    st.tuples(
        st.just("send_message"),
        st.builds(
            dict,
            payload=st.binary(max_size=300),
            did=texts,
            id=st.sampled_from("abc"),
            task_id=texts,
            context_id=texts,
            role=texts,
            signature=st.binary(max_size=30),
            metadata=metadata,
        ),
        st.sampled_from(["one", "two"]),
        st.sampled_from([1.0, 2.0, inf]),
        st.one_of(st.floats(), st.sampled_from([0.0, 0.0015, 1.5, inf])),
        st.sampled_from([0, 1, 24, 2**32 - 1, -1, 2**32]),
    ),
    st.tuples(st.just("send_response"), st.integers(0, 5), replies, st.booleans()),
    st.tuples(st.just("send_cancel"), texts),
    st.tuples(st.just("send_credit"), texts, st.sampled_from([0, 5, 2**32 - 1, 2**32])),
    st.tuples(st.just("send_goaway"), texts),
    st.tuples(st.just("send_keepalive")),
    st.tuples(st.just("expire"), st.sampled_from([0.5, 1.5])),
    st.tuples(st.just("forget"), st.sampled_from("abc")),
    st.tuples(st.just("send_close")),
)


@EXAMPLES
@given(
    subprotocol=st.sampled_from([JSON, CBOR, CBOR, None]),
    limit=st.sampled_from([None, 120, 400]),
    script=st.lists(st.tuples(st.booleans(), st.one_of(sendings, st.none())), max_size=14),
)
def test_two_ends_that_talk(
    pair: Any, writer: Any, subprotocol: str | None, limit: int | None, script: list[tuple[bool, Any]]
) -> None:
    """What one end writes the other one reads, both bodies of both ends."""
    options: dict[str, Any] = {"subprotocol": subprotocol, "max_message_size": limit}
    ends = [pair("client", **options), pair("server", **options)]
    for first, step in script:
        one, other = ends if first else ends[::-1]
        if step is not None:
            one.do(*step)
            continue
        for byte, _, payload in one.output():
            other.receive([writer(other.role, byte & 0x0F, payload)])


# ── a rule each ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("subprotocol", [JSON, CBOR])
@pytest.mark.parametrize("role", ["client", "server"])
def test_the_vectors_one_after_the_other(pair: Any, writer: Any, role: Role, subprotocol: str) -> None:
    known, opcode = (IN_CBOR, 2) if subprotocol == CBOR else (IN_JSON, 1)
    for start in range(0, len(known), 2):
        both = pair(role, subprotocol=subprotocol)
        both.do("send_message", SENT, "waiter", 5.0)
        stream = b"".join(writer(role, opcode, one) for one in known[start : start + 2])
        both.receive([stream[at : at + 7] for at in range(0, len(stream), 7)])


def test_every_byte_of_a_message_replaced(pair: Any, writer: Any) -> None:
    message = bytes.fromhex(next(one["cbor"] for one in VECTORS["messages"] if one["name"] == "credit"))
    for at, byte in itertools.product(range(len(message)), range(256)):
        both = pair("client", subprotocol=CBOR)
        both.receive([writer("client", 2, message[:at] + bytes([byte]) + message[at + 1 :])])
