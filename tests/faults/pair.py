"""A server program of two workers on one port, to be restarted one after the other.

::

    python -m tests.faults.pair PORT

Each worker says when it serves and when it has ended, with its process id.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # `run` takes it where it is

from tests.faults.handling import Handling
from tests.faults.ledger import Ledger

from sage_ws import Server, run


@asynccontextmanager
async def lifespan(server: Server) -> AsyncIterator[None]:
    """Tell who runs this program."""
    tell("serves")
    yield
    stats = server.stats()
    if left := stats["pending"] + stats["dropped"]:
        tell(f"has left {left} unanswered")
    tell("ended")


def tell(what: str) -> None:
    """In one piece: the others write there too."""
    os.write(1, f"worker {what}: {os.getpid()}\n".encode())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    back = Ledger(f"back-{os.getpid()}")
    run(Handling(lambda _: None, back.ask), port=int(sys.argv[1]), workers=2, lifespan=lifespan)
