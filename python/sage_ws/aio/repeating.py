"""Sends a message again after each loss of its connection: what ``send(idempotent=True)`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from sage_ws.errors import (
    ConnectionLostError,
    MaybeDeliveredError,
    NotSentError,
    QueueTimeoutError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from sage_ws.message import Response
from sage_ws.options import UNSET, Seconds, Unset

SendOnce: TypeAlias = Callable[[Seconds | Unset], Awaitable[Response]]


async def send_repeatedly(
    send: SendOnce,
    timeout: Seconds | Unset,
    *,
    whole: Seconds,
    clock: Callable[[], float],
    goes_on: Callable[[], bool],
) -> Response:
    """Send until there is an answer, or the message's time is over.

    From the first loss on the message may have been delivered, whatever then keeps a repeat from leaving: so
    it ends with that loss as its error, or with ReadTimeoutError, and never with NotSentError.

    Args:
        send: one attempt, with its ``timeout``.
        timeout: of the first attempt, as the caller gave it.
        whole: seconds for all attempts together.
        clock: the loop's time.
        goes_on: called after a loss: whether the client will have another connection.

    Raises:
        TransportError, DecodeError: see `Client.send`.
    """
    end = None if whole is None else clock() + whole
    lost: MaybeDeliveredError | None = None
    while True:
        try:
            return await send(timeout)
        except (ConnectionLostError, WriteTimeoutError) as error:
            lost = error
        except QueueTimeoutError:
            if lost is None:
                raise
            raise _too_late(lost) from lost
        except NotSentError as error:
            if lost is None:
                raise
            raise lost from error
        timeout = None if end is None else end - clock()
        if timeout is not None and timeout <= 0:
            raise _too_late(lost) from lost
        if not goes_on():
            raise lost


def _too_late(lost: MaybeDeliveredError) -> ReadTimeoutError:
    return ReadTimeoutError(f"no answer came in time; before that: {lost}", message_id=lost.message_id)


def whole_time(timeout: Seconds | Unset, dial_timeout: Seconds, read_timeout: Seconds) -> Seconds:
    """Seconds for all attempts: the caller's ``timeout``, or both of the client's own together."""
    if timeout is not UNSET:
        return timeout
    return None if dial_timeout is None or read_timeout is None else dial_timeout + read_timeout
