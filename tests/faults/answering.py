"""A server program to be killed: it answers each message by what follows from its id, and keeps a journal.

::

    python -m tests.faults.answering PORT JOURNAL
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.faults.child import input_ended, run, say
from tests.faults.ledger import Journal, answer_of, payload_of

from sage_ws import HandlerError, SecureMessage, serve


async def main(port: int, journal: Journal) -> None:
    """Serve until the standard input ends."""

    async def handler(message: SecureMessage) -> bytes:
        journal.ran(message.id)
        size = len(message.payload)
        if message.payload != payload_of(message.id, size):
            raise HandlerError("this payload belongs to another message")
        if wait := message.metadata.get("wait"):
            await asyncio.sleep(float(wait))
        return answer_of(message.id, size)

    async with serve(handler, "127.0.0.1", port):
        say("listening")
        await input_ended()


if __name__ == "__main__":
    run(main(int(sys.argv[1]), Journal(Path(sys.argv[2]))))
