"""A store in memory: as fast as a dictionary, and gone with its process."""

from __future__ import annotations

from collections import OrderedDict, deque
from time import monotonic

from sage_ws.dedupe.joining import Begun, Joining
from sage_ws.message import Response


class DedupeMemory(Joining):
    """Keeps answers in memory: ``serve(handler, dedupe=DedupeMemory())``.

    A message that comes again after a lost connection gets the first one's answer; after a restart of the
    process nothing is known any more, and between the workers of ``run(workers=N)`` nothing is shared:
    `DedupeSQLite` is for that.

    Args:
        max_entries: ids that are kept; the oldest are forgotten first.
        max_age: seconds after its end for which a run is remembered. A client repeats for as long as its
            ``timeout`` lasts, so this is longer.
        max_bytes: of answers. Over it the oldest are dropped and their ids kept: those are answered
            ``outcome unknown`` then, and still do not run again.

    Raises:
        ValueError: a bound is not over 0.
    """

    def __init__(
        self, *, max_entries: int = 100_000, max_age: float = 3600.0, max_bytes: int = 64 * 1024 * 1024
    ) -> None:
        super().__init__()
        for name, value in (("max_entries", max_entries), ("max_age", max_age), ("max_bytes", max_bytes)):
            if not value > 0:
                raise ValueError(f"{name} must be over 0, not {value}")
        self._max_entries, self._max_age, self._max_bytes = max_entries, max_age, max_bytes
        self._entries: OrderedDict[bytes, tuple[float, Response | None]] = OrderedDict()
        self._answers: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Ids that are remembered."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the answers that are kept."""
        return self._bytes

    async def open(self) -> None:
        """Belong to this event loop; what was kept before is still there."""
        self._enter()

    async def begin(self, key: bytes) -> Begun:
        """Decide what becomes of a message: see `Dedupe.begin`."""
        self._expire()
        joined = await self._joined(key)
        if joined is not None:
            return joined
        entry = self._entries.get(key)
        if entry is not None:
            return "unknown" if entry[1] is None else entry[1]
        self._start(key)
        return "run"

    async def finish(self, key: bytes, response: Response) -> None:
        """Keep the answer of a run, as long as the bounds allow."""
        self._keep(key, response)
        self._end(key, response)

    def cut(self, key: bytes) -> None:
        """A run was broken off: its id is kept, without an answer."""
        self._keep(key, None)
        self._end(key, "unknown")

    async def close(self) -> None:
        """Let go of the event loop; what is kept stays for the next `open`."""
        self._leave()

    def _keep(self, key: bytes, response: Response | None) -> None:
        self._entries[key] = (monotonic() + self._max_age, response)
        if response is not None:
            self._answers.append(key)
            self._bytes += _weight(response)
        while len(self._entries) > self._max_entries:
            self._forget_oldest()
        while self._bytes > self._max_bytes:
            oldest = self._answers.popleft()
            due, answer = self._entries.get(oldest, (0.0, None))
            if answer is not None:
                self._bytes -= _weight(answer)
                self._entries[oldest] = (due, None)

    def _expire(self) -> None:
        now = monotonic()
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        key, (_, answer) = self._entries.popitem(last=False)
        if answer is not None:
            self._bytes -= _weight(answer)
            self._answers.remove(key)


def _weight(response: Response) -> int:
    return len(response.data) + len(response.error) + len(response.message_id) + len(response.task_id)
