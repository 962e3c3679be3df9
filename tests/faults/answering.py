"""A server program to be killed: it answers each message by what follows from its id, and keeps a journal.

::

    python -m tests.faults.answering PORT JOURNAL [STORE]

With a STORE, the path of a SQLite file, it runs each message at most once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.child import input_ended, run, say
from tests.faults.handling import Handling
from tests.faults.ledger import Journal, Ledger

from sage_ws import DedupeSQLite, serve


async def main(port: int, journal: Journal, store: DedupeSQLite | None) -> None:
    """Serve until the standard input ends."""
    handler = Handling(journal.ran, Ledger("back").ask)
    async with serve(handler, "127.0.0.1", port, dedupe=store):
        say("listening")
        await input_ended()


if __name__ == "__main__":
    _, port, journal, *store = sys.argv
    run(main(int(port), Journal(Path(journal)), DedupeSQLite(store[0]) if store else None))
