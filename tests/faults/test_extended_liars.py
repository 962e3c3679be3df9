"""Peers that lie on the extended wire: what they do costs them, and nobody else; nothing of it stays.

Their messages are written by hand and by cbor2: docs/reference/wire.md, read a second time.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from tests.faults.handling import answer_of, part_of, payload_of
from tests.faults.ledger import Ending, Ledger
from tests.faults.load import Load
from tests.integration.conftest import accepting

from sage_ws import connect, serve

pytestmark = pytest.mark.usefixtures("baseline")

TEXT, BINARY, CLOSE = 0x1, 0x2, 0x8
KINDS = {"request": 0, "response": 1, "cancel": 2, "credit": 3, "goaway": 4, "gossip": 99}
FIELDS = {
    "kind": 0,
    "id": 1,
    "payload": 4,
    "did": 5,
    "metadata": 7,
    "success": 9,
    "message_id": 10,
    "data": 11,
    "error": 12,
    "deadline_ms": 13,
    "credit": 14,
    "more": 15,
    "reason": 16,
}
SUBPROTOCOLS = pytest.mark.parametrize("subprotocol", ["sage.1.cbor", "sage.1.json"])
MOST = 2**32 - 1


class Tongue:
    """Speaks one of the two encodings over a raw peer."""

    def __init__(self, peer: Any, subprotocol: str) -> None:
        self.peer = peer
        self.is_cbor = subprotocol == "sage.1.cbor"

    def written(self, kind: str, **fields: Any) -> bytes:
        if self.is_cbor:
            numbered = {FIELDS[name]: value for name, value in fields.items()}
            frame = self.peer.frame(BINARY, cbor2.dumps({0: KINDS[kind], **numbered}, canonical=True))
        else:
            texts = {
                name: b64encode(value).decode() if isinstance(value, bytes) else value
                for name, value in fields.items()
            }
            frame = self.peer.frame(TEXT, json.dumps({"kind": kind, **texts}).encode())
        return bytes(frame)

    def say(self, kind: str, **fields: Any) -> None:
        self.peer.write(self.written(kind, **fields))

    def ask(
        self, message_id: str, size: int = 100, orders: dict[str, str] | None = None, **fields: Any
    ) -> None:
        said = {"payload": payload_of(message_id, size), "did": "did:sage:liar", "metadata": orders or {}}
        self.say("request", **{"id": message_id, **said, **fields})

    async def hear(self) -> dict[str, Any]:
        """The next message; what ends the connection is told as the kind ``close``."""
        frame = await self.peer.read_frame()
        if frame.opcode == CLOSE:
            return {"kind": "close", "code": int.from_bytes(frame.payload[:2], "big")}
        if not self.is_cbor:
            heard = json.loads(frame.payload)
            for name in ("payload", "data"):
                if name in heard:
                    heard[name] = b64decode(heard[name])
            return dict(heard)
        names = {number: name for name, number in FIELDS.items()}
        kinds = {number: kind for kind, number in KINDS.items()}
        numbered = cbor2.loads(frame.payload)
        heard = {names[number]: value for number, value in numbered.items() if number in names}
        return {**heard, "kind": kinds[heard["kind"]]}


# ── clients that lie to a server ───────────────────────────────────────────────────────
HOUR = {"wait": "3600"}
ENDLESS = {"parts": "1000000"}


def cancels_what_is_not_there(tongue: Tongue) -> None:
    for number in range(2000):
        tongue.say("cancel", id=f"nobody's-{number}")


def cancels_before_and_behind(tongue: Tongue) -> None:
    for number in range(50):
        tongue.say("cancel", id=f"liar-{number}")
        tongue.ask(f"liar-{number}", orders=HOUR)
        for _ in range(3):
            tongue.say("cancel", id=f"liar-{number}")


def credits_what_is_not_there(tongue: Tongue) -> None:
    for number in range(2000):
        tongue.say("credit", id=f"nobody's-{number}", credit=MOST)


def credits_over_and_over(tongue: Tongue) -> None:
    tongue.ask("liar", 10, ENDLESS, credit=MOST)
    for _ in range(500):
        tongue.say("credit", id="liar", credit=MOST)


def gives_no_credit_and_leaves(tongue: Tongue) -> None:
    for number in range(50):
        tongue.ask(f"liar-{number}", 10, ENDLESS, credit=1)


def asks_twice_by_one_id(tongue: Tongue) -> None:
    for _ in range(20):
        tongue.ask("liar", orders=HOUR)
    for _ in range(20):
        tongue.say("cancel", id="liar")


def takes_parts_twice_by_one_id(tongue: Tongue) -> None:
    for _ in range(20):
        tongue.ask("liar", 10, ENDLESS, credit=1)
    tongue.say("credit", id="liar", credit=3)


def answers_what_nobody_asked(tongue: Tongue) -> None:
    for number in range(500):
        tongue.say(
            "response", success=True, message_id=f"nobody's-{number}", data=b"x", more=bool(number % 2)
        )


def has_no_time(tongue: Tongue) -> None:
    for number in range(100):
        tongue.ask(f"liar-{number}", orders=HOUR, deadline_ms=0)


def says_goodbye_all_the_time(tongue: Tongue) -> None:
    for _ in range(500):
        tongue.say("goaway", reason="x" * 1000)


def speaks_a_later_version(tongue: Tongue) -> None:
    for number in range(500):
        tongue.say("gossip", id=f"liar-{number}")


def carries_much(tongue: Tongue) -> None:
    for number in range(3):
        tongue.ask(f"liar-{number}", metadata={str(key): "x" * 100 for key in range(10_000)})


def stammers_three_times(tongue: Tongue) -> None:
    tongue.ask("liar", 10, ENDLESS, credit=1)
    for _ in range(3):
        tongue.peer.send(BINARY, b"\xff")


CLIENT_LIES = [
    stammers_three_times,
    cancels_what_is_not_there,
    cancels_before_and_behind,
    credits_what_is_not_there,
    credits_over_and_over,
    gives_no_credit_and_leaves,
    asks_twice_by_one_id,
    takes_parts_twice_by_one_id,
    answers_what_nobody_asked,
    has_no_time,
    says_goodbye_all_the_time,
    speaks_a_later_version,
    carries_much,
]


@SUBPROTOCOLS
@pytest.mark.parametrize("lie", CLIENT_LIES)
async def test_a_client_that_lies_beside_an_honest_one(
    lie: Callable[[Tongue], None], subprotocol: str, raw_client: Any, eventually: Any
) -> None:
    ledger = Ledger("honest", back=Ledger("back"))
    assert ledger.back is not None
    kinds = [{"size": 10}, {"size": 300, "parts": 20}, {"size": 100, "asks": True}]
    headers = {"Sec-WebSocket-Protocol": subprotocol}
    async with serve(ledger.handler, close_timeout=0.5) as server:
        url = f"ws://127.0.0.1:{server.port}"
        async with connect(url, handler=ledger.back.handler) as client:
            async with Load(ledger, client, kinds=kinds, callers=4, timeout=20) as load:
                for _ in range(2):
                    async with raw_client(server.port, headers=headers) as peer:
                        lie(Tongue(peer, subprotocol))
                        await load.answers(10)
                await eventually(lambda: server.connection_count == 1)
            if (
                lie is not asks_twice_by_one_id
            ):  # a cancel stops the last of them: the others wait for the end
                await eventually(lambda: server.stats()["pending"] == 0)
            assert client.stats()["dials"] == 1
    assert ledger.answered == len(ledger.calls)
    assert server.stats()["pending"] == ledger.handler.running == 0
    problems = [one for one in ledger.problems() if not one.startswith("liar")]
    assert problems == []


# ── a server that lies to a client ─────────────────────────────────────────────────────
def whole(tongue: Tongue, asked: dict[str, Any]) -> None:
    """The truth, as it was asked for."""
    message_id, size = asked["id"], len(asked["payload"])
    answer: dict[str, Any] = {"success": True, "message_id": message_id}
    for number in range(parts := int(asked.get("metadata", {}).get("parts", 0))):
        tongue.say("response", **answer, data=part_of(message_id, number, size), more=True)
    tongue.say("response", **answer, **({} if parts else {"data": answer_of(message_id, size)}))


def ends_twice(tongue: Tongue, asked: dict[str, Any]) -> None:
    whole(tongue, asked)
    whole(tongue, asked)


def sends_parts_without_credit(tongue: Tongue, asked: dict[str, Any]) -> None:
    answer: dict[str, Any] = {"success": True, "message_id": asked["id"], "more": True}
    for number in range(1000):
        tongue.say("response", **answer, data=part_of(asked["id"], number, len(asked["payload"])))


def goes_on_behind_the_end(tongue: Tongue, asked: dict[str, Any]) -> None:
    whole(tongue, asked)
    sends_parts_without_credit(tongue, asked)


def says_goodbye_over_and_over(tongue: Tongue, asked: dict[str, Any]) -> None:
    for _ in range(200):
        tongue.say("goaway", reason="x" * 1000)
    whole(tongue, asked)


def asks_who_takes_no_requests(tongue: Tongue, asked: dict[str, Any]) -> None:
    for number in range(200):
        tongue.ask(f"liar-{number}")
    whole(tongue, asked)


def cancels_and_credits_what_it_never_asked(tongue: Tongue, asked: dict[str, Any]) -> None:
    for _ in range(500):
        tongue.say("cancel", id=asked["id"])
        tongue.say("credit", id=asked["id"], credit=MOST)
    whole(tongue, asked)


def says_what_nobody_knows(tongue: Tongue, asked: dict[str, Any]) -> None:
    for _ in range(500):
        tongue.say("gossip", id=asked["id"])
    whole(tongue, asked)


def stammers(tongue: Tongue, asked: dict[str, Any]) -> None:
    for _ in range(5):
        tongue.peer.send(BINARY, b"\xff")
    whole(tongue, asked)


ONCE = {"size": 100}
STREAM = {"size": 100, "parts": 10}
TALKATIVE = {"size": 100, "parts": 200}


@SUBPROTOCOLS
@pytest.mark.parametrize(
    ("lie", "kind", "ending"),
    [
        (ends_twice, ONCE, Ending.ANSWERED),
        (ends_twice, STREAM, Ending.ANSWERED),
        (sends_parts_without_credit, ONCE, Ending.UNREADABLE),
        (sends_parts_without_credit, TALKATIVE, Ending.UNREADABLE),
        (goes_on_behind_the_end, ONCE, Ending.ANSWERED),
        (goes_on_behind_the_end, STREAM, Ending.ANSWERED),
        (says_goodbye_over_and_over, ONCE, Ending.ANSWERED),
        (asks_who_takes_no_requests, STREAM, Ending.ANSWERED),
        (cancels_and_credits_what_it_never_asked, STREAM, Ending.ANSWERED),
        (says_what_nobody_knows, ONCE, Ending.ANSWERED),
        (stammers, ONCE, Ending.ANSWERED),
    ],
)
async def test_a_server_that_lies_once_in_a_while(
    lie: Callable[[Tongue, dict[str, Any]], None],
    kind: dict[str, Any],
    ending: Ending,
    subprotocol: str,
    lying_server: Any,
) -> None:
    ledger = Ledger()
    lies = 0

    async def script(peer: Any) -> None:
        nonlocal lies
        peer.head = await peer.reader.readuntil(b"\r\n\r\n")
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
        peer.write(accepting(peer.head)[:-2] + chosen)
        tongue = Tongue(peer, subprotocol)
        while (heard := await tongue.hear())["kind"] != "close":
            if heard["kind"] == "request":
                ledger.ran(heard["id"])
                lies += len(ledger.runs) % 5 == 0
                (whole if len(ledger.runs) % 5 else lie)(tongue, heard)
        peer.send(CLOSE, heard["code"].to_bytes(2, "big"))

    async with lying_server(script, handshake=False) as server:
        options: dict[str, Any] = {"backoff": lambda _: 0.01, "close_timeout": 0.5}
        async with connect(server.url, **options) as client:
            async with Load(ledger, client, kinds=[ONCE, kind], callers=1, timeout=20) as load:
                await load.answers(20)
            assert client.stats()["pending"] == 0
    assert lies
    assert set(ledger.endings) == {Ending.ANSWERED, ending}
    ledger.check()
