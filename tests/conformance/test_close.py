"""Closing: close frames, their codes, and what happens after one (RFC 6455 §5.5.1, §7)."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ws._core.events import Closing, Pong

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

# §7.4.1 and its registry, §7.4.2. 1014 is registered, but the reference refuses it (talking-to-go.md).
SOUND = (*range(1000, 1004), *range(1007, 1014), *range(3000, 5000))
SOUND_ENDS = (
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    3000,
    3001,
    3999,
    4000,
    4998,
    4999,
)
BROKEN_ENDS = (
    0,
    1,
    255,
    256,
    999,
    1004,
    1005,
    1006,
    1014,
    1015,
    1016,
    1100,
    2000,
    2999,
    5000,
    5001,
    32768,
    65535,
)


def octets(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


# ── the peer closes (§5.5.1, §7.1.5, §7.1.6) ──────────────────────────────────────────
@pytest.mark.parametrize("code", SOUND_ENDS, ids=lambda code: f"7.4-{code}")
def test_a_code_is_echoed(endpoint: Any, code: int) -> None:
    peer = endpoint.peer
    endpoint.takes(peer.close(code), [Closing(code, "", True)], [(CLOSE, octets(code))])


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("bye", id="7.1.6-ascii"),
        pytest.param("tschüß, 世界 😀", id="7.1.6-unicode"),
        pytest.param("\0\x1b[31m", id="7.1.6-control-characters"),
        pytest.param("r" * 123, id="7.1.6-123-bytes"),
        pytest.param("é" * 61, id="7.1.6-122-bytes"),
    ],
)
def test_a_reason_is_read_and_not_echoed(endpoint: Any, reason: str) -> None:
    endpoint.takes(endpoint.peer.close(3000, reason), [Closing(3000, reason, True)], [(CLOSE, octets(3000))])


def test_7_1_5_no_code_is_answered_by_no_code(endpoint: Any) -> None:
    endpoint.takes(endpoint.peer.close(), [Closing(None, "", True)], [(CLOSE, b"")])


@pytest.mark.parametrize("code", BROKEN_ENDS, ids=lambda code: f"7.4-{code}")
def test_a_code_that_may_not_be_sent(endpoint: Any, code: int) -> None:
    peer = endpoint.peer
    endpoint.fails(b"", peer.close(code), 1002, f"invalid close code {code}")
    endpoint.fails(peer.text("a"), peer.close(code, "why"), 1002, f"invalid close code {code}", events=["a"])


def test_7_4_every_code(endpoint: Any) -> None:
    sound = set(SOUND)
    for code in range(1 << 16):
        connection = endpoint.connection()
        (closing,) = connection.receive_data(endpoint.peer.close(code))
        answer = connection.data_to_send()[-2:] if code in sound else b""
        if code in sound:
            assert closing == (code, "", True)
            assert endpoint.role == "client" or answer == octets(code)
        else:
            assert closing == (1002, f"invalid close code {code}", False)


def test_5_5_1_half_a_code(endpoint: Any) -> None:
    for octet in (b"\x03", b"\x00", b"\xff"):
        endpoint.fails(b"", endpoint.peer.frame(CLOSE, octet), 1002, "close frame with one byte")


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param(b"\xff", id="8.1-ff"),
        pytest.param(b"bye \x80", id="8.1-lone-continuation"),
        pytest.param(b"\xed\xa0\x80", id="8.1-surrogate"),
        pytest.param(b"\xc0\xaf", id="8.1-overlong"),
        pytest.param(b"\xf4\x90\x80\x80", id="8.1-beyond-10ffff"),
        pytest.param(b"r" * 122 + b"\xc3", id="8.1-ends-inside-a-character"),
    ],
)
def test_a_reason_that_is_not_utf8(endpoint: Any, reason: bytes) -> None:
    peer = endpoint.peer
    endpoint.fails(b"", peer.close(1000, reason), 1007, "invalid UTF-8 in a close reason")
    endpoint.fails(b"", peer.close(999, reason), 1002, "invalid close code 999")


# ── after the peer's close (§7.1.1, §1.4) ─────────────────────────────────────────────
def test_5_5_1_nothing_is_read_behind_a_close(endpoint: Any) -> None:
    peer = endpoint.peer
    data = peer.text("a") + peer.close(1000) + peer.text("b") + peer.ping() + peer.close(1001) + b"\xff" * 9
    endpoint.takes(data, ["a", Closing(1000, "", True)], [(CLOSE, octets(1000))])


def test_5_5_1_nothing_is_sent_behind_a_close(endpoint: Any) -> None:
    connection = endpoint.connection()
    connection.receive_data(endpoint.peer.close(1000))
    assert connection.closing
    connection.data_to_send()
    assert connection.send_raw("text") == 0
    assert connection.send_raw(b"binary") == 0
    assert connection.send_ping(b"ping") == 0
    assert connection.send_close(1000) == 0
    assert connection.send_keepalive() == 0
    assert connection.data_to_send() == b""


def test_5_5_1_what_was_queued_goes_before_the_echo(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(
        peer.ping(b"p") + peer.close(1001),
        [Closing(1001, "", True)],
        [(TEXT, b"queued"), (PONG, b"p"), (CLOSE, octets(1001))],
        before=lambda connection: connection.send_raw("queued"),
    )


# ── we close (§7.1.2, §7.1.7) ─────────────────────────────────────────────────────────
@pytest.mark.parametrize("code", SOUND_ENDS, ids=lambda code: f"7.4-sends-{code}")
def test_codes_out(endpoint: Any, code: int) -> None:
    endpoint.takes(
        b"", [], [(CLOSE, octets(code, b"why"))], before=lambda connection: connection.send_close(code, "why")
    )


@pytest.mark.parametrize("code", [-1, *BROKEN_ENDS, 65536], ids=lambda code: f"7.4-does-not-send-{code}")
def test_codes_that_are_not_sent(endpoint: Any, code: int) -> None:
    connection = endpoint.connection()
    with pytest.raises(ValueError, match=f"^invalid close code {code}$"):
        connection.send_close(code)
    assert not connection.closing
    assert connection.data_to_send() == b""


def test_5_5_1_a_close_out_fits_a_control_frame(endpoint: Any) -> None:
    for reason in ("r" * 124, "é" * 62):
        connection = endpoint.connection()
        with pytest.raises(ValueError, match="^close reason over 123 bytes$"):
            connection.send_close(1000, reason)
        assert not connection.closing
    for reason in ("r" * 123, "é" * 61):
        connection = endpoint.connection()
        connection.send_close(1000, reason)
        assert endpoint.peer.read(connection.data_to_send()) == [(CLOSE, octets(1000, reason.encode()))]


def test_5_5_1_a_close_without_a_code(endpoint: Any) -> None:
    endpoint.takes(b"", [], [(CLOSE, b"")], before=lambda connection: connection.send_close(None))


def test_5_5_1_one_close_frame_only(endpoint: Any) -> None:
    connection = endpoint.connection()
    connection.send_close(1000, "first")
    connection.send_close(1001, "second")
    connection.send_raw("third")
    assert endpoint.peer.read(connection.data_to_send()) == [(CLOSE, octets(1000, b"first"))]


@pytest.mark.parametrize("code", [None, 1000, 1001, 4999])
def test_7_1_2_the_peers_echo_ends_it(endpoint: Any, code: int | None) -> None:
    peer = endpoint.peer
    endpoint.takes(
        peer.pong(b"p") + peer.close(code) + peer.text("x"),
        [Pong(b"p"), Closing(code, "", True)],
        [(CLOSE, octets(1001, b"bye"))],
        before=lambda connection: connection.send_close(1001, "bye"),
    )


def test_7_1_2_the_peer_may_still_send_before_its_echo(client: Any) -> None:
    peer = client.peer
    data = peer.text("on its way") + peer.text("a", fin=False) + peer.last(b"b") + peer.close(1000)
    client.takes(
        data,
        ["on its way", "ab", Closing(1000, "", True)],
        [(CLOSE, octets(1000))],
        before=lambda connection: connection.send_close(),
    )


def test_1_4_a_server_discards_what_comes_after_its_close(server: Any) -> None:
    peer = server.peer
    data = peer.text("x") + peer.binary(b"a", fin=False) + peer.last(b"b") + peer.close(1000)
    server.takes(
        data,
        [Closing(1000, "", True)],
        [(CLOSE, octets(1001))],
        before=lambda connection: connection.send_close(1001),
    )


def test_7_1_7_a_failure_after_our_close_sends_no_second(endpoint: Any) -> None:
    endpoint.takes(
        endpoint.peer.frame(3),
        [Closing(1002, "unknown opcode 3", False)],
        [(CLOSE, octets(1000))],
        before=lambda connection: connection.send_close(1000),
    )


def test_7_1_7_bad_text_after_our_close_is_still_judged(endpoint: Any) -> None:
    endpoint.takes(
        endpoint.peer.text(b"\xff"),
        [Closing(1007, "invalid UTF-8", False)],
        [(CLOSE, octets(1000))],
        before=lambda connection: connection.send_close(1000),
    )


def test_7_1_7_what_was_queued_goes_before_the_failure(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(
        peer.ping(b"p") + peer.text(b"\xff"),
        [Closing(1007, "invalid UTF-8", False)],
        [(BINARY, b"queued"), (PONG, b"p"), (CLOSE, octets(1007, b"invalid UTF-8"))],
        before=lambda connection: connection.send_raw(b"queued"),
    )
