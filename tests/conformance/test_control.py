"""Control frames: pings, pongs, their size, the bound on pongs that the socket refuses (RFC 6455 §5.5)."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ws._core.events import Closing, Pong

CLOSE, PING, PONG = 8, 9, 10
TOO_LONG = "control frame longer than 125 bytes"
TOO_MANY = "too many pings unanswered"
SIZES = (0, 1, 2, 4, 5, 63, 124, 125)


def octets(length: int) -> bytes:
    return bytes((31 * index + 7) % 256 for index in range(length))


# ── size (§5.5) ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG], ids=lambda opcode: f"5.5-{opcode}")
@pytest.mark.parametrize("length", [126, 127, 65535, 65536], ids=lambda length: f"of-{length}")
def test_a_longer_payload(endpoint: Any, opcode: int, length: int) -> None:
    endpoint.fails(b"", endpoint.peer.frame(opcode, claims=length)[:2], 1002, TOO_LONG)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG], ids=lambda opcode: f"5.5-{opcode}")
@pytest.mark.parametrize("extended", [2, 8], ids=lambda extended: f"short-length-in-{extended}-bytes")
def test_a_longer_form_of_the_length(endpoint: Any, opcode: int, extended: int) -> None:
    endpoint.fails(b"", endpoint.peer.frame(opcode, claims=5, extended=extended)[:2], 1002, TOO_LONG)


# ── pings (§5.5.2) ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("length", SIZES, ids=lambda length: f"5.5.2-ping-of-{length}")
def test_a_pong_has_the_pings_payload(endpoint: Any, length: int) -> None:
    endpoint.takes(endpoint.peer.ping(octets(length)), [], [(PONG, octets(length))])


def test_5_5_2_every_ping_is_answered_in_order(endpoint: Any) -> None:
    peer = endpoint.peer
    payloads = [octets(n) for n in range(126)]
    data = b"".join(peer.ping(payload) for payload in payloads)
    endpoint.takes(data + peer.text("after"), ["after"], [(PONG, payload) for payload in payloads])


def test_5_5_2_a_pong_is_binary(endpoint: Any) -> None:
    endpoint.takes(endpoint.peer.ping(b"\xff\xfe\x80"), [], [(PONG, b"\xff\xfe\x80")])


def test_5_5_2_no_pong_before_the_ping_is_whole(endpoint: Any) -> None:
    connection = endpoint.connection()
    ping = endpoint.peer.ping(b"late")
    for end in range(len(ping)):
        assert connection.receive_data(ping[end : end + 1]) == []
        assert bool(connection.data_to_send()) == (end == len(ping) - 1)


def test_5_5_2_no_pong_after_the_peers_close(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(peer.close(1000) + peer.ping(b"x"), [Closing(1000, "", True)], [(CLOSE, b"\x03\xe8")])


@pytest.mark.parametrize("length", SIZES, ids=lambda length: f"5.5.2-sends-ping-of-{length}")
def test_pings_out(endpoint: Any, length: int) -> None:
    endpoint.takes(
        b"", [], [(PING, octets(length))], before=lambda connection: connection.send_ping(octets(length))
    )


def test_5_5_2_a_ping_out_fits_a_control_frame(endpoint: Any) -> None:
    connection = endpoint.connection()
    with pytest.raises(ValueError, match="^ping payload over 125 bytes$"):
        connection.send_ping(bytes(126))
    assert connection.data_to_send() == b""


# ── pongs (§5.5.3) ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("length", SIZES, ids=lambda length: f"5.5.3-pong-of-{length}")
def test_a_pong_nobody_asked_for_is_not_answered(endpoint: Any, length: int) -> None:
    endpoint.takes(endpoint.peer.pong(octets(length)), [Pong(octets(length))])


def test_5_5_3_a_pong_is_not_answered_by_a_pong(endpoint: Any) -> None:
    peer = endpoint.peer
    endpoint.takes(
        peer.pong(b"echo") + peer.text("x"),
        [Pong(b"echo"), "x"],
        [(PING, b"echo")],
        before=lambda connection: connection.send_ping(b"echo"),
    )


# ── pongs that the socket refuses (docs/reliability.md, "Ping flood") ─────────────────
def blocked(connection: Any) -> None:
    connection.set_blocked(True)


@pytest.mark.parametrize("length", [0, 125])
def test_5_5_2_64_pongs_wait(endpoint: Any, length: int) -> None:
    peer = endpoint.peer
    pong = (PONG, octets(length))
    endpoint.takes(peer.ping(octets(length)) * 64, [], [pong] * 64, before=blocked)
    endpoint.takes(
        peer.ping(octets(length)) * 1000 + peer.text("never"),
        [Closing(1008, TOO_MANY, False)],
        [*[pong] * 64, (CLOSE, b"\x03\xf0" + TOO_MANY.encode())],
        before=blocked,
    )


def test_5_5_2_a_flood_of_100_000_is_cut_at_the_65th(endpoint: Any) -> None:
    connection = endpoint.connection()
    connection.set_blocked(True)
    flood = endpoint.peer.ping(b"x" * 125) * 1000
    events = [event for _ in range(100) for event in connection.receive_data(flood)]
    assert events == [Closing(1008, TOO_MANY, False)]
    assert connection.buffered < 65 * (2 + 4 + 125)


def test_5_5_2_a_socket_that_takes_bytes_sets_the_count_back(endpoint: Any) -> None:
    connection = endpoint.connection()
    pings = endpoint.peer.ping(b"?")
    for _ in range(10):
        connection.set_blocked(True)
        assert connection.receive_data(pings * 64) == []
        connection.set_blocked(False)
        assert connection.receive_data(pings * 1000) == []
        assert endpoint.peer.read(connection.data_to_send()) == [(PONG, b"?")] * 1064


def test_5_5_2_data_does_not_count_as_pings(endpoint: Any) -> None:
    peer = endpoint.peer
    data = peer.ping() * 64 + peer.pong() * 100 + peer.text("x") * 100
    endpoint.takes(data, [*[Pong(b"")] * 100, *["x"] * 100], [(PONG, b"")] * 64, before=blocked)
