"""The ledger of a fault run: for each message id what was sent, run and answered, and how its call ended.

A payload follows from its message's id, and an answer from both: an answer that belongs to another message is
seen from its bytes alone, by who holds nothing else. What a handler ran is noted here by one of this process,
or in a `Journal` by one of another that may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from sage_ws import (
    Client,
    DecodeError,
    HandlerError,
    MaybeDeliveredError,
    NotSentError,
    Response,
    SecureMessage,
)

PATIENCE = 15.0
"""Seconds by which a call may outlive its time before a test calls it hanging: wide, for a busy machine."""
DID = "did:sage:faults"
SECRET = b"canary"
"""What no log may hold (`tests/conftest.py`)."""
NOT_MINE = "this payload belongs to another message"


def payload_of(message_id: str, size: int) -> bytes:
    """The payload that a message with this id carries."""
    digest = hashlib.blake2b(message_id.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def answer_of(message_id: str, size: int) -> bytes:
    """The answer's data to the message with this id and a payload of this size."""
    return payload_of(f"answer to {message_id}", size)


class Ending(enum.Enum):
    """How a call ended: exactly one of them, once."""

    ANSWERED = "answered"
    NOT_SENT = "never sent"
    MAYBE = "maybe delivered"
    UNREADABLE = "answered, unreadably"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Entry:
    """One call.

    Attributes:
        limit: seconds that it had, until its answer or its cancellation.
        took: seconds that it lasted; None while it does.
        ending: how it ended; None while it lasts.
        error: the type of its error.
        wrong: what does not belong to this message.
    """

    limit: float
    took: float | None = None
    ending: Ending | None = None
    error: str = ""
    wrong: str = ""


class Ledger:
    """The calls of one run, and what their handlers ran.

    Args:
        name: begins the ids of its messages: no two ledgers of a run share one.
        answer: what the answer's data must be, of an id and a size; `payload_of` for a peer that echoes.
    """

    def __init__(self, name: str = "m", answer: Callable[[str, int], bytes] = answer_of) -> None:
        self.name = name
        self.calls: dict[str, Entry] = {}
        self.runs: Counter[str] = Counter()
        self.endings: Counter[Ending] = Counter()
        self.errors: Counter[str] = Counter()
        self._answer = answer
        self._moved = asyncio.Event()

    # ── writing ────────────────────────────────────────────────────────────────────────
    def ran(self, message_id: str) -> None:
        """A handler of this process was called with this id."""
        self.runs[message_id] += 1

    async def handler(self, message: SecureMessage) -> bytes:
        """For a server of this process: note the run, wait if told to, answer what belongs to it."""
        self.ran(message.id)
        size = len(message.payload)
        if message.payload != payload_of(message.id, size):
            raise HandlerError(NOT_MINE)
        if wait := message.metadata.get("wait"):
            await asyncio.sleep(float(wait))
        return answer_of(message.id, size)

    async def call(
        self,
        client: Client,
        *,
        size: int = 100,
        timeout: float = 5.0,
        cancel_after: float | None = None,
        wait: float = 0.0,
    ) -> Entry:
        """Make one call, and write down how it ends.

        Args:
            client: that makes it.
            size: of its payload, in bytes.
            timeout: seconds for all of it.
            cancel_after: seconds until its caller is cancelled.
            wait: seconds that its handler takes.
        """
        message_id = f"{self.name}-{len(self.calls)}"
        limit = timeout if cancel_after is None else min(timeout, cancel_after)
        entry = self.calls[message_id] = Entry(limit)
        message = SecureMessage(
            id=message_id,
            payload=payload_of(message_id, size),
            did=DID,
            signature=SECRET,
            metadata={"wait": str(wait)} if wait else {},
        )
        begun = monotonic()
        ending = None
        scope = asyncio.timeout(cancel_after)
        try:
            async with scope:
                try:
                    response = await client.send(message, timeout=timeout)
                    ending, entry.wrong = Ending.ANSWERED, self._judge(message, response)
                except NotSentError as error:
                    ending, entry.error = Ending.NOT_SENT, type(error).__name__
                except MaybeDeliveredError as error:
                    ending, entry.error = Ending.MAYBE, type(error).__name__
                except DecodeError as error:
                    ending, entry.error = Ending.UNREADABLE, type(error).__name__
        except TimeoutError:
            if not scope.expired():
                raise
            # It ended, and its caller was cancelled before it could see that: what counts is what it saw.
            ending = ending or Ending.CANCELLED
        entry.took, entry.ending = monotonic() - begun, ending
        self.endings[ending] += 1
        if entry.error:
            self.errors[entry.error] += 1
        self._moved.set()
        return entry

    def _judge(self, message: SecureMessage, response: Response) -> str:
        if response.message_id != message.id:
            return f"an answer to {response.message_id!r}"
        if not response.success:
            return f"the answer {response.error!r}"
        if response.data != self._answer(message.id, len(message.payload)):
            return "the data of another answer"
        return ""

    # ── reading ────────────────────────────────────────────────────────────────────────
    @property
    def answered(self) -> int:
        """Calls that were answered."""
        return self.endings[Ending.ANSWERED]

    @property
    def lost(self) -> int:
        """Calls that ended because their connection did."""
        return self.errors["ConnectionLostError"] + self.errors["WriteTimeoutError"]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until this holds, which is looked at whenever a call ends."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    def problems(self, slack: float = PATIENCE, *, saw_handlers: bool = True) -> Iterator[str]:
        """What does not balance, when all calls should have ended and all handlers too.

        Args:
            slack: seconds that a call may end behind its time.
            saw_handlers: whether what handlers ran is known here.
        """
        for message_id, entry in self.calls.items():
            runs = self.runs[message_id]
            if entry.ending is None or entry.took is None:
                yield f"{message_id} never ended"
                continue
            if entry.wrong:
                yield f"{message_id} got {entry.wrong}"
            if entry.took > entry.limit + slack:
                yield f"{message_id} had {entry.limit:g} s, and took {entry.took:.3f} s"
            if entry.ending is Ending.NOT_SENT and runs:
                yield f"{message_id} was run, and its caller was told by {entry.error} that it never left"
            if entry.ending is Ending.ANSWERED and not runs and saw_handlers:
                yield f"{message_id} was answered, and no handler ran it"
            if runs > 1:
                yield f"{message_id} was run {runs} times"
        for message_id in self.runs.keys() - self.calls.keys():
            yield f"{message_id} was run, and nobody sent it"
        if sum(self.endings.values()) != len(self.calls):
            yield f"{len(self.calls)} calls have {sum(self.endings.values())} endings"

    def check(self, runs: Iterable[str] | None = None) -> None:
        """All of it balances.

        Args:
            runs: the ids that handlers of another process ran; None for those of this one.

        Raises:
            AssertionError: it does not; the text says where.
        """
        if runs is not None:
            self.runs.update(runs)
        found = list(self.problems())
        assert not found, "\n".join([f"{len(found)} entries do not balance:", *found[:20]])


class Journal:
    """What handlers of a process ran, in a file: each id is with the kernel before its handler goes on.

    Args:
        path: appended to, so that a process started again goes on with it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ran(self, message_id: str) -> None:
        """Note that a handler was called with this id."""
        os.write(self._file, f"{message_id}\n".encode())

    def close(self) -> None:
        os.close(self._file)

    @staticmethod
    def read(path: Path) -> list[str]:
        """The ids in the order of their runs."""
        return path.read_text().splitlines() if path.exists() else []
