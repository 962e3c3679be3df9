"""Pings, the closing handshake, and what is still done after it (RFC 6455 §5.5, §7). Both roles."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from sage_ws._core import SecureMessage, encode_message, encode_response
from sage_ws._core.events import Closing, Pong
from sage_ws.errors import ClosedError, MessageTooBigError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MESSAGE = SecureMessage(b"hi", "did:x", "m-1", task_id="task")
VALID = [1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999]
INVALID = [0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


def _close(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


# ── pings ──────────────────────────────────────────────────────────────────────────────


def test_pings_are_answered_in_order(endpoint: Any) -> None:
    payloads = [b"", b"a", b"x" * 125]
    assert endpoint.receive(*(endpoint.frame(PING, payload) for payload in payloads)) == []
    assert endpoint.sent() == [(PONG, payload) for payload in payloads]


def test_pongs_are_events(endpoint: Any) -> None:
    assert endpoint.receive(endpoint.frame(PONG, b"abc"), endpoint.frame(PONG)) == [Pong(b"abc"), Pong(b"")]
    assert endpoint.sent() == []


def test_our_pings(endpoint: Any) -> None:
    assert endpoint.connection.send_ping() == endpoint.connection.buffered > 0
    endpoint.connection.send_ping(b"x" * 125)
    with pytest.raises(ValueError, match="^ping payload over 125 bytes$"):
        endpoint.connection.send_ping(b"x" * 126)
    assert endpoint.sent() == [(PING, b""), (PING, b"x" * 125)]


def test_the_65th_pong_that_is_stuck_ends_it(endpoint: Any) -> None:
    ping = endpoint.frame(PING, b"?")
    endpoint.connection.set_blocked(True)
    assert endpoint.receive(*[ping] * 64) == []
    assert endpoint.receive(ping, ping) == [Closing(1008, "too many pings unanswered", False)]
    assert endpoint.sent() == [(PONG, b"?")] * 64 + [(CLOSE, _close(1008, b"too many pings unanswered"))]
    assert endpoint.receive(ping) == []


def test_a_socket_that_takes_bytes_again_starts_anew(endpoint: Any) -> None:
    ping = endpoint.frame(PING)
    assert endpoint.receive(*[ping] * 1000) == []
    for _ in range(3):
        endpoint.connection.set_blocked(True)
        assert endpoint.receive(*[ping] * 32) == []
        endpoint.connection.set_blocked(True)
        assert endpoint.receive(*[ping] * 32) == []
        endpoint.connection.set_blocked(False)
        assert endpoint.receive(*[ping] * 1000) == []
    endpoint.connection.set_blocked(True)
    assert endpoint.receive(*[ping] * 65) == [Closing(1008, "too many pings unanswered", False)]


# ── the peer closes ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", VALID)
def test_the_code_is_echoed_without_the_reason(endpoint: Any, code: int) -> None:
    reason = "b\u00fd\u00e9 \U0001f600"
    assert endpoint.receive(endpoint.frame(CLOSE, _close(code, reason.encode()))) == [
        Closing(code, reason, True)
    ]
    assert endpoint.connection.closing
    assert endpoint.sent() == [(CLOSE, _close(code))]


def test_no_code_is_answered_by_none(endpoint: Any) -> None:
    assert endpoint.receive(endpoint.frame(CLOSE)) == [Closing(None, "", True)]
    assert endpoint.sent() == [(CLOSE, b"")]


@pytest.mark.parametrize("code", INVALID)
def test_codes_that_may_not_be_sent(endpoint: Any, code: int) -> None:
    reason = f"invalid close code {code}"
    assert endpoint.receive(endpoint.frame(CLOSE, _close(code, b"\xff"))) == [Closing(1002, reason, False)]
    assert endpoint.sent() == [(CLOSE, _close(1002, reason.encode()))]


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"\x03", 1002, "close frame with one byte"),
        (b"\x03\xe8\xff", 1007, "invalid UTF-8 in a close reason"),
        (b"\x03\xe8ok\xe2\x82", 1007, "invalid UTF-8 in a close reason"),
        (b"\x03\xe8\xed\xa0\x80", 1007, "invalid UTF-8 in a close reason"),
    ],
)
def test_broken_close_frames(endpoint: Any, payload: bytes, code: int, reason: str) -> None:
    assert endpoint.receive(endpoint.frame(CLOSE, payload)) == [Closing(code, reason, False)]
    assert endpoint.sent() == [(CLOSE, _close(code, reason.encode()))]


def test_nothing_is_read_behind_a_close(endpoint: Any) -> None:
    late = [endpoint.frame(PING), endpoint.frame(TEXT, b"{}"), b"\xff\xff"]
    assert endpoint.receive(endpoint.frame(CLOSE, _close(1000)), *late) == [Closing(1000, "", True)]
    assert endpoint.receive(*late) == []
    assert endpoint.sent() == [(CLOSE, _close(1000))]


def test_a_close_inside_fragments(endpoint: Any) -> None:
    assert endpoint.receive(endpoint.frame(TEXT, b"{", fin=False), endpoint.frame(CLOSE)) == [
        Closing(None, "", True)
    ]


# ── we close ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", VALID)
def test_our_close(endpoint: Any, code: int) -> None:
    assert not endpoint.connection.closing
    assert endpoint.connection.send_close(code, "b\u00e9") == endpoint.connection.buffered > 0
    assert endpoint.connection.closing
    assert endpoint.sent() == [(CLOSE, _close(code, "b\u00e9".encode()))]


def test_our_close_by_default(make_endpoint: Callable[..., Any], role: str) -> None:
    endpoint = make_endpoint(role)
    endpoint.connection.send_close()
    assert endpoint.sent() == [(CLOSE, _close(1000))]
    endpoint = make_endpoint(role)
    endpoint.connection.send_close(None)
    assert endpoint.sent() == [(CLOSE, b"")]
    endpoint = make_endpoint(role)
    endpoint.connection.send_close(reason="x" * 123)
    assert endpoint.sent() == [(CLOSE, _close(1000, b"x" * 123))]


@pytest.mark.parametrize("code", [*INVALID, -1, 1 << 40])
def test_our_close_has_a_valid_code(endpoint: Any, code: int) -> None:
    with pytest.raises(ValueError, match=f"^invalid close code {code}$"):
        endpoint.connection.send_close(code)
    assert not endpoint.connection.closing
    assert endpoint.sent() == []


def test_our_close_has_a_short_reason(endpoint: Any) -> None:
    with pytest.raises(ValueError, match="^close reason over 123 bytes$"):
        endpoint.connection.send_close(1000, "\u00e9" * 62)
    assert not endpoint.connection.closing


def test_once_and_no_reply_to_the_reply(endpoint: Any) -> None:
    endpoint.connection.send_close(1001, "bye")
    before = endpoint.connection.buffered
    assert endpoint.connection.send_close(1000) == before
    assert endpoint.sent() == [(CLOSE, _close(1001, b"bye"))]
    assert endpoint.receive(endpoint.frame(CLOSE, _close(1001))) == [Closing(1001, "", True)]
    assert endpoint.sent() == []
    assert endpoint.connection.send_close(1000) == 0


def test_a_broken_frame_after_our_close_ends_it_in_silence(endpoint: Any) -> None:
    endpoint.connection.send_close(1000)
    endpoint.sent()
    assert endpoint.receive(endpoint.frame(3)) == [Closing(1002, "unknown opcode 3", False)]
    assert endpoint.sent() == []
    assert endpoint.receive(endpoint.frame(CLOSE)) == []


def test_a_server_discards_what_comes_after_its_close(make_endpoint: Callable[..., Any]) -> None:
    wire = encode_message("m", "", "", b"x", "d", b"", {}, "")
    for raw in (False, True):
        server = make_endpoint("server", raw=raw)
        assert server.receive(server.frame(TEXT, wire[:9], fin=False)) == []
        server.connection.send_close(1001)
        server.sent()
        frames = [
            server.frame(CONTINUATION, wire[9:]),
            server.frame(TEXT, wire),
            server.frame(TEXT, b"{}"),
            server.frame(BINARY, b"no"),
        ]
        assert server.receive(*frames) == []
        assert server.receive(server.frame(PING, b"?"), server.frame(PONG, b"!")) == [Pong(b"!")]
        assert server.sent() == [(PONG, b"?")]
        assert server.receive(server.frame(CLOSE, _close(1001))) == [Closing(1001, "", True)]
        assert server.sent() == []
        assert server.connection.counters() == {
            "sent": 0,
            "received": 0,
            "late": 0,
            "invalid": 0,
            "dropped": 4,
            "unknown": 0,
        }


def test_a_client_takes_answers_after_its_close(client: Any) -> None:
    client.connection.send_message(MESSAGE, "waiter", inf)
    client.connection.send_close(1000)
    ((waiter, response),) = client.receive(client.frame(TEXT, encode_response(True, "m-1", "", b"x", "")))
    assert waiter == "waiter"
    assert response.data == b"x"


# ── nothing is written behind a close frame ────────────────────────────────────────────


@pytest.fixture(params=["sent", "received", "failed"])
def closing(request: pytest.FixtureRequest, endpoint: Any) -> Any:
    if request.param == "sent":
        endpoint.connection.send_close()
    elif request.param == "received":
        endpoint.receive(endpoint.frame(CLOSE))
    else:
        endpoint.receive(endpoint.frame(5))
    endpoint.sent()
    assert endpoint.connection.closing
    return endpoint


def test_nothing_follows_a_close_frame(closing: Any) -> None:
    connection = closing.connection
    assert connection.send_ping(b"x") == 0
    assert connection.send_keepalive() == 0
    assert connection.send_raw("x") == 0
    assert connection.send_raw(b"x") == 0
    assert connection.send_close(1000) == 0
    assert connection.data_to_send() == b""
    assert connection.buffered == 0
    with pytest.raises(ValueError, match="^ping payload over 125 bytes$"):
        connection.send_ping(b"x" * 126)
    with pytest.raises(ValueError, match="^invalid close code 1005$"):
        connection.send_close(1005)


@pytest.mark.parametrize(("close", "answered"), [("ours", True), ("the peer's", False)])
def test_a_ping_is_answered_until_the_peer_s_close(endpoint: Any, close: str, answered: bool) -> None:
    if close == "ours":
        endpoint.connection.send_close()
    else:
        endpoint.receive(endpoint.frame(CLOSE))
    endpoint.sent()
    assert endpoint.receive(endpoint.frame(PING, b"still there?")) == []
    assert endpoint.sent() == ([(PONG, b"still there?")] if answered else [])


def test_no_keepalive_after_a_close(client: Any) -> None:
    client.connection.send_message(MESSAGE, None, inf)
    client.connection.send_close()
    client.sent()
    assert client.connection.send_keepalive() == 0


def test_no_message_after_a_close(make_endpoint: Callable[..., Any]) -> None:
    def by_us(client: Any) -> None:
        client.connection.send_close()

    def by_peer(client: Any) -> None:
        client.receive(client.frame(CLOSE))

    def by_failure(client: Any) -> None:
        client.receive(client.frame(7))

    for close in (by_us, by_peer, by_failure):
        client = make_endpoint("client")
        client.connection.send_message(MESSAGE, "waiter", inf)
        close(client)
        client.sent()
        # Closing comes before the id: nothing can be sent, whatever it is.
        with pytest.raises(ClosedError, match="^connection is closing$") as refused:
            client.connection.send_message(MESSAGE, "other", inf)
        assert refused.value.message_id == "m-1"
        assert client.sent() == []
        assert client.connection.counters()["sent"] == 1
        assert client.connection.abandon() == [("waiter", "m-1")]


def test_no_response_after_a_close(server: Any) -> None:
    server.connection.send_close()
    server.sent()
    assert server.connection.send_response(MESSAGE, b"late") == 0
    assert server.sent() == []
    assert server.connection.counters()["sent"] == 0
    with pytest.raises(TypeError):
        server.connection.send_response(MESSAGE, 5)


# ── raw messages out ───────────────────────────────────────────────────────────────────


def test_raw_messages_out(make_endpoint: Callable[..., Any], role: str) -> None:
    endpoint = make_endpoint(role, raw=True, max_message_size=100)
    assert endpoint.connection.send_raw("h\u00e9") == endpoint.connection.buffered > 0
    endpoint.connection.send_raw(b"\xff")
    endpoint.connection.send_raw("")
    endpoint.connection.send_raw(b"x" * 100)
    assert endpoint.sent() == [
        (TEXT, "h\u00e9".encode()),
        (BINARY, b"\xff"),
        (TEXT, b""),
        (BINARY, b"x" * 100),
    ]
    with pytest.raises(
        MessageTooBigError, match="^message of 102 bytes is over max_message_size 100$"
    ) as refused:
        endpoint.connection.send_raw("\u00e9" * 51)
    assert refused.value.message_id is None
    assert endpoint.sent() == []


def test_output_is_one_stream(endpoint: Any) -> None:
    connection = endpoint.connection
    assert connection.buffered == 0
    assert connection.data_to_send() == b""
    first = connection.send_ping(b"a")
    second = connection.send_ping(b"bc")
    assert second == 2 * first + 1
    endpoint.receive(endpoint.frame(PING, b"d"))
    output = connection.data_to_send()
    assert type(output) is bytes
    assert len(output) == 3 * first + 1
    assert connection.buffered == 0
    assert connection.data_to_send() == b""


def test_what_a_close_frame_of_ours_cuts_off_is_counted(server: Any) -> None:
    request = server.frame(TEXT, encode_message("m-1", "", "", b"hi", "did:x", b"", {}, ""))
    (message,) = server.receive(request)
    server.connection.send_close()
    sent = server.connection.buffered
    assert server.receive(request, server.frame(TEXT, b"{")) == []
    assert server.connection.send_response(message, b"late") == sent
    assert server.connection.counters() == {
        "sent": 0,
        "received": 1,
        "late": 0,
        "invalid": 0,
        "unknown": 0,
        "dropped": 3,
    }
