"""A client's interceptors around one call, within the time that its caller gave it."""

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

    Args:
        send: one call, with its ``timeout``.
        interceptors: the first is the outermost.
        message: what they get.
        timeout: as the caller gave it; seconds are for the interceptors' own work too.

    Raises:
        QueueTimeoutError: the time ran out before they went on.
        ReadTimeoutError: it ran out behind that.
    """
    clock = asyncio.get_running_loop().time
    end = None if timeout is UNSET or timeout is None else clock() + timeout
    went_on = False

    async def innermost(message: SecureMessage) -> Response:
        nonlocal went_on
        went_on = True
        return await send(message, timeout if end is None else max(end - clock(), 1e-6))

    chain = chained(interceptors, innermost)
    timer = asyncio.timeout_at(end)
    try:
        async with timer:
            return await chain(message)
    except TimeoutError as error:
        if not timer.expired():
            raise
        failed = ReadTimeoutError if went_on else QueueTimeoutError
        raise failed("no answer came through the interceptors in time", message_id=message.id) from error
