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


def built(name: str, sources: Path, command: Callable[[Path], Sequence[str]], *, program: str) -> Path:
    """A program, built unless it was.

    Args:
        name: of the folder that it is kept in.
        sources: the folder that it is built in, and from.
        command: makes the compiler's command, given the folder where the program shall go.
        program: its file's name there.

    Raises:
        BuildFailed: it does not build.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(path.relative_to(sources).as_posix().encode() + b"\0" + path.read_bytes())
    kept = KEPT / f"{name}-{digest.hexdigest()[:16]}"
    if not (kept / program).exists():
        new = KEPT / f"{kept.name}.{os.getpid()}"
        new.mkdir(parents=True)
        done = subprocess.run(
            command(new), cwd=sources, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise BuildFailed(f"{name}:\n{done.stdout}{done.stderr}")
        kept.mkdir(exist_ok=True)
        (new / program).replace(kept / program)
        new.rmdir()
    return kept / program
