"""What was recorded, what rose since, and how both are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

LIMIT: Final = 5
"""Per cent: what rose by more is named by itself."""

Counts: TypeAlias = Mapping[str, Mapping[str, int]]
"""Program to operation to instructions."""


@dataclass(frozen=True)
class Record:
    """A run's counts, and what they depend on.

    Attributes:
        when: date and time.
        machine: as in the results of `bench`.
        versions: of what compiled, ran and counted.
        counts: program to operation to instructions.
    """

    when: str
    machine: Mapping[str, str | int]
    versions: Mapping[str, str]
    counts: Counts

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote; without counts where there is no such file."""
        try:
            fields: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls("", {}, {}, {})
        return cls(**fields)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        fields = {
            "when": self.when,
            "machine": self.machine,
            "versions": self.versions,
            "counts": self.counts,
        }
        path.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


@dataclass(frozen=True)
class Line:
    """An operation, now and as recorded.

    Attributes:
        program: which counted it.
        name: the operation.
        now: instructions; None where it is counted no more.
        recorded: likewise; None where it was not yet.
    """

    program: str
    name: str
    now: int | None
    recorded: int | None

    @property
    def change(self) -> float | None:
        """By which part of the recorded count it rose; below zero where it fell."""
        if self.now is None or not self.recorded:
            return None
        return self.now / self.recorded - 1

    @property
    def rose(self) -> bool:
        """By more than the limit."""
        if self.now is None or not self.recorded:
            return False
        # in whole numbers: a rise of the limit itself is none
        return self.now * 100 > self.recorded * (100 + LIMIT)


def compare(now: Counts, recorded: Counts) -> list[Line]:
    """Every operation of either, in the order of ``now``; in each program what is counted no more is last."""
    lines = []
    for program in {**now, **recorded}:
        ours, theirs = now.get(program, {}), recorded.get(program, {})
        lines += [Line(program, name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    return lines


def table(lines: list[Line]) -> Iterator[str]:
    """The lines for a terminal, a block for each program."""
    width = max(len(line.name) for line in lines)
    program = ""
    for line in lines:
        if line.program != program:
            program = line.program
            yield f"{program:<{width + 2}}{'instructions':>14}{'recorded':>14}{'change':>10}"
        figures = f"{_shown(line.now):>14}{_shown(line.recorded):>14}{_percent(line.change):>10}"
        yield f"  {line.name:<{width}}{figures}".rstrip()


def verdict(lines: list[Line]) -> Iterator[str]:
    """What rose by more than the limit, by name, or that nothing did."""
    rose = [line for line in lines if line.rose]
    if not any(line.recorded for line in lines):
        yield "nothing is recorded yet: --record keeps these"
    elif not rose:
        yield f"nothing rose by over {LIMIT} %"
    for line in rose:
        yield (
            f"rose by over {LIMIT} %: {line.program}, {line.name}: "
            f"{_shown(line.recorded)} -> {_shown(line.now)} ({_percent(line.change)})"
        )


def differences(now: Record, recorded: Record) -> Iterator[str]:
    """What besides the code may have moved the counts."""
    here, there = {**now.machine, **now.versions}, {**recorded.machine, **recorded.versions}
    for name, value in here.items():
        if there.get(name, value) != value:
            yield f"recorded with another {name}: {there[name]}, here {value}"


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _percent(change: float | None) -> str:
    return "" if change is None else f"{change * 100:+.1f} %"
