"""Kill -9 under load: a server that remembers what ran is killed again and again, and its clients go on.

::

    python -m tests.faults.restarts 200      kills; prints what came of it as JSON
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.child import run, say
from tests.faults.handling import answer_of, payload_of
from tests.faults.ledger import Journal
from tests.faults.process import ServerProcess

from sage_ws import Client, Response, SecureMessage

CLIENTS = 4
IN_FLIGHT = 8
"""Messages of each client that wait for their answer at any time."""
SIZE = 200
PATIENCE = 60.0
"""Seconds for a message to be answered, over however many restarts."""


@dataclass
class Report:
    """What came of a run.

    Attributes:
        kills: SIGKILLs of the server.
        calls: messages sent, each with an id of its own.
        answered: ended with the answer that belongs to the message.
        unknown: ended with ``outcome unknown``.
        wrong: ended with anything else; what, and how often.
        retries: times that a message went out again.
        runs: calls of the handler.
        twice: ids that the handler was called with more than once.
        unrun: ids that were answered as if the handler had run, and it had not.
    """

    kills: int
    calls: int
    answered: int
    unknown: int
    wrong: dict[str, int]
    retries: int
    runs: int
    twice: int
    unrun: int


async def restarts(kills: int, folder: Path, seed: int = 1) -> Report:
    """Kill and restart a server so often while clients send without a pause.

    Args:
        kills: how often.
        folder: for the journal and the store.
        seed: of when it is killed, counted in answers.
    """
    chance = random.Random(seed)
    journal = folder / "journal"
    outcomes: dict[str, str] = {}
    over = False

    async def ask(client: Client, name: str) -> None:
        number = 0
        while not over:
            number += 1
            message_id = f"{name}-{number}"
            # the longer ones are cut by the kill, the others answered before it or lost on their way
            wait = {"wait": "0.01"} if number % 2 else {}
            message = SecureMessage(
                payload_of(message_id, SIZE), "did:sage:faults", message_id, metadata=wait
            )
            try:
                outcomes[message_id] = judged(
                    message_id, await client.send(message, timeout=PATIENCE, idempotent=True)
                )
            except Exception as error:
                outcomes[message_id] = f"{type(error).__name__}: {error}"

    async with ServerProcess("tests.faults.answering", str(journal), str(folder / "answers.db")) as server:
        # as many dials at a time as a restart takes: a real client's wait would be most of the run
        clients = [Client(server.url, backoff=lambda _: chance.uniform(0.01, 0.1)) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as tasks:
            for index, client in enumerate(clients):
                for flight in range(IN_FLIGHT):
                    tasks.create_task(ask(client, f"{index}-{flight}"))
            for _ in range(kills):
                enough = len(outcomes) + chance.randrange(10, 200)
                async with asyncio.timeout(PATIENCE):
                    while len(outcomes) < enough:  # noqa: ASYNC110 - a look at a counter; the load sets the pace
                        await asyncio.sleep(0.001)
                await server.restart()
            over = True
        for client in clients:
            await client.close()
        await server.end()
    ran = Counter(Journal.read(journal))
    known = ("answered", "unknown")
    return Report(
        kills=kills,
        calls=len(outcomes),
        answered=sum(one == "answered" for one in outcomes.values()),
        unknown=sum(one == "unknown" for one in outcomes.values()),
        wrong=dict(Counter(one for one in outcomes.values() if one not in known)),
        retries=sum(int(client.stats()["retries"]) for client in clients),
        runs=ran.total(),
        twice=sum(count > 1 for count in ran.values()),
        unrun=sum(one == "answered" and name not in ran for name, one in outcomes.items()),
    )


def judged(message_id: str, response: Response) -> str:
    """How a call ended, by its answer alone."""
    if response.message_id != message_id:
        return "the answer to another id"
    if response.success and response.data == answer_of(message_id, SIZE):
        return "answered"
    if not response.success and response.error == "outcome unknown":
        return "unknown"
    return f"answered otherwise: {response.error}"


async def main(kills: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        say(json.dumps(asdict(await restarts(kills, Path(folder)))))


if __name__ == "__main__":
    run(main(int(sys.argv[1])))
