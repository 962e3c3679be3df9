"""Under a task factory that takes each task's first step at once, as `asyncio.eager_task_factory` does."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

from sage_ws import DialError, SecureMessage, connect, serve

DEEP = 300
"""Handlers that suspend at once: each of them within the one before would be beyond the recursion limit."""


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test", signature=b"canary")


def eager_before_3_12(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Take a coroutine's first step as the current task; the task itself goes on from there."""
    step: list[Callable[[], Any]] = []
    task = asyncio.Task(_go_on(coroutine, step), loop=loop, **options)
    running = asyncio.current_task(loop)
    if running is not None:
        asyncio.tasks._leave_task(loop, running)
    asyncio.tasks._enter_task(loop, task)
    try:
        awaited = coroutine.send(None)
    except BaseException as error:  # the task's to raise, a return included
        raised = error
        step.append(lambda: _raise(raised))
    else:
        step.append(lambda: awaited)
    finally:
        asyncio.tasks._leave_task(loop, task)
        if running is not None:
            asyncio.tasks._enter_task(loop, running)
    return task


def _raise(error: BaseException) -> None:
    raise error


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, Any], step: list[Callable[[], Any]]) -> Generator[Any, Any, Any]:
    try:
        awaited = step[0]()
        while True:
            try:
                value = yield awaited
            except BaseException as error:  # cancellation is the coroutine's to see
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(value)
    except StopIteration as stop:
        return stop.value


@pytest.fixture
def eagerly() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Has the running loop start its tasks eagerly, for a while."""

    @contextlib.contextmanager
    def eager() -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory", eager_before_3_12))
        try:
            yield
        finally:
            loop.set_task_factory(None)

    return eager


async def test_handlers_that_suspend_do_not_start_within_each_other(eagerly: Any) -> None:
    running = 0
    go = asyncio.Event()

    async def handler(one: SecureMessage) -> bytes:
        nonlocal running
        running += 1
        if running == DEEP:
            go.set()
        await go.wait()
        return one.payload

    async with serve(handler, max_concurrency=DEEP) as server:
        async with connect(f"ws://127.0.0.1:{server.port}") as client:
            with eagerly():
                payloads = [str(number).encode() for number in range(DEEP)]
                answers = await asyncio.gather(*(client.send(message(payload)) for payload in payloads))
            assert [answer.data for answer in answers] == payloads


async def test_a_dial_that_fails_at_once_fails_its_call_and_is_tried_again(eagerly: Any) -> None:
    dials = 0

    def headers() -> dict[str, str]:
        nonlocal dials
        dials += 1
        raise LookupError("no token")

    with eagerly():
        client = connect("ws://127.0.0.1:1", headers=headers)
        for _ in range(2):
            with pytest.raises(DialError, match="no token"):
                await asyncio.wait_for(client.send(message()), 10)
        await client.close()
    assert dials == 2
