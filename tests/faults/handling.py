"""What handlers of a fault run do: what their messages tell them, each answer what follows from its message.

A payload follows from its message's id, and an answer from both: an answer that belongs to another message is
seen from its bytes alone, by who holds nothing else. The same holds for each part of an answer in parts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from sage_ws import Call, Connection, HandlerError, SecureMessage

AskBack: TypeAlias = Callable[[Connection, SecureMessage], Awaitable[str]]
"""Asks who asked, because of a message; what was wrong with that, or ""."""
NOT_MINE = "this payload belongs to another message"


def payload_of(message_id: str, size: int) -> bytes:
    """The payload that a message with this id carries."""
    digest = hashlib.blake2b(message_id.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def answer_of(message_id: str, size: int) -> bytes:
    """The answer's data to the message with this id and a payload of this size."""
    return payload_of(f"answer to {message_id}", size)


def part_of(message_id: str, number: int, size: int) -> bytes:
    """The same for one part of an answer in parts, counted from 0."""
    return answer_of(f"{message_id}, part {number}", size)


class Handling:
    """A handler, in any of the shapes of one.

    Args:
        ran: told the id of each message.
        ask_back: what a message with ``ask`` in its metadata has done, where its wire can.

    Attributes:
        running: handlers and generators that have begun and not ended.
    """

    def __init__(self, ran: Callable[[str], None], ask_back: AskBack | None = None) -> None:
        self._ran = ran
        self._ask_back = ask_back
        self.running = 0

    def __call__(self, message: SecureMessage, call: Call | None = None) -> Any:
        """Note the run, do as the metadata says, answer what belongs to the message.

        ``wait``: seconds before the answer, or before each part; ``parts``: how many; ``ask``: ask back.
        """
        self._ran(message.id)
        if message.payload != payload_of(message.id, len(message.payload)):
            raise HandlerError(NOT_MINE)
        return self._in_parts(message) if "parts" in message.metadata else self._whole(message, call)

    async def _whole(self, message: SecureMessage, call: Call | None) -> bytes:
        self.running += 1
        try:
            connection = None if call is None else call.connection
            if "ask" in message.metadata and self._ask_back and connection and connection.subprotocol:
                if wrong := await self._ask_back(connection, message):
                    raise HandlerError(wrong)
            elif wait := message.metadata.get("wait"):
                await asyncio.sleep(float(wait))
            return answer_of(message.id, len(message.payload))
        finally:
            self.running -= 1

    async def _in_parts(self, message: SecureMessage) -> AsyncIterator[bytes]:
        self.running += 1
        try:
            for number in range(int(message.metadata["parts"])):
                if wait := message.metadata.get("wait"):
                    await asyncio.sleep(float(wait))
                yield part_of(message.id, number, len(message.payload))
        finally:
            self.running -= 1
