"""The line of calls that wait to leave: its order, its places, its end."""

from __future__ import annotations

import asyncio

import pytest

from sage_ws.aio.turns import Turns


async def until_in_line(turns: Turns, count: int) -> None:
    while len(turns.line) < count:  # noqa: ASYNC110 - each round lets the calls step
        await asyncio.sleep(0)


async def test_those_who_come_back_keep_their_order() -> None:
    turns = Turns()
    served: list[str] = []

    async def call(name: str, *, front: bool) -> None:
        await turns.wait(front=front)
        served.append(name)

    calls = [asyncio.create_task(call(name, front=False)) for name in ("fourth", "fifth")]
    await until_in_line(turns, 2)
    calls += [asyncio.create_task(call(name, front=True)) for name in ("first", "second", "third")]
    await until_in_line(turns, 5)
    for _ in range(5):
        turns.grant()
    await asyncio.gather(*calls)
    assert served == ["first", "second", "third", "fourth", "fifth"]
    assert turns.granted == 0


async def test_one_that_was_served_is_no_longer_in_front() -> None:
    turns = Turns()
    served: list[str] = []

    async def call(name: str, *, front: bool) -> None:
        await turns.wait(front=front)
        served.append(name)

    first = asyncio.create_task(call("first", front=True))
    await until_in_line(turns, 1)
    turns.grant()
    await first
    third = asyncio.create_task(call("third", front=False))
    await until_in_line(turns, 1)
    second = asyncio.create_task(call("second", front=True))
    await until_in_line(turns, 2)
    turns.grant()
    turns.grant()
    await asyncio.gather(second, third)
    assert served == ["first", "second", "third"]


async def test_a_failure_ends_everybody_and_a_cancelled_call_leaves() -> None:
    turns = Turns()
    calls = [asyncio.create_task(turns.wait()) for _ in range(3)]
    await until_in_line(turns, 3)
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    assert len(turns.line) == 2
    turns.fail(ConnectionError("gone"))
    for call in (calls[0], calls[2]):
        with pytest.raises(ConnectionError, match="gone"):
            await call
    assert not turns.line
    assert turns.granted == 0
