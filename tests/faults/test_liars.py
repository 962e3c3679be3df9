"""Peers that lie in the middle of their work: it costs the calls it must, and nobody else."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.handling import answer_of, payload_of
from tests.faults.ledger import Ending, Ledger
from tests.faults.load import Load

from sage_ws import connect, serve

pytestmark = pytest.mark.usefixtures("baseline")

TEXT, CLOSE, PING = 0x1, 0x8, 0x9


def size_of(request: dict[str, Any]) -> int:
    return len(b64decode(request["payload"]))


def truth(peer: Any, request: dict[str, Any]) -> None:
    peer.answer(request["id"], answer_of(request["id"], size_of(request)))


# What a server does with a request in place of the answer, and how the call ends.
def answers_twice(peer: Any, request: dict[str, Any]) -> None:
    truth(peer, request)
    peer.answer(request["id"], b"another")


def answers_another_first(peer: Any, request: dict[str, Any]) -> None:
    peer.answer("nobody's", b"another")
    truth(peer, request)


def talks_of_something_else(peer: Any, request: dict[str, Any]) -> None:
    peer.send(TEXT, b'["no answer"]')
    peer.send(TEXT, b"\x7b")
    truth(peer, request)


def asks_instead(peer: Any, request: dict[str, Any]) -> None:
    peer.send_json({"id": "m-0", "payload": "eA==", "did": "did:sage:liar"})
    truth(peer, request)


def pings_much(peer: Any, request: dict[str, Any]) -> None:
    for number in range(100):
        peer.send(PING, str(number).encode())
    truth(peer, request)


def answers_unreadably(peer: Any, request: dict[str, Any]) -> None:
    peer.send_json({"success": True, "message_id": request["id"], "data": "no base64"})


def says_nothing(peer: Any, request: dict[str, Any]) -> None:
    pass


def says_goodbye(peer: Any, request: dict[str, Any]) -> None:
    peer.close_frame(1000)


def ends_in_the_middle_of_a_frame(peer: Any, request: dict[str, Any]) -> None:
    answer = {"success": True, "message_id": request["id"], "data": b64encode(b"x" * 1000).decode()}
    peer.write(peer.frame(TEXT, json.dumps(answer).encode())[:500])
    peer.writer.close()


def masks(peer: Any, request: dict[str, Any]) -> None:
    peer.send(TEXT, b"{}", masked=True)


def lies_about_a_length(peer: Any, request: dict[str, Any]) -> None:
    peer.write(b"\x81\x7f" + (2**63 - 1).to_bytes(8, "big"))


def sends_no_utf_8(peer: Any, request: dict[str, Any]) -> None:
    peer.send(TEXT, b'{"success": true, "message_id": "\xff"}')


@pytest.mark.parametrize(
    ("lie", "ending"),
    [
        (answers_twice, Ending.ANSWERED),
        (answers_another_first, Ending.ANSWERED),
        (talks_of_something_else, Ending.ANSWERED),
        (asks_instead, Ending.ANSWERED),
        (pings_much, Ending.ANSWERED),
        (answers_unreadably, Ending.UNREADABLE),
        (says_nothing, Ending.MAYBE),
        (says_goodbye, Ending.MAYBE),
        (ends_in_the_middle_of_a_frame, Ending.MAYBE),
        (masks, Ending.MAYBE),
        (lies_about_a_length, Ending.MAYBE),
        (sends_no_utf_8, Ending.MAYBE),
    ],
)
async def test_a_server_that_lies_once_in_a_while(
    lie: Callable[[Any, dict[str, Any]], None], ending: Ending, lying_server: Any
) -> None:
    requests = 0

    async def script(peer: Any) -> None:
        nonlocal requests
        while (frame := await peer.read_frame()).opcode != CLOSE:
            if frame.opcode == TEXT:
                requests += 1
                request = json.loads(frame.payload)
                ledger.ran(request["id"])
                (truth if requests % 10 else lie)(peer, request)
        peer.send(CLOSE, frame.payload[:2])

    ledger = Ledger()
    async with lying_server(script) as server:
        options: dict[str, Any] = {"backoff": lambda _: 0.01, "close_timeout": 0.5}
        async with connect(server.url, **options) as client:
            async with Load(ledger, client, callers=4, timeout=0.1 if lie is says_nothing else 20) as load:
                await load.answers(30)
            assert client.stats()["pending"] == 0
    ledger.check()
    assert set(ledger.endings) <= {Ending.ANSWERED, ending}
    assert ledger.endings[ending] >= 2


def request(message_id: str, size: int = 100) -> dict[str, Any]:
    payload = b64encode(payload_of(message_id, size)).decode()
    return {"id": message_id, "payload": payload, "did": "did:sage:liar"}


# What a client does to a server.
def asks_twice_by_one_id(peer: Any) -> None:
    for _ in range(20):
        peer.send_json(request("liar"))


def asks_and_hangs_up(peer: Any) -> None:
    for number in range(100):
        peer.send_json(request(f"liar-{number}", 10_000))
    peer.abort()


def breaks_off(peer: Any) -> None:
    peer.write(peer.frame(TEXT, json.dumps(request("liar")).encode())[:50])
    peer.abort()


def does_not_mask(peer: Any) -> None:
    peer.send(TEXT, b"{}", masked=False)


def announces_too_much(peer: Any) -> None:
    peer.write(b"\x81\xff" + (2**63 - 1).to_bytes(8, "big") + b"mask")


def talks_nonsense(peer: Any) -> None:
    for text in (b"", b"[]", b"{", b"nonsense" * 1000):
        peer.send(TEXT, text)


def reads_nothing(peer: Any) -> None:
    peer.writer.transport.pause_reading()
    for number in range(100):
        peer.send_json(request(f"liar-{number}", 60_000))


@pytest.mark.parametrize(
    "lie",
    [
        asks_twice_by_one_id,
        asks_and_hangs_up,
        breaks_off,
        does_not_mask,
        announces_too_much,
        talks_nonsense,
        reads_nothing,
    ],
)
async def test_a_client_that_lies_beside_an_honest_one(
    lie: Callable[[Any], None], raw_client: Any, eventually: Any
) -> None:
    ledger = Ledger("honest")
    async with serve(ledger.handler, close_timeout=0.5) as server:
        async with connect(f"ws://127.0.0.1:{server.port}") as client:
            async with Load(ledger, client, callers=4, timeout=20) as load:
                for _ in range(3):
                    async with raw_client(server.port) as peer:
                        lie(peer)
                        await load.answers(20)
                await eventually(lambda: server.connection_count == 1)
            await eventually(lambda: server.stats()["pending"] == 0)
            assert client.stats()["dials"] == 1
    assert ledger.answered == len(ledger.calls)
    assert not [problem for problem in ledger.problems() if problem.startswith("honest")]
