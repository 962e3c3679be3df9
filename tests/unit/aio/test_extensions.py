"""permessage-deflate in the opening handshake: what is offered, chosen and agreed on (RFC 7692 §7.1)."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.headers import build_extension
from websockets.uri import parse_uri

from sage_ws import Deflate, DialError
from sage_ws.aio import extensions, opening
from sage_ws.aio.opening import Refusal

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
NAME = "permessage-deflate"
TAKING_OVER = Deflate(
    server_no_context_takeover=False,
    client_no_context_takeover=False,
    server_max_window_bits=12,
    client_max_window_bits=12,
)
ALONE = Deflate(server_max_window_bits=12, client_max_window_bits=12)
WIDE = Deflate(
    server_no_context_takeover=False,
    client_no_context_takeover=False,
    threshold=7,
    level=1,
    memory_level=9,
)


def a_client(compression: Any) -> ClientProtocol:
    protocol = ClientProtocol(
        parse_uri("ws://agent.example/ws"),
        extensions=extensions.offers(compression),
        logger=opening.QUIET,
    )
    protocol.key = KEY
    opening.encode_request(protocol, [])
    return protocol


def judged(compression: Any, *answers: str) -> Any:
    """What a client takes of a server's answer."""
    lines = "".join(f"Sec-WebSocket-Extensions: {answer}\r\n" for answer in answers)
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {ACCEPT}\r\n{lines}\r\n"
    )
    protocol = a_client(compression)
    assert opening.check_response(protocol, head.encode()) == 101
    return extensions.agreed(protocol, compression)


def chosen(compression: Any, *offers: str) -> tuple[str | None, Any]:
    """What a server makes of a client's offers."""
    lines = "".join(f"Sec-WebSocket-Extensions: {offer}\r\n" for offer in offers)
    head = (
        "GET /ws HTTP/1.1\r\nHost: agent.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
    return extensions.choose(opening.parse_request(head.encode(), None), compression)


class TestOffers:
    @pytest.mark.parametrize(
        ("compression", "offers"),
        [
            (
                "deflate",
                f"{NAME}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
            ),
            (WIDE, f"{NAME}; client_max_window_bits"),
            (
                TAKING_OVER,
                f"{NAME}; server_max_window_bits=12; client_max_window_bits=12, "
                f"{NAME}; client_max_window_bits=12",
            ),
            (
                ALONE,
                f"{NAME}; server_no_context_takeover; client_no_context_takeover;"
                " server_max_window_bits=12; client_max_window_bits=12, "
                f"{NAME}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=12",
            ),
        ],
    )
    def test_the_best_comes_first(self, compression: Any, offers: str) -> None:
        made = [(one.name, one.get_request_params()) for one in extensions.offers(compression)]
        assert build_extension(made) == offers


class TestAgreed:
    @pytest.mark.parametrize(
        ("compression", "answer", "parameters"),
        [
            (TAKING_OVER, f"{NAME}; server_max_window_bits=12", (12, True, 12, True)),
            (TAKING_OVER, f"{NAME}; server_max_window_bits=9; client_max_window_bits=9", (9, True, 9, True)),
            (TAKING_OVER, f'{NAME}; server_max_window_bits="10"', (12, True, 10, True)),
            # a server that cannot bound its window, as Go's
            (TAKING_OVER, NAME, (12, True, 15, True)),
            (
                TAKING_OVER,
                f"{NAME}; server_no_context_takeover; client_no_context_takeover",
                (12, False, 15, False),
            ),
            (ALONE, f"{NAME}; server_no_context_takeover", (12, False, 15, False)),
            (WIDE, f"{NAME}; client_max_window_bits=11", (11, True, 15, True)),
            (WIDE, f"{NAME}; client_max_window_bits=15; server_max_window_bits=8", (15, True, 8, True)),
        ],
    )
    def test_what_a_server_chose(self, compression: Any, answer: str, parameters: Any) -> None:
        effort = (compression.threshold, compression.level, compression.memory_level)
        assert judged(compression, answer) == (*parameters, *effort)

    def test_what_a_go_server_chooses(self) -> None:
        answer = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
        assert judged("deflate", answer) == (15, False, 15, False, 1024, 6, 8)

    def test_nothing_chosen_is_no_compression(self) -> None:
        assert judged(TAKING_OVER) is None

    @pytest.mark.parametrize(
        "answers",
        [
            [f"{NAME}; server_max_window_bits=16"],
            [f"{NAME}; server_max_window_bits=7"],
            [f"{NAME}; server_max_window_bits=012"],
            [f"{NAME}; server_max_window_bits"],
            [f"{NAME}; client_max_window_bits"],
            [f"{NAME}; client_max_window_bits=13"],
            [f"{NAME}; client_max_window_bits=8"],
            [f"{NAME}; server_no_context_takeover=1"],
            [f"{NAME}; server_no_context_takeover; server_no_context_takeover"],
            [f"{NAME}; x=10"],
            [NAME, NAME],
            [f"{NAME}, {NAME}"],
            [f"{NAME}, x-unknown"],
            ["x-unknown"],
            [f"{NAME};"],
            [f"{NAME}; =5"],
            [""],
        ],
        ids=repr,
    )
    def test_what_a_server_must_not_choose(self, answers: list[str]) -> None:
        with pytest.raises(DialError, match=r"^the 101 answer is not a WebSocket's: ") as raised:
            judged(TAKING_OVER, *answers)
        assert raised.value.status == 101

    def test_what_was_asked_for_must_be_given(self) -> None:
        with pytest.raises(DialError, match="Unsupported extension"):
            judged(ALONE, f"{NAME}; client_no_context_takeover")


class TestChoose:
    @pytest.mark.parametrize(
        ("compression", "offer", "answer", "parameters"),
        [
            (TAKING_OVER, NAME, f"{NAME}; server_max_window_bits=12", (12, True, 15, True)),
            (
                TAKING_OVER,
                f"{NAME}; client_max_window_bits",
                f"{NAME}; server_max_window_bits=12; client_max_window_bits=12",
                (12, True, 12, True),
            ),
            (
                TAKING_OVER,
                f"{NAME}; client_max_window_bits=9; server_max_window_bits=10",
                f"{NAME}; server_max_window_bits=10; client_max_window_bits=9",
                (10, True, 9, True),
            ),
            (
                TAKING_OVER,
                f"{NAME}; server_no_context_takeover; client_no_context_takeover",
                f"{NAME}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
                (12, False, 15, False),
            ),
            (
                ALONE,
                f"{NAME}; client_max_window_bits=8",
                f"{NAME}; server_no_context_takeover; client_no_context_takeover;"
                " server_max_window_bits=12; client_max_window_bits=8",
                (12, False, 8, False),
            ),
            # the first that can be had, of several
            (
                TAKING_OVER,
                f"x; a, {NAME}; x=1, {NAME}; server_max_window_bits=8, {NAME}; server_max_window_bits=9",
                f"{NAME}; server_max_window_bits=9",
                (9, True, 15, True),
            ),
        ],
    )
    def test_an_offer_that_can_be_had(
        self, compression: Any, offer: str, answer: str, parameters: Any
    ) -> None:
        header, agreed = chosen(compression, offer)
        assert header == answer
        assert agreed == (*parameters, compression.threshold, compression.level, compression.memory_level)

    @pytest.mark.parametrize(
        "offers",
        [
            [],
            ["x-unknown; a=1, y"],
            [f"{NAME}; x=10"],
            [f"{NAME}; server_max_window_bits"],
            [f"{NAME}; server_max_window_bits=8"],
            [f"{NAME}; server_max_window_bits=16"],
            [f"{NAME}; client_max_window_bits=7"],
            [f"{NAME}; client_no_context_takeover=1"],
            [f"{NAME}; client_no_context_takeover; client_no_context_takeover"],
        ],
        ids=repr,
    )
    def test_an_offer_that_cannot_is_declined(self, offers: list[str]) -> None:
        assert chosen(TAKING_OVER, *offers) == (None, None)

    def test_the_default(self) -> None:
        both = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
        for offer in (NAME, f"{NAME}; client_max_window_bits", both):
            assert chosen("deflate", offer) == (both, (15, False, 15, False, 1024, 6, 8))

    def test_one_is_chosen_once(self) -> None:
        header, _ = chosen(TAKING_OVER, NAME, NAME)
        assert header == f"{NAME}; server_max_window_bits=12"

    @pytest.mark.parametrize("offer", [f"{NAME};", f"{NAME}; =5", "a b", f"{NAME}; a="], ids=repr)
    def test_a_malformed_offer_is_refused(self, offer: str) -> None:
        with pytest.raises(Refusal, match=r"^malformed Sec-WebSocket-Extensions header$") as refused:
            chosen(TAKING_OVER, offer)
        assert refused.value.status == 400

    def test_the_answer_of_one_is_agreed_on_by_the_other(self) -> None:
        for ours in (Deflate(), TAKING_OVER, ALONE, WIDE, Deflate(server_max_window_bits=9)):
            for theirs in (Deflate(), TAKING_OVER, ALONE, WIDE):
                offer = build_extension(
                    [(one.name, one.get_request_params()) for one in extensions.offers(ours)]
                )
                header, server = chosen(theirs, offer)
                assert header is not None
                client = judged(ours, header)
                # neither sends with a window, or with a memory, that the other does not keep
                for sender, receiver in ((client, server), (server, client)):
                    assert sender[0] <= receiver[2]
                    assert sender[1] <= receiver[3]
