"""Nothing that a peer sends panics: over a million inputs, most of them nearly sound.

A panic is a `PanicException`, which no `except Exception` catches. Inputs follow from a seed: a failure fails
again. With `--hypothesis-profile=thorough` there are twenty times as many.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import settings

from sage_ws import DecodeError
from sage_ws._core import _pure, _rust

Role = Literal["client", "server"]

VECTORS = Path(__file__).parents[1] / "vectors"
INPUTS = settings().max_examples * 10_000
"""Over all tests of the native core. The fallback is slower, and has no panics: a fiftieth."""
BODIES = pytest.mark.parametrize(
    ("body", "inputs"), [(_rust, INPUTS), (_pure, INPUTS // 50)], ids=["rust", "pure"]
)
LONGEST = 600
A_CONNECTIONS_SHARE = 8
IDS = ["m", "m-1", "r-1", "é"]

pytestmark = pytest.mark.timeout(60 if INPUTS <= 1_000_000 else 900)


class Mutations:
    """Inputs that are sound but for a few bytes, or noise alone.

    Args:
        seed: what they follow from.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.noise = self.random.randbytes(1 << 16)

    def below(self, end: int) -> int:
        return int(self.random.random() * end)

    def some_noise(self, most: int) -> bytes:
        start = self.below(len(self.noise) - most)
        return self.noise[start : start + self.below(most + 1)]

    def mutated(self, sound: bytes) -> bytes:
        at = self.below(len(sound) + 1)
        kind = self.below(4)
        if kind == 0:
            return sound[:at] + self.some_noise(4) + sound[at + self.below(4) :]
        if kind == 1:
            return sound[:at] + sound[self.below(len(sound) + 1) :]
        if kind == 2:
            return sound[:at] + bytes((b'"\\{}[]:,\r\0'[self.below(10)],)) + sound[at + 1 :]
        return sound[:at] + b"\xed\xa0\x80\xf4\x90"[self.below(5) :] + sound[at:]


def texts(kind: str) -> list[bytes]:
    """The vectors' sound JSON of one kind."""
    cases = json.loads((VECTORS / "decode.json").read_bytes())
    wires = [base64.b64decode(case["wire"]) for case in cases if case["kind"] == kind and case["ok"]]
    return [wire for wire in wires if len(wire) <= LONGEST]


def streams(role: Role) -> list[bytes]:
    """What the vectors' peer of `role` wrote."""
    vectors: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "frames.json").read_bytes())
    raw = [case["received"] for case in vectors["replies"] if case["role"] == role]
    raw += [
        case["raw"]
        for case in vectors["messages"] + vectors["controls"]
        if "raw" in case and case["role"] != role
    ]
    return [bytes.fromhex(one) for one in raw if 0 < len(one) <= 2 * LONGEST]


def frame(role: Role, first: int, payload: bytes) -> bytes:
    """Faster than the folder's writer: the masking key of zeros leaves the payload as it is."""
    masked, key = (0x80, b"\0\0\0\0") if role == "server" else (0, b"")
    if len(payload) < 126:
        return bytes((first, masked | len(payload))) + key + payload
    return bytes((first, masked | 126)) + len(payload).to_bytes(2, "big") + key + payload


def inputs_for(role: Role, mutations: Mutations, count: int) -> Iterator[bytes]:
    messages = texts("message" if role == "server" else "response")
    frames = streams(role)
    below, mutated = mutations.below, mutations.mutated
    for number in range(count):
        kind = number % 8
        if kind == 0:
            yield mutations.some_noise(40)
        elif kind < 3:
            yield mutated(frames[below(len(frames))])
        else:
            first = (0x81, 0x81, 0x82, 0x01, 0x80)[kind - 3]
            yield frame(role, first, mutated(messages[below(len(messages))]))


def look_at(event: Any) -> None:
    """What is read only when somebody asks."""
    for one in event if type(event) is tuple else (event,):
        repr(one)
        if hasattr(one, "metadata"):
            dict(one.metadata)


@BODIES
@pytest.mark.parametrize("role", ["server", "client"])
def test_what_comes_over_a_connection(role: Role, body: ModuleType, inputs: int) -> None:
    mutations = Mutations(7)
    sent = [body.SecureMessage(b"p", "did:x", one, task_id="t") for one in IDS]
    connection = body.Connection(role)
    given = seen = 0
    data = b""
    try:
        for data in inputs_for(role, mutations, inputs * 2 // 5):
            if connection.closing or given % A_CONNECTIONS_SHARE == 0:
                connection.data_to_send()
                connection = body.Connection(role, max_message_size=2 * LONGEST)
                if role == "client":
                    for message in sent:
                        connection.send_message(message, None, inf)
            given += 1
            cut = mutations.below(4 * len(data) + 1)
            received = connection.receive_data(data[:cut])
            if cut < len(data):
                received += connection.receive_data(data[cut:])
            for event in received:
                seen += 1
                look_at(event)
                if isinstance(event, body.SecureMessage):
                    connection.send_response(event, None)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__} after {data!r}") from error
    assert seen > given // 5, seen


@BODIES
@pytest.mark.parametrize("kind", ["message", "response"])
def test_what_is_read_as_json(kind: str, body: ModuleType, inputs: int) -> None:
    mutations = Mutations(8)
    decode = getattr(body, f"decode_{kind}")
    encode = getattr(body, f"encode_{kind}")
    sound = texts(kind)
    count, read = inputs // 10, 0
    for _ in range(count):
        text = mutations.mutated(sound[mutations.below(len(sound))])
        try:
            fields = decode(text)
        except DecodeError:
            continue
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__} of {text!r}") from error
        read += 1
        assert decode(encode(*fields)) == fields, text
    assert read > count // 10, read


@BODIES
@pytest.mark.parametrize("encoding", ["json", "cbor"])
def test_what_comes_over_an_extended_connection(encoding: str, body: ModuleType, inputs: int) -> None:
    groups: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "extended.json").read_bytes())
    sound = [
        case["json"].encode() if encoding == "json" else bytes.fromhex(case["cbor"])
        for group in groups.values()
        for case in group
        if encoding in case
    ]
    mutations = Mutations(9)
    asked = body.SecureMessage(b"p", "did:x", "m-1", task_id="t")
    seen = 0
    for number in range(inputs // 10):
        if number % A_CONNECTIONS_SHARE == 0:
            role: Role = "server" if number % (2 * A_CONNECTIONS_SHARE) else "client"
            connection = body.Connection(role, subprotocol=f"sage.1.{encoding}")
            connection.send_message(asked, None, inf)
        data = mutations.mutated(sound[mutations.below(len(sound))])
        try:
            received = connection.receive_data(frame(role, 0x82, data))
            for event in received:
                seen += 1
                look_at(event)
                if isinstance(event, body.SecureMessage):
                    repr(event._terms)
                    connection.send_response(event, None, True)
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__} after {data!r}") from error
    assert seen > inputs // 50, seen
