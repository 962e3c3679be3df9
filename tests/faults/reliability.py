"""Everything that gives a figure of reliability, on each core and link; then `docs/reliability.md`.

::

    python -m tests.faults.reliability --seconds 60      of soak, on each (``make reliability``)
    python -m tests.faults.reliability --only storm      that program anew, in the newest record

Nothing is kept where something does not hold.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults.figures import ROOT, Record, newest
from tests.faults.page import write

AXES: Final[Mapping[str, Mapping[str, str]]] = {
    "Rust": {"SAGE_WS_CORE": "rust", "SAGE_WS_LINK": "direct", "SAGE_WS_TEST_LOOP": "asyncio"},
    "Rust on the loop's link": {
        "SAGE_WS_CORE": "rust",
        "SAGE_WS_LINK": "loop",
        "SAGE_WS_TEST_LOOP": "uvloop",
    },
    "pure": {"SAGE_WS_CORE": "pure", "SAGE_WS_LINK": "loop", "SAGE_WS_TEST_LOOP": "asyncio"},
}
KILLS: Final = 200
PROGRAMS: Final[Mapping[str, tuple[str, ...]]] = {"storm": (), "restarts": (str(KILLS),), "floods": ()}
"""What prints JSON, with its arguments."""
LIMIT: Final = 1800.0
"""Seconds after which a program hangs."""


def ran(environment: Mapping[str, str], module: str, *arguments: str) -> str:
    """What a program prints; what it says of its progress is shown."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{module} does not hold:\n{done.stdout}")
    return done.stdout


def measured(environment: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """All programs, on one axis."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "soak.json"
        sys.stdout.write(
            ran(environment, "tests.faults.soak", "--seconds", str(seconds), "--record", str(kept))
        )
        found: dict[str, Any] = {"soak": json.loads(kept.read_text("utf-8"))}
    for name in PROGRAMS:
        found[name] = printed(environment, name)
    return found


def printed(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    """What one of `PROGRAMS` found."""
    found: dict[str, Any] = json.loads(ran(environment, f"tests.faults.{name}", *PROGRAMS[name]))
    sys.stdout.write(f"{name}: {json.dumps(found)}\n")
    return found


def now() -> str:
    """When a measurement begins."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def main(seconds: float, only: str | None) -> None:
    """Measure, keep, write the page."""
    record = newest() if only else Record(when=now())
    for axis, environment in AXES.items():
        if only:
            record.runs[axis][only] = {"when": now()} | printed(environment, only)
        else:
            record.runs[axis] = measured(environment, seconds)
    sys.stdout.write(f"kept {record.dump().relative_to(ROOT)}, wrote {write(record).relative_to(ROOT)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the page on reliability shows, and write it.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=PROGRAMS)
    given = parser.parse_args()
    main(given.seconds, given.only)
