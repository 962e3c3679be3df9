"""The message as a user writes it who wants speed: orjson, pybase64, and no copy that can be spared."""

from __future__ import annotations

from uuid import uuid4

import orjson
from pybase64 import b64decode, b64encode_as_string

from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, check


def request(payload: bytes) -> tuple[str, bytes]:
    """A fresh message's id, and the message."""
    message_id = str(uuid4())
    return message_id, orjson.dumps(
        {
            "id": message_id,
            "context_id": CONTEXT_ID,
            "task_id": TASK_ID,
            "payload": b64encode_as_string(payload),
            "did": DID,
            "signature": b64encode_as_string(SIGNATURE),
            "metadata": METADATA,
            "role": ROLE,
        }
    )


def answer(asked: bytes | str | memoryview) -> bytes:
    """The echo of a message: payload and signature decoded, as a handler needs them."""
    message = orjson.loads(asked)
    payload, signature = b64decode(message["payload"]), b64decode(message["signature"])
    if not (message["id"] and message["did"] and payload and signature):
        return orjson.dumps({"success": False, "message_id": message["id"], "error": "a field is required"})
    return orjson.dumps(
        {
            "success": True,
            "message_id": message["id"],
            "task_id": message["task_id"],
            "data": b64encode_as_string(payload),
        }
    )


def checked(response: dict[str, str], message_id: str, payload: bytes) -> None:
    """What a client does with the answer to its message.

    Raises:
        WrongAnswer: it is another's, or its bytes differ.
    """
    check(response["message_id"] == message_id, b64decode(response["data"]) == payload)
