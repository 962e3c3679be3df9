"""The two values that travel: a `SecureMessage` asks, a `Response` answers.

The classes themselves belong to the core (frozen, hashable, picklable, with a repr that shows neither
payload nor signature), so that the native one makes them without a detour; this module is their home
for everything above it.
"""

from __future__ import annotations

from typing import TypeAlias

from sage_ws._core import Response, SecureMessage, encode_message
from sage_ws.errors import MessageTooBigError

Reply: TypeAlias = Response | bytes | None
"""What a handler may answer: a whole Response, the data of a success, or a success without data."""

__all__ = ["Reply", "Response", "SecureMessage", "encode_within"]


def encode_within(message: SecureMessage, limit: int | None) -> bytes:
    """A message as plain SAGE JSON, for transports without a connection of the core's.

    Raises:
        MessageTooBigError: it is over ``limit`` bytes.
    """
    encoded = encode_message(
        message.id,
        message.context_id,
        message.task_id,
        message.payload,
        message.did,
        message.signature,
        message.metadata,
        message.role,
    )
    if limit is not None and len(encoded) > limit:
        raise MessageTooBigError(
            f"message of {len(encoded)} bytes is over max_message_size {limit}", message_id=message.id
        )
    return encoded
