"""Programs in other languages: built on demand, kept under a key of their sources."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

KEPT: Final = Path(__file__).parent.parent / "target" / "bench"


class BuildFailed(Exception):
    """A compiler said no; its words are the message."""


def built(sources: Path, program: str, command: Callable[[Path], Sequence[str]]) -> Path:
    """A program, built unless it was.

    Args:
        sources: the folder that it is built in, and from.
        program: its file's name.
        command: makes the compiler's command, given the folder where the program shall go.

    Raises:
        BuildFailed: it does not build.
    """
    if not sources.is_dir():
        raise BuildFailed(f"{program}: its sources are not in this tree")
    kept = KEPT / f"{program}-{_digest(sources)}" / program
    if not kept.exists():
        new = KEPT / f"{kept.parent.name}.{os.getpid()}"
        new.mkdir(parents=True)
        done = subprocess.run(
            command(new), cwd=sources, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise BuildFailed(f"{program}:\n{done.stdout}{done.stderr}")
        kept.parent.mkdir(exist_ok=True)
        (new / program).replace(kept)
        new.rmdir()
    return kept


def _digest(sources: Path) -> str:
    """Of all that is built from, what a compiler left there aside."""
    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*")):
        inside = path.relative_to(sources)
        if path.is_file() and inside.parts[0] != "target":
            digest.update(inside.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
