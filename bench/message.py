"""What every peer sends: one message's fields, its payloads; and the JSON form as it is written by hand."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from functools import cache
from pathlib import Path
from typing import Any, Final

DID: Final = "did:sage:ethereum:0x742d35cc6634c0532925a3b844bc454e4438f44e"
CONTEXT_ID: Final = "ctx-7f3c9a52"
TASK_ID: Final = "task-000042"
SIGNATURE: Final = random.Random(64).randbytes(64)
METADATA: Final = {"action": "summarise"}
ROLE: Final = "agent"
PARTS: Final = 256
"""Of a stream, each the payload."""
LARGEST: Final = 16 << 20
"""Bytes of a message on the wire that every peer must take: a library's default that is less is raised."""


class WrongAnswer(Exception):
    """An answer to another message, or with other bytes than were sent: the figures are worth nothing."""


@cache
def payloads(size: int, text: bool = False) -> tuple[bytes, ...]:
    """Payloads of one size, the same in every process; many, so that no answer fits them all.

    Args:
        size: bytes of each.
        text: whether they are prose, pieces of the documentation; without it they are random.
    """
    source = random.Random(size)
    if not text:
        return tuple(source.randbytes(size) for _ in range(61))
    docs = Path(__file__).parent.parent / "docs"
    prose = b"".join(path.read_bytes() for path in sorted(docs.rglob("*.md")))
    starts = (source.randrange(len(prose) - size) for _ in range(61))
    return tuple(prose[start : start + size] for start in starts)


def check(right_id: bool, right_bytes: bool) -> None:
    """What every peer's client does with every answer.

    Raises:
        WrongAnswer: one of the two is false.
    """
    if not right_id:
        raise WrongAnswer("the answer belongs to another message")
    if not right_bytes:
        raise WrongAnswer("the answer's bytes differ")


# ── by hand, as a user of json and base64 writes it ─────────────────────────────────────
def request(message_id: str, payload: bytes) -> dict[str, Any]:
    """A message in SAGE's JSON form (docs/reference/wire.md, "Messages"), to be dumped."""
    return {
        "id": message_id,
        "context_id": CONTEXT_ID,
        "task_id": TASK_ID,
        "payload": b64encode(payload).decode(),
        "did": DID,
        "signature": b64encode(SIGNATURE).decode(),
        "metadata": METADATA,
        "role": ROLE,
    }


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """The echo of a message that was loaded: payload and signature decoded, as a handler needs them."""
    payload, signature = b64decode(message["payload"]), b64decode(message["signature"])
    if not (message["id"] and message["did"] and payload and signature):
        return {"success": False, "message_id": message["id"], "error": "a field is required"}
    return {
        "success": True,
        "message_id": message["id"],
        "task_id": message["task_id"],
        "data": b64encode(payload).decode(),
    }
