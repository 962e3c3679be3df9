"""The client's loops, the same for every peer written in Python: ask, wait, check, ask again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import cycle
from typing import Final, TypeAlias

from bench.message import payloads
from bench.shapes import Round, Shape, Wanted

Ask: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends a fresh message with this payload, awaits its answer and checks it."""
Connect: TypeAlias = Callable[[str, int], AbstractAsyncContextManager[Ask]]
"""``connect(address, in_flight)`` opens one connection for so many messages at once."""
Tick: TypeAlias = Callable[[], None]
"""Called when a round's clock starts, and when it stops: the parent then looks what both ends have used."""

WARM_UP: Final = 0.1
"""Part of a round's time that passes, at the shape's own load, before the clock starts."""


class _Count:
    """What all loops of a round share; each looks here before a message and after its answer."""

    __slots__ = ("answered", "left", "open", "telling")

    def __init__(self, messages: int | None) -> None:
        self.open = True
        self.answered = 0
        self.left = messages
        self.telling: asyncio.Future[tuple[float, int]] | None = None

    async def at_next_answer(self) -> tuple[float, int]:
        """The time of the next answer, and which it is."""
        self.telling = asyncio.get_running_loop().create_future()
        return await self.telling

    def tell(self, telling: asyncio.Future[tuple[float, int]]) -> None:
        telling.set_result((time.perf_counter(), self.answered))
        self.telling = None


async def drive(connect: Connect, address: str, wanted: Wanted, tick: Tick) -> Round:
    """Drive one round over connections of its own.

    Raises:
        WrongAnswer: an answer did not hold.
    """
    shape = wanted.shape
    async with AsyncExitStack() as stack:
        asks = [
            await stack.enter_async_context(connect(address, shape.in_flight))
            for _ in range(shape.connections)
        ]
        if shape.figure == "p50":
            return await _one_by_one(asks[0], wanted, tick)
        loops = [ask for ask in asks for _ in range(shape.in_flight)]
        return await _together(loops, wanted, tick)


async def _together(loops: list[Ask], wanted: Wanted, tick: Tick) -> Round:
    """Every loop keeps one message in flight, before the clock starts, while it runs and after it stopped.

    It starts with an answer and stops with one, so that what counts is what came between.
    """
    count = _Count(wanted.messages)
    begun, first = time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        for number, ask in enumerate(loops):
            group.create_task(_ask_on(ask, _payloads_from(number, wanted.shape), count))
        if wanted.messages is None:
            await asyncio.sleep(wanted.seconds * WARM_UP)
            while count.answered < len(loops):  # each had its turn
                await count.at_next_answer()
            begun, first = await count.at_next_answer()
            tick()
            await asyncio.sleep(wanted.seconds)
            ended, last = await count.at_next_answer()
            tick()
            count.open = False
            return Round(last - first, ended - begun)
    return Round(count.answered, time.perf_counter() - begun)


async def _ask_on(ask: Ask, source: Iterator[bytes], count: _Count) -> None:
    while count.open:
        if count.left is not None:
            if count.left == 0:
                break
            count.left -= 1
        await ask(next(source))
        count.answered += 1
        if count.telling is not None:
            count.tell(count.telling)


async def _one_by_one(ask: Ask, wanted: Wanted, tick: Tick) -> Round:
    """One message at a time, each timed from its making to its checked answer."""
    clock, source, took = time.perf_counter, _payloads_from(0, wanted.shape), list[float]()
    if wanted.messages is None:
        warm = clock() + wanted.seconds * WARM_UP
        while clock() < warm:
            await ask(next(source))
        tick()
    begun = before = clock()
    until = begun + wanted.seconds
    while before < until and len(took) != wanted.messages:
        await ask(next(source))
        after = clock()
        took.append(after - before)
        before = after
    if wanted.messages is None:
        tick()
    took.sort()
    return Round(len(took), before - begun, took[len(took) // 2], took[len(took) * 99 // 100])


def _payloads_from(number: int, shape: Shape) -> Iterator[bytes]:
    """The payloads over and over, each loop from a place of its own."""
    those = payloads(shape.payload, shape.text)
    place = number % len(those)
    return cycle(those[place:] + those[:place])
