"""A client program to be killed or stopped: it calls without end, and at its end says what does not balance.

::

    python -m tests.faults.asking URL NAME
"""

from __future__ import annotations

import sys

from tests.faults.child import input_ended, run, say
from tests.faults.ledger import Ledger
from tests.faults.load import Load

from sage_ws import connect


async def main(url: str, name: str) -> None:
    """Call until the standard input ends."""
    ledger = Ledger(name)
    async with connect(url, ping_interval=0.1, ping_timeout=0.4, backoff=lambda _: 0.01) as client:
        async with Load(ledger, client, sizes=(10, 100, 20_000)) as load:
            await load.answers(50)
            say("asking")
            await input_ended()
    for problem in ledger.problems(saw_handlers=False):
        say(problem)
    say(f"ended: {ledger.answered} answered, {ledger.lost} lost")


if __name__ == "__main__":
    run(main(sys.argv[1], sys.argv[2]))
