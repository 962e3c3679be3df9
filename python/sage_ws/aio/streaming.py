"""``Client.stream``: from a message to the parts of its answer, through interceptors where there are some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

from sage_ws.aio.streams import WINDOW, Incoming
from sage_ws.errors import ReadTimeoutError
from sage_ws.interceptors import chained
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, Seconds, Unset

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sage_ws.aio.client import Client

GRACE = 0.01
"""Seconds by which interceptors outlive what they have sent, which ends by itself and says more."""


def stream_of(
    client: Client, message: SecureMessage, timeout: Seconds | Unset
) -> AbstractAsyncContextManager[AsyncIterator[Response]]:
    """See `Client.stream`."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[Response]]:
        through = _through_interceptors if client._settings.interceptors else _parts
        async with aclosing(through(client, message, timeout)) as parts:
            yield parts

    return opened()


async def _parts(
    client: Client, message: SecureMessage, timeout: Seconds | Unset, ended: list[Response] | None = None
) -> AsyncGenerator[Response, None]:
    """The parts as they come; who stops asking for them stops the handler.

    What ends the answer is a part itself if it says anything, or if nothing came before it; unless ``ended``
    is given, which gets it.
    """
    link, deadline, remaining = await client._leave(message, timeout)
    some = False
    if not link.connection.extended:
        final: Response | None = await client._send_slowly(message, timeout)
    else:
        limit = link.read_timeout if timeout is UNSET else inf
        incoming = Incoming(link, message.id, limit, inf if remaining == inf else deadline)
        try:
            link.put_for_stream(message, incoming, remaining, WINDOW)
        except Exception:
            client._refused(message)
            raise
        try:
            async for part in incoming:
                some = True
                yield part
        except Exception:
            client._counts["failed"] += 1
            raise
        finally:
            if incoming.close():
                client._counts["cancelled"] += 1
            client._changed()
        final = incoming.final
    assert final is not None
    if ended is not None:
        ended.append(final)
    elif _says_something(final, some):
        yield final


def _says_something(final: Response, some: bool) -> bool:
    return not some or not final.success or bool(final.data)


async def _through_interceptors(
    client: Client, message: SecureMessage, timeout: Seconds | Unset
) -> AsyncGenerator[Response, None]:
    """The same with the client's interceptors around: what ends the answer is their Response."""
    parts: asyncio.Queue[Response] = asyncio.Queue(maxsize=1)
    some = False
    clock = asyncio.get_running_loop().time
    end = None if timeout is UNSET or timeout is None else clock() + timeout

    async def innermost(message: SecureMessage) -> Response:
        ended: list[Response] = []
        left = timeout if end is None else max(end - clock(), 1e-6)
        async with aclosing(_parts(client, message, left, ended)) as incoming:
            async for part in incoming:
                await parts.put(part)
        return ended[0]

    chain = chained(client._settings.interceptors, innermost)
    running = asyncio.ensure_future(chain(message))
    try:
        while not running.done() or not parts.empty():
            getting = asyncio.ensure_future(parts.get())
            try:
                left = None if end is None else max(end - clock(), 0.0) + GRACE
                done, _ = await asyncio.wait(
                    {running, getting}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                if not getting.done():
                    getting.cancel()
            if not done:
                raise ReadTimeoutError(
                    "no answer came through the interceptors in time", message_id=message.id
                )
            if getting in done:
                some = True
                yield getting.result()
        final = running.result()
        if _says_something(final, some):
            yield final
    finally:
        running.cancel()
        await asyncio.wait({running})
