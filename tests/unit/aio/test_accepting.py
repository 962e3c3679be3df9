"""The time of an opening handshake, on a clock that a test moves: who is asked early is not ended early."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sage_ws import Server
from sage_ws.aio.accepting import ServerOpening
from sage_ws.aio.hub import Hub

TIMEOUT = 8.0


async def echo(message: Any) -> bytes:
    return message.payload  # type: ignore[no-any-return]


class Loop:
    """A clock, and the one timer that its hub has set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return False

    def call_at(self, due: float, call: Any) -> Loop:
        self.timers = [(due, call)]
        return self

    def call_later(self, delay: float, call: Any) -> Loop:
        return self

    def cancel(self) -> None:
        self.timers = []

    def fire(self) -> None:
        (due, call), *_ = self.timers
        self.timers = []
        self.now = due
        call()


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


@pytest.fixture
def loop() -> Loop:
    return Loop()


def accepted(loop: Loop, **options: Any) -> tuple[ServerOpening, Transport]:
    return ServerOpening(Server(echo, **options), Hub(cast("Any", loop))), Transport()


def test_it_ends_when_its_time_is_over_and_not_before(loop: Loop) -> None:
    begun = loop.now
    opening, transport = accepted(loop, open_timeout=TIMEOUT)
    opening.connection_made(transport)
    while loop.timers:
        assert not transport.written
        loop.fire()
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert TIMEOUT <= loop.now - begun < TIMEOUT + 0.01


def test_time_that_passed_before_it_was_made_counts(loop: Loop) -> None:
    opening, transport = accepted(loop, open_timeout=TIMEOUT)
    begun = loop.now
    loop.now += TIMEOUT - 1  # TLS took its time
    opening.connection_made(transport)
    while loop.timers:
        loop.fire()
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert loop.now - begun < TIMEOUT + 0.01


@pytest.mark.parametrize("sent", [b"\x16\x03", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_one_that_is_over_is_not_asked_any_more(loop: Loop, sent: bytes) -> None:
    opening, transport = accepted(loop, open_timeout=TIMEOUT)
    opening.connection_made(transport)
    opening.data_received(sent)
    answer = transport.written
    assert answer
    while loop.timers:
        loop.fire()
    assert transport.written == answer


def test_without_a_limit_nothing_is_armed(loop: Loop) -> None:
    opening, transport = accepted(loop, open_timeout=None)
    opening.connection_made(transport)
    assert loop.timers == []
