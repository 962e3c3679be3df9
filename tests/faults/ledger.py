"""The ledger of a fault run: for each message id what was sent, run and answered, and how its call ended.

What a handler ran is noted here by one of this process, or in a `Journal` by one of another that may be
killed at any moment. An answer in parts is an entry like any other call, and so is what a handler asks back,
in a ledger of its own.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

from tests.faults.handling import Handling, answer_of, part_of, payload_of

from sage_ws import (
    Client,
    Connection,
    DecodeError,
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
        back: where what handlers ask back stands; without it they do not.

    Attributes:
        handler: for a server of this process, or for a client whose server asks back.
        wire: options of both ends of its run, which decide what they speak.
        streams: calls whose answer is taken in parts.
    """

    def __init__(
        self,
        name: str = "m",
        answer: Callable[[str, int], bytes] = answer_of,
        *,
        back: Ledger | None = None,
    ) -> None:
        self.name = name
        self.back = back
        self.wire: Mapping[str, Any] = {}
        self.handler = Handling(self.ran, None if back is None else back.ask)
        self.calls: dict[str, Entry] = {}
        self.runs: Counter[str] = Counter()
        self.streams = 0
        self.endings: Counter[Ending] = Counter()
        self.errors: Counter[str] = Counter()
        self._answer = answer
        self._moved = asyncio.Event()

    # ── writing ────────────────────────────────────────────────────────────────────────
    def ran(self, message_id: str) -> None:
        """A handler of this process was called with this id."""
        self.runs[message_id] += 1

    async def call(
        self,
        client: Client | Connection,
        *,
        size: int = 100,
        timeout: float = 5.0,
        cancel_after: float | None = None,
        wait: float = 0.0,
        asks: bool = False,
        parts: int | None = None,
        leave_after: int | None = None,
    ) -> Entry:
        """Make one call, and write down how it ends.

        Args:
            client: that makes it, or the connection whose other end is asked.
            size: of its payload, in bytes.
            timeout: seconds for all of it.
            cancel_after: seconds until its caller is cancelled.
            wait: seconds that its handler takes; for each part, where there are any.
            asks: its handler asks back, and waits for that instead.
            parts: the answer is taken in parts, as they come, and so many are asked for.
            leave_after: parts after which the caller has enough.
        """
        message_id = f"{self.name}-{len(self.calls)}"
        limit = timeout if cancel_after is None else min(timeout, cancel_after)
        entry = self.calls[message_id] = Entry(limit)
        orders = {"wait": str(wait) if wait else "", "ask": "1" if asks else "", "parts": str(parts or "")}
        message = SecureMessage(
            id=message_id,
            payload=payload_of(message_id, size),
            did=DID,
            signature=SECRET,
            metadata={name: value for name, value in orders.items() if value},
        )
        self.streams += parts is not None
        begun = monotonic()
        ending = None
        scope = asyncio.timeout(cancel_after)
        try:
            async with scope:
                try:
                    if parts is None:
                        response = await client.send(message, timeout=timeout)
                        ending, entry.wrong = Ending.ANSWERED, self._judge(message, response)
                    else:
                        asking = cast("Client", client)  # a connection has no streams
                        left = await self._take_parts(asking, message, timeout, parts, leave_after, entry)
                        ending = Ending.CANCELLED if left else Ending.ANSWERED
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
        except asyncio.CancelledError:  # a handler's, that asked back
            ending = Ending.CANCELLED
            raise
        finally:
            if ending is not None:
                entry.took, entry.ending = monotonic() - begun, ending
                self.endings[ending] += 1
                if entry.error:
                    self.errors[entry.error] += 1
                self._moved.set()
        return entry

    async def ask(self, connection: Connection, asked: SecureMessage) -> str:
        """For a handler: ask back because of this message; what was wrong with that, or ""."""
        wait = float(asked.metadata.get("wait", 0))
        entry = await self.call(connection, size=len(asked.payload), wait=wait, timeout=60)
        if entry.error in {"ReadTimeoutError", "QueueTimeoutError"}:
            # What was over is the time of who asked, a moment before it is over for this handler.
            await asyncio.get_running_loop().create_future()
        return entry.wrong or entry.error

    async def _take_parts(
        self,
        client: Client,
        message: SecureMessage,
        timeout: float,
        parts: int,
        leave_after: int | None,
        entry: Entry,
    ) -> bool:
        """Judge each part as it comes; returns whether the caller had enough before the end."""
        size, taken = len(message.payload), 0
        async with client.stream(message, timeout=timeout) as incoming:
            async for part in incoming:
                wrong = ""
                if part.message_id != message.id:
                    wrong = f"a part of {part.message_id!r}"
                elif not part.success:
                    wrong = f"the part {part.error!r}"
                elif part.data == part_of(message.id, taken, size):
                    taken += 1
                elif part.data == b"".join(part_of(message.id, one, size) for one in range(parts)):
                    taken += parts  # all in one, where the wire has no parts
                else:
                    wrong = f"another part than number {taken}"
                entry.wrong = entry.wrong or wrong
                if taken == leave_after and taken < parts:
                    return True
        if taken != parts:
            entry.wrong = entry.wrong or f"{taken} parts of {parts}"
        return False

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

    @property
    def given_up(self) -> int:
        """Calls whose caller did not wait for their end, or lost sight of it: each may stop a handler."""
        return self.endings[Ending.CANCELLED] + self.endings[Ending.UNREADABLE] + self.endings[Ending.MAYBE]

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
        if self.handler.running:
            yield f"{self.handler.running} handlers of {self.name} still run"
        if self.back is not None:
            yield from self.back.problems(slack, saw_handlers=saw_handlers)

    def implausible(self, stats: Mapping[str, int | float]) -> Iterator[str]:
        """What the counters of who served these calls say that cannot be."""
        ended = stats["stopped"] + stats["expired"]
        if ended > self.given_up:
            yield f"{ended} handlers of {self.name} were ended early, and {self.given_up} callers gave up"
        if stats["pending"]:
            yield f"{stats['pending']} are pending"

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
