"""Counts, compares, prints; with ``--record`` keeps."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import message
from bench.instructions.callgrind import CountFailed, count
from bench.instructions.record import Record, compare, differences, table, verdict
from bench.processes import ROOT
from bench.record import RESULTS, machine

RECORD: Final = RESULTS / "instructions.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep these counts")
    arguments = parser.parse_args()
    try:
        counts = {"core": count_core(), "package": count_package()}
    except CountFailed as error:
        sys.exit(f"no counts: {error}")
    now = Record(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), machine(), versions(), counts)
    recorded = Record.load(RECORD)
    lines = compare(counts, recorded.counts)
    print(*table(lines), "", *differences(now, recorded), *verdict(lines), sep="\n")
    if arguments.record:
        now.save(RECORD)
        print(f"kept in {RECORD.relative_to(ROOT)}")


def count_core() -> dict[str, int]:
    """The core alone, compiled as the wheel's is."""
    request = message.request("7f3c9a52-5c1e-4d6b-9a41-3f0c2d8e6b17", message.payloads(256)[0])
    texts = [json.dumps(form, separators=(",", ":")) for form in (request, message.answer(request))]
    return count([built_example(), *texts], {})


def built_example() -> Path:
    """The program of `rust/core/examples`, built if need be.

    Raises:
        CountFailed: it cannot be; why is on stderr.
    """
    cargo = ["cargo", "build", "--release", "--quiet", "--message-format=json"]
    example = ["--package=sage-ws-core", "--example=instructions"]
    # Without make's flags: cargo has its own idea of how many jobs run at once.
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    try:
        built = subprocess.run(
            [*cargo, *example], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise CountFailed(f"the core's program was not built: {error}") from error
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return next(Path(each["executable"]) for each in artifacts if each.get("executable"))


def count_package() -> dict[str, int]:
    """The package on the native core, in this interpreter."""
    command = [sys.executable, "-m", "bench.instructions.package"]
    environment = {"PYTHONHASHSEED": "0", "SAGE_WS_CORE": "rust", "PYTHONPATH": str(ROOT)}
    return count(command, environment)


def versions() -> dict[str, str]:
    """Of what compiled, ran and counted; Python's stands with the machine."""
    found = {"sage-ws": version("sage-ws")}
    for tool in ("rustc", "valgrind"):
        said = subprocess.run([tool, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        found[tool] = said.split()[1] if tool == "rustc" else said.strip().removeprefix("valgrind-")
    return found


if __name__ == "__main__":
    main()
