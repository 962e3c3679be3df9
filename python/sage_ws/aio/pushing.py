"""Which of an identity's connections is asked: the newest, and the next where that one cannot answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sage_ws.aio.answering import TAKES_NONE
from sage_ws.aio.serving import ServerLink
from sage_ws.errors import ClosedError, NotSentError
from sage_ws.message import Response, SecureMessage
from sage_ws.options import UNSET, Seconds, Unset


async def push(links: Iterable[ServerLink], message: SecureMessage, timeout: Seconds | Unset) -> Response:
    """Ask the newest open connection whose client has a handler.

    Args:
        links: of one identity, the oldest first.
        message: what to ask.
        timeout: seconds for everything, as the caller gave it.

    Returns:
        The answer; where no client has a handler, what one of them said.

    Raises:
        NotSentError: there is no open connection, or none of a peer that takes requests.
        MaybeDeliveredError, DecodeError: see `Client.send`.
    """
    is_there, refusal = False, None
    clock = asyncio.get_running_loop().time
    end = None if timeout is UNSET or timeout is None else clock() + timeout
    for link in reversed(tuple(links)):
        if link.closed:
            continue
        is_there = True
        if link.connection.extended and not link.is_leaving:
            left = timeout if end is None else max(end - clock(), 1e-6)
            try:
                # past the connection's own interceptors: the caller has them around all of this
                response = await ServerLink.send(link, message, timeout=left)
            except ClosedError:  # it ended before anything left
                continue
            if response.success or response.error != TAKES_NONE:
                return response
            refusal = response
    if refusal is not None:
        return refusal
    what = "of this identity takes requests" if is_there else "has this identity"
    raise NotSentError(f"no connection {what}", message_id=message.id)
