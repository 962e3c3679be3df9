"""What a message is counted for while it waits: all that a peer can make large, and what keeping it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_ws.message import SecureMessage

MESSAGE_OVERHEAD = 512
"""Bytes beside its payload at least: objects, and short strings."""


def weight_of(message: SecureMessage) -> int:
    """Bytes that a waiting message is counted for."""
    beside = len(message.signature) + len(message.id) + len(message.did)
    beside += len(message.context_id) + len(message.task_id) + len(message.role)
    for key, value in message.metadata.items():
        beside += MESSAGE_OVERHEAD // 4 + len(key) + len(value)
    return len(message.payload) + max(beside, MESSAGE_OVERHEAD)
