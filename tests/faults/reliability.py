"""Everything that gives a figure of reliability, on each core and link; then `docs/reliability.md`.

::

    python -m tests.faults.reliability --seconds 60      of soak, on each (``make reliability``)

Nothing is kept where something does not hold.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults.figures import ROOT, Record
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
    for name, *arguments in (["storm"], ["restarts", str(KILLS)], ["floods"]):
        module = f"tests.faults.{name}"
        if importlib.util.find_spec(module) is not None:
            found[name] = json.loads(ran(environment, module, *arguments))
            sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
    return found


def main(seconds: float) -> None:
    """Measure, keep, write the page."""
    record = Record(when=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    for axis, environment in AXES.items():
        record.runs[axis] = measured(environment, seconds)
    sys.stdout.write(f"kept {record.dump().relative_to(ROOT)}, wrote {write(record).relative_to(ROOT)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the page on reliability shows, and write it.")
    parser.add_argument("--seconds", type=float, default=60.0)
    main(parser.parse_args().seconds)
