"""A server program to be killed: it answers each message by what follows from its id, and keeps a journal.

::

    python -m tests.faults.answering PORT JOURNAL [STORE]

With a STORE, the path of a SQLite file, it runs each message at most once.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.faults.child import input_ended, run, say
from tests.faults.ledger import Journal, answer_of, payload_of

from sage_ws import DedupeSQLite, HandlerError, SecureMessage, serve


async def main(port: int, journal: Journal, store: DedupeSQLite | None) -> None:
    """Serve until the standard input ends."""

    async def handler(message: SecureMessage) -> bytes:
        journal.ran(message.id)
        size = len(message.payload)
        if message.payload != payload_of(message.id, size):
            raise HandlerError("this payload belongs to another message")
        if wait := message.metadata.get("wait"):
            await asyncio.sleep(float(wait))
        return answer_of(message.id, size)

    async with serve(handler, "127.0.0.1", port, dedupe=store):
        say("listening")
        await input_ended()


if __name__ == "__main__":
    _, port, journal, *store = sys.argv
    run(main(int(port), Journal(Path(journal)), DedupeSQLite(store[0]) if store else None))
