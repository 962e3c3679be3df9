"""The client's loops, the same for every peer written in Python: ask, wait, check, ask again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from itertools import cycle
from typing import Final, TypeAlias

from bench.message import payloads
from bench.shapes import Round, Wanted

Ask: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends a fresh message with this payload, awaits its answer and checks it."""
Connect: TypeAlias = Callable[[str, int], AbstractAsyncContextManager[Ask]]
"""``connect(address, in_flight)`` opens one connection for so many messages at once."""
Tick: TypeAlias = Callable[[], None]
"""Called when a round's clock starts, and when it stops: the parent then looks what the server has used."""

WARM_UP: Final = 0.1
"""Part of a round's time that passes, at the shape's own load, before the clock starts."""


class _Quota:
    """When to stop: all loops of a round look here before each message."""

    __slots__ = ("answered", "left", "open")

    def __init__(self, messages: int | None) -> None:
        self.open = True
        self.answered = 0
        self.left = messages

    def close(self) -> None:
        self.open = False


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
        loops = [ask for ask in asks for _ in range(shape.in_flight)]
        if wanted.messages is None:
            await _together(loops, shape.payload, wanted.seconds * WARM_UP, None)
        if shape.figure == "p50":
            timed = _one_by_one(asks[0], shape.payload, wanted)
        else:
            timed = _together(loops, shape.payload, wanted.seconds, wanted.messages)
        tick()
        used = time.process_time()
        got = await timed
        used = time.process_time() - used
        tick()
        return replace(got, client_cpu=used)


async def _together(loops: list[Ask], size: int, seconds: float, messages: int | None) -> Round:
    """Every loop keeps one message in flight; the clock is read twice."""
    quota = _Quota(messages)
    timer = asyncio.get_running_loop().call_later(seconds, quota.close)
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, ask in enumerate(loops):
            group.create_task(_ask_on(ask, _payloads_from(number, size), quota))
    ended = time.perf_counter()
    timer.cancel()
    return Round(quota.answered, ended - begun)


async def _ask_on(ask: Ask, source: Iterator[bytes], quota: _Quota) -> None:
    answered = 0
    while quota.open:
        if quota.left is not None:
            if quota.left == 0:
                break
            quota.left -= 1
        await ask(next(source))
        answered += 1
    quota.answered += answered


async def _one_by_one(ask: Ask, size: int, wanted: Wanted) -> Round:
    """One message at a time, each timed from its making to its checked answer."""
    clock, source, took = time.perf_counter, _payloads_from(0, size), list[float]()
    begun = before = clock()
    until = begun + wanted.seconds
    while before < until and len(took) != wanted.messages:
        await ask(next(source))
        after = clock()
        took.append(after - before)
        before = after
    took.sort()
    return Round(len(took), before - begun, took[len(took) // 2], took[len(took) * 99 // 100])


def _payloads_from(number: int, size: int) -> Iterator[bytes]:
    """The payloads over and over, each loop from a place of its own."""
    source = cycle(payloads(size))
    for _ in range(number % 61):
        next(source)
    return source
