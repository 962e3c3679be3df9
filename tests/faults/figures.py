"""What a run of `make reliability` measured, kept as JSON, and how a figure of it is written.

A record holds for each core and link (an *axis*) what each program printed: ``runs[axis][program]``.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

ROOT: Final = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for bench, where this is not the current folder

from bench.record import commit, machine  # noqa: E402

RESULTS: Final = Path(__file__).parent / "results"


@dataclass
class Record:
    """One run.

    Attributes:
        when: it began.
        commit: of the sources, with a mark where they were changed since.
        machine: what it ran on; nothing that names its owner.
        runs: axis to program to what it printed.
    """

    when: str
    commit: str = field(default_factory=commit)
    machine: dict[str, str | int] = field(default_factory=machine)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `dump` wrote."""
        return cls(**json.loads(path.read_text("utf-8")))

    def dump(self) -> Path:
        """Keep it under its date and commit."""
        path = RESULTS / f"{self.date}-{self.commit}.json"
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path

    @property
    def date(self) -> dt.date:
        """The day on which it was taken."""
        return dt.datetime.fromisoformat(self.when).date()

    def each(self, *path: str) -> dict[str, float]:
        """A figure on each axis that measured it: ``each("floods", "header", "cpu_ms")``."""
        found = {}
        for axis, programs in self.runs.items():
            value: Any = programs
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, dict):  # counts of what should not be
                value = sum(value.values())
            if isinstance(value, int | float):
                found[axis] = float(value)
        return found


def newest(paths: Iterable[Path] | None = None) -> Record:
    """The record that was taken last."""
    found = RESULTS.glob("*.json") if paths is None else paths
    return max(map(Record.load, found), key=lambda record: record.when)


# ── a figure in words ──────────────────────────────────────────────────────────────────
Figure: TypeAlias = Callable[[Record], str]
NOT_MEASURED: Final = "not measured in this run"


def asserted(bound: str) -> Figure:
    """A count or a size that a test asserts: it holds wherever the tests pass."""
    return lambda record: f"asserted: {bound}"


def by_axis(text: str, *path: str) -> Figure:
    """A figure on each axis, with ``{}`` for its value; once where it is the same on all."""

    def written(record: Record) -> str:
        words = {axis: text.format(value) for axis, value in record.each(*path).items()}
        if len(set(words.values())) == 1:
            return next(iter(words.values()))
        return "; ".join(f"{word} ({axis})" for axis, word in words.items()) or NOT_MEASURED

    return written


def worst(text: str, *path: str) -> Figure:
    """The largest over all axes."""

    def written(record: Record) -> str:
        values = record.each(*path)
        return text.format(max(values.values())) if values else NOT_MEASURED

    return written


def total(text: str, *path: str) -> Figure:
    """The sum over all axes."""

    def written(record: Record) -> str:
        values = record.each(*path)
        return text.format(sum(values.values())) if values else NOT_MEASURED

    return written


def both(*figures: Figure) -> Figure:
    """One after the other; what none has is said once."""
    return lambda record: "; ".join(dict.fromkeys(figure(record) for figure in figures))
