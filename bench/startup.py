"""What it costs to have sage_ws at all: its import, and the size of its wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.peers import OURS, load
from bench.processes import ROOT
from bench.race import Said
from bench.record import Record

IMPORT: Final = "seconds to import sage_ws, asyncio being there"
WHEEL: Final = "bytes of the wheel"

TIMED: Final = """
import asyncio, time
begun = time.perf_counter()
import sage_ws
print(time.perf_counter() - begun)
"""


def take_imports(record: Record, count: int, said: Said) -> None:
    """Import each core in processes of their own, in turns."""
    cores = []
    for name in OURS:
        reason = load(name).missing()
        if reason is None:
            cores.append(name)
        else:
            record.skipped[load(name).title] = reason
    said(f"{IMPORT}: {count} rounds")
    took: dict[str, list[float]] = {name: [] for name in cores}
    for number in range(count + 1):
        for name in cores:
            done = subprocess.run(
                [sys.executable, "-c", TIMED],
                env={**os.environ, **load(name).environment},
                capture_output=True,
                text=True,
                check=True,
            )
            if number:  # the first one compiles, or brings files into memory
                took[name].append(float(done.stdout))
    record.figures[IMPORT] = took


def take_wheel(record: Record, said: Said) -> None:
    """Build the wheel as `pip` does, and weigh it."""
    reason = load("sage-rust").missing()
    if reason is not None:
        record.skipped[WHEEL] = reason
        return
    said(f"{WHEEL}: building one")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)],
            env={**os.environ, "SAGE_WS_BUILD": "native", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            record.skipped[WHEEL] = f"it does not build here: {done.stderr.strip().splitlines()[-1]}"
            return
        record.figures[WHEEL] = {"sage-rust": [float(next(Path(folder).glob("*.whl")).stat().st_size)]}
