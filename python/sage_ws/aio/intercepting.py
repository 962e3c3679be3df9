"""The asking end's interceptors around one call, within the time that its caller gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from sage_ws.errors import QueueTimeoutError, ReadTimeoutError
from sage_ws.interceptors import chained
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, Interceptor, Seconds, Unset

SendWithin: TypeAlias = Callable[[SecureMessage, Seconds | Unset], Awaitable[Response]]


async def send_intercepted(
    send: SendWithin,
    interceptors: Collection[Interceptor],
    message: SecureMessage,
    timeout: Seconds | Unset,
) -> Response:
    """Send a message through ``interceptors``; each time that they go on, it is sent within what time is
    left.

    While it is sent its own time is the only one that runs: interceptors see that it timed out, not that
    somebody cancelled them.

    Args:
        send: one call, with its ``timeout``.
        interceptors: the first is the outermost.
        message: what they get.
        timeout: as the caller gave it; seconds are for the interceptors' own work too.

    Raises:
        QueueTimeoutError: the time ran out before they went on.
        ReadTimeoutError: it ran out behind that.
    """
    if timeout is UNSET or timeout is None:
        return await chained(interceptors, lambda message: send(message, timeout))(message)
    clock = asyncio.get_running_loop().time
    end = clock() + timeout
    went_on, sending, ended = False, 0, False
    timer = asyncio.timeout_at(end)

    async def innermost(message: SecureMessage) -> Response:
        nonlocal went_on, sending
        went_on = True
        sending += 1
        if clock() < end:
            run_until(None)
        else:  # let the timer run: what comes too late may fail without waiting for anything
            await asyncio.sleep(0)
        try:
            return await send(message, max(end - clock(), 1e-6))
        finally:
            sending -= 1
            if not sending:
                run_until(end)

    def run_until(when: float | None) -> None:
        if not ended and not timer.expired():  # else a task that an interceptor left behind
            timer.reschedule(when)

    chain = chained(interceptors, innermost)
    try:
        async with timer:
            try:
                return await chain(message)
            finally:
                ended = True
    except TimeoutError as error:
        if not timer.expired():
            raise
        failed = ReadTimeoutError if went_on else QueueTimeoutError
        raise failed("no answer came through the interceptors in time", message_id=message.id) from error
