"""Runs a program under callgrind and reads what was counted between its marks.

A program counts an operation in two parts, the second with twice as many operations as the first. Around
each part it makes a mark, a call of libc's ``getppid``, at which callgrind writes what it has counted since
the mark before. Then it prints a line of JSON: the operation's ``name``, and how many ``operations`` the
second part has more than the first.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

MARK: Final = "getppid"
MARKS: Final = 4
"""For each operation: both ends of both parts."""
KEPT: Final = ("PATH", "LD_LIBRARY_PATH", "VALGRIND_LIB")
"""All that programs see of the environment: its size moves the heap, and with it a copy's cost."""
SECONDS: Final = 300
"""Far more than any program takes; then it hangs."""


class CountFailed(Exception):
    """A program under callgrind gave up, or did not keep to the form above."""


def count(command: Sequence[str | Path], environment: Mapping[str, str]) -> dict[str, int]:
    """Run the program with these variables: its operations' names, in their order, to their instructions.

    Raises:
        CountFailed: valgrind is not here; the program failed (why is on stderr); marks and names differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part"
        valgrind = [
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            f"--dump-before={MARK}",
            f"--callgrind-out-file={out}",
        ]
        try:
            ran = subprocess.run(
                [*valgrind, *command],
                env={**{name: os.environ[name] for name in KEPT if name in os.environ}, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=SECONDS,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise CountFailed("valgrind is not on PATH") from None
        except subprocess.TimeoutExpired:
            raise CountFailed(f"not done after {SECONDS} s: {command[0]}") from None
        if ran.returncode != 0:
            raise CountFailed(f"ended with {ran.returncode}: {command[0]}")
        return counts(ran.stdout, list(_totals(out)))


def _totals(out: Path) -> Iterator[int]:
    """Instructions up to each mark since the one before; what follows the last is in ``out`` itself."""
    number = 1
    while (part := out.with_name(f"{out.name}.{number}")).exists():
        found = re.search(r"^totals: (\d+)$", part.read_text(errors="replace"), re.MULTILINE)
        if found is None:
            raise CountFailed(f"callgrind wrote no total into its part {number}")
        yield int(found[1])
        number += 1


def counts(printed: str, totals: Sequence[int]) -> dict[str, int]:
    """Put a program's output and callgrind's totals together.

    Raises:
        CountFailed: they do not belong together.
    """
    said = [json.loads(line) for line in printed.splitlines()]
    if len(totals) != MARKS * len(said) or not said:
        raise CountFailed(f"{len(said)} operations take {MARKS * len(said)} marks, not {len(totals)}")
    once, twice = totals[1::MARKS], totals[3::MARKS]
    return {
        each["name"]: round((longer - shorter) / each["operations"])
        for each, shorter, longer in zip(said, once, twice, strict=True)
    }
