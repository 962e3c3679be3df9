"""What a run gave, and where: kept as JSON, from which every table, plot and page is made."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from bench.processes import ROOT
from bench.shapes import Round

RESULTS: Final = ROOT / "bench" / "results"
LATEST: Final = RESULTS / "latest.json"
FORMAT: Final = 2
"""Of the JSON; files of another are left alone."""

Turns: TypeAlias = dict[str, list[Round]]
"""Peer's name to its rounds, in the order of the race."""


@dataclass
class Record:
    """Everything that one run measured.

    Attributes:
        when: it began.
        commit: of the sources, with a mark where they were changed since.
        machine: what it ran on; nothing that names its owner.
        effort: rounds, seconds and sizes that were asked for.
        cpus: the cores of server and client; None where they were not pinned.
        versions: of what the peers are made of.
        loops: peer's name to its event loop's library.
        skipped: what was left out, and what kept it from running.
        failed: peer's name to how it gave up.
        shapes: shape's name to its turns.
        curves: curve's name to a point's name to its turns.
        wire: contest's key (`bench.wire`) to its turns.
        figures: what is one number each round: figure's name to whose it is to the numbers.
    """

    when: str = ""
    commit: str = ""
    machine: dict[str, str | int] = field(default_factory=dict)
    effort: dict[str, float] = field(default_factory=dict)
    cpus: tuple[int, int] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    loops: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Turns] = field(default_factory=dict)
    curves: dict[str, dict[str, Turns]] = field(default_factory=dict)
    wire: dict[str, Turns] = field(default_factory=dict)
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def begin(cls, now: dt.datetime) -> Self:
        """An empty one, of this moment and machine."""
        return cls(when=now.isoformat(timespec="seconds"), commit=commit(), machine=machine())

    @property
    def date(self) -> dt.date:
        """The day on which it was taken."""
        return dt.datetime.fromisoformat(self.when).date()

    @property
    def stem(self) -> str:
        """A file's name for it, without the end: date, machine, commit."""
        named = f"{self.machine['cpu']} {self.commit}".lower().replace("(r)", "")
        return f"{self.date.isoformat()}-{re.sub(r'[^a-z0-9]+', '-', named).strip('-')}"

    # ── JSON ───────────────────────────────────────────────────────────────────────────
    def dump(self, path: Path, targets: Sequence[dict[str, Any]] = ()) -> None:
        """Write it, and for other readers what follows from it."""
        whole = {"format": FORMAT, **asdict(self), "targets": list(targets)}
        whole["shapes"] = {name: _columns(turns) for name, turns in self.shapes.items()}
        whole["wire"] = {name: _columns(turns) for name, turns in self.wire.items()}
        whole["curves"] = {
            name: {point: _columns(turns) for point, turns in points.items()}
            for name, points in self.curves.items()
        }
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        # A list of numbers on one line: a round's are then under each other.
        text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
        path.write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `dump` wrote.

        Raises:
            ValueError: it is of another format.
        """
        whole = json.loads(path.read_text("utf-8"))
        if whole.get("format") != FORMAT:
            raise ValueError(f"{path.name} is of another format")
        whole.setdefault("wire", {})  # older ones have none
        known = {each.name: whole[each.name] for each in fields(cls)}
        known["shapes"] = {name: _turns(columns) for name, columns in whole["shapes"].items()}
        known["wire"] = {name: _turns(columns) for name, columns in whole["wire"].items()}
        known["curves"] = {
            name: {point: _turns(columns) for point, columns in points.items()}
            for name, points in whole["curves"].items()
        }
        return cls(**known)


def newest(paths: Iterable[Path]) -> Record:
    """The record that was taken last.

    Raises:
        FileNotFoundError: there is none of this format.
    """
    records = []
    for path in paths:
        try:
            records.append(Record.load(path))
        except ValueError:
            continue
    if not records:
        raise FileNotFoundError(f"no record of format {FORMAT} in {RESULTS}")
    return max(records, key=lambda record: record.when)


def _columns(turns: Turns) -> dict[str, dict[str, list[Any]]]:
    """Each peer's rounds as columns, those without a value left out."""
    return {
        name: {
            each.name: [_shortened(getattr(one, each.name)) for one in rounds]
            for each in fields(Round)
            if any(getattr(one, each.name) is not None for one in rounds)
        }
        for name, rounds in turns.items()
    }


def _shortened(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.6g}")


def _turns(columns: dict[str, dict[str, list[Any]]]) -> Turns:
    return {
        name: [Round(**dict(zip(its, values, strict=True))) for values in zip(*its.values(), strict=True)]
        for name, its in columns.items()
    }


# ── where ──────────────────────────────────────────────────────────────────────────────
def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu() -> str:
    try:
        listed = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        listed = None
    return listed[1].strip() if listed else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of these sources; empty outside a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
