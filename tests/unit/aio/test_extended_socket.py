"""The native core's `Socket`, extended: either role asks and serves, and the rest is the link's."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from math import inf
from typing import Any, Literal

import pytest

from sage_ws import DecodeError
from sage_ws._core import (
    Connection,
    Dispatch,
    Poller,
    Response,
    SecureMessage,
    Socket as CoreSocket,
    has_poller,
)
from sage_ws._core.events import Cancel, Credit, GoAway, Part

pytestmark = pytest.mark.skipif(not has_poller, reason="this core has no poller")

Role = Literal["client", "server"]

REQUEST = SecureMessage(b"asked", "did:sage:test", "m-1", task_id="t")


class End:
    """A direct socket, its link and its transport in one, and the peer's connection at the other end."""

    def __init__(self, role: Role, subprotocol: str | None) -> None:
        loop = asyncio.get_running_loop()
        self.poller = Poller(loop)
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.connection = Connection(role, subprotocol=subprotocol)
        self.peer_connection = Connection("client" if role == "server" else "server", subprotocol=subprotocol)
        self.values: list[Any] = []
        self.socket: CoreSocket = self.poller.add(ours.fileno(), self.connection, self)
        ours.close()
        self.socket.limit(1000, 30.0)
        self.socket.start(self)

    def values_received(self, values: list[Any] | None) -> None:
        self.values += values or []

    def poll(self) -> None:
        """The peer's bytes go out, and what came is worked through."""
        data = self.peer_connection.data_to_send()
        if data:
            self.peer.send(data)
        self.poller.poll()

    def at_the_peer(self) -> list[Any]:
        """What the peer's connection makes of our bytes."""
        return self.peer_connection.receive_data(self.peer.recv(1 << 16))

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


@pytest.fixture(params=["client", "server"])
async def role(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["sage.1.json", "sage.1.cbor"])
async def end(role: Role, request: pytest.FixtureRequest) -> Any:
    end = End(role, request.param)
    yield end
    end.close()


async def test_either_role_asks_and_says_how_long_it_waits(end: End) -> None:
    future = end.socket.send(REQUEST, inf, 29.5)
    (asked,) = end.at_the_peer()
    assert asked == REQUEST
    assert asked._terms == (29.5, 0)
    end.peer_connection.send_response(asked, b"answer")
    end.poll()
    assert (await future).data == b"answer"
    assert end.values == []


async def test_many_small_ones_are_written_in_parts(end: End) -> None:
    """So that the peer has something to do before the last one of a batch is made."""
    for number in range(64):
        end.socket.send(REQUEST.replace(id=f"m-{number}"), inf)
    first = end.at_the_peer()
    assert 1 < len(first) < 64  # the first of all is alone, and goes at once
    await asyncio.sleep(0)  # what is left goes with the loop's next turn
    assert len(first) + len(end.at_the_peer()) == 64


async def test_where_the_caller_says_nothing_no_time_travels(end: End) -> None:
    end.socket.due = 0.0  # the link looks at deadlines in time
    end.socket.ask(REQUEST)
    assert [asked._terms for asked in end.at_the_peer()] == [None]
    end.connection.forget(REQUEST.id)
    end.socket.send(REQUEST.replace(id="m-2"), asyncio.get_running_loop().time() + 30)
    assert [asked._terms for asked in end.at_the_peer()] == [None]


async def test_a_deadline_that_is_over(end: End) -> None:
    end.socket.send(REQUEST, inf, -5.0)
    (asked,) = end.at_the_peer()
    assert asked._terms == (0.0, 0)


async def test_what_is_no_futures_is_the_links(end: End) -> None:
    waiter = object()
    end.connection.send_message(REQUEST, waiter, inf, inf, 4)
    end.socket.flush()
    (asked,) = end.at_the_peer()
    assert asked._terms == (inf, 4)
    peer = end.peer_connection
    peer.send_response(asked, b"one", True)
    peer.send_response(asked, b"two", True)
    peer.send_cancel("c")
    peer.send_credit("c", 5)
    peer.send_goaway("soon")
    peer.send_response(asked, b"last")
    end.poll()
    responses = [Response(True, "m-1", "t", data) for data in (b"one", b"two", b"last")]
    assert end.values == [
        Part(waiter, responses[0]),
        Part(waiter, responses[1]),
        Cancel("c"),
        Credit("c", 5),
        GoAway("soon"),
        (waiter, responses[2]),
    ]
    assert [value[0] for value in (*end.values[:2], end.values[-1])] == [waiter] * 3


async def test_a_bad_answer_is_the_links(role: Role) -> None:
    end = End(role, "sage.1.cbor")
    waiter = object()
    end.connection.send_message(REQUEST, waiter, inf)
    end.socket.flush()
    end.at_the_peer()
    raw = Connection("client" if role == "server" else "server", raw=True)
    raw.send_raw(b"\xa3\x00\x01\x0a\x63m-1\x0c\x05")
    end.peer.send(raw.data_to_send())
    end.poll()
    ((found, error),) = end.values
    assert found is waiter
    assert isinstance(error, DecodeError)
    assert str(error) == "error: expected a string, found number"
    end.close()


async def test_answers_are_set_though_other_things_come_with_them(end: End) -> None:
    future = end.socket.send(REQUEST, inf)
    (asked,) = end.at_the_peer()
    peer = end.peer_connection
    peer.send_goaway()
    peer.send_response(asked, b"answer")
    peer.send_message(SecureMessage(b"x", "did:sage:test", "p-1"), None, inf)
    end.poll()
    assert future.result().data == b"answer"
    assert [type(value) for value in end.values] == [GoAway, SecureMessage]


async def test_either_role_serves(end: End) -> None:
    called: list[str] = []
    dispatch = Dispatch(lambda message: message.payload.upper(), False, contextvars.copy_context())
    end.socket.serve(dispatch, lambda: called.append("summoned"), 10)
    end.peer_connection.send_message(REQUEST, "waiter", inf)
    end.poll()
    assert end.values == []
    await asyncio.sleep(0)
    assert called == ["summoned"]  # by the poller, in the loop's next round
    task = asyncio.current_task()
    assert dispatch.run(task) is None
    assert end.at_the_peer() == [("waiter", Response(True, "m-1", "t", b"ASKED"))]
    assert end.connection.running == 0


async def test_plain_tells_no_time(role: Role) -> None:
    end = End(role, None)
    end.socket.send(REQUEST, 5.0)
    if role == "client":
        (asked,) = end.at_the_peer()
        assert asked._terms is None
    end.close()
