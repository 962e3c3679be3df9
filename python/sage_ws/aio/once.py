"""Runs a handler at most once for each message: in front of it stands the store that ``dedupe=`` names.

A store knows keys, not messages. What a key is made of decides who may have whose answer: a proven identity
and an id; without an identity the DID, which anybody may claim, the id, and what was sent, so that a guessed
id alone gets nobody's answer.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from sage_ws.errors import peer_text
from sage_ws.handler import HandlerCaller
from sage_ws.logs import logger_of
from sage_ws.message import Response, SecureMessage

if TYPE_CHECKING:
    from sage_ws.handler import Call, Handler
    from sage_ws.options import Dedupe

logger = logger_of("server")

OUTCOME_UNKNOWN = "outcome unknown"
"""Answers a repeat whose first run was broken off: it may have done its work, or not."""


def key_of(message: SecureMessage, identity: str | None) -> bytes:
    """Whose message it is, and which: 32 bytes."""
    parts: tuple[bytes, ...]
    if identity is None:
        parts = (b"did", message.did.encode(), message.id.encode(), sha256(message.payload).digest())
    else:
        parts = (b"identity", identity.encode(errors="surrogatepass"), message.id.encode())
    return sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


class Once:
    """A handler that runs at most once for each message, itself a `Handler` of ``(message, call)``.

    Args:
        handler: what to run.
        store: remembers the runs.
        limit: bytes that an async generator's joined parts may hold; None for no limit.
    """

    def __init__(self, handler: Handler, store: Dedupe, limit: int | None) -> None:
        self._run = HandlerCaller(handler, limit=limit)
        self._store = store
        self.duplicates = 0
        """Messages that did not run, because there was a run."""

    async def __call__(self, message: SecureMessage, call: Call) -> Response:
        """Run the handler, or answer what its first run came to."""
        store, key = self._store, key_of(message, call.identity)
        begun = await store.begin(key)
        if begun != "run":
            self.duplicates += 1
            return begun if isinstance(begun, Response) else Response.failure(OUTCOME_UNKNOWN)
        try:
            response = await self._run(message, call)
        except BaseException:
            store.cut(key)
            raise
        try:
            await store.finish(key, response)
        except Exception:
            logger.exception("the answer to message %s could not be kept", peer_text(message.id))
            store.cut(key)
        return response
