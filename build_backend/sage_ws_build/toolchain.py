"""Which Rust toolchain is on PATH, and whether it is new enough to build this source.

The minimum is read from Cargo.toml, where cargo itself reads it: a second copy would drift.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple, TypeAlias

Version: TypeAlias = tuple[int, int, int]

_SECONDS_TO_ANSWER = 60
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


class Toolchain(NamedTuple):
    """What was found.

    Attributes:
        usable: whether this source can be compiled with it.
        finding: one clause that says what was found, or why it will not do.
    """

    usable: bool
    finding: str


def minimum_version(cargo_toml: Path) -> Version:
    """The MSRV that the workspace declares, ``[workspace.package] rust-version``."""
    with cargo_toml.open("rb") as file:
        declared = tomllib.load(file)["workspace"]["package"]["rust-version"]
    return _parse(declared)


def find_toolchain(minimum: Version, *, cwd: Path) -> Toolchain:
    """Look for cargo and rustc on PATH and compare their versions.

    They are asked, not only looked up: rustup's proxies stand on PATH even where no toolchain
    is behind them, and what they answer depends on the folder (rust-toolchain.toml).

    Args:
        minimum: the oldest that will do.
        cwd: the folder that the build will run in.

    Returns:
        The finding. A missing, old or unanswering toolchain is a finding, not an exception.
    """
    for tool in ("cargo", "rustc"):
        # cargo itself compiles with $RUSTC where that is set.
        path = shutil.which(os.environ.get(tool.upper(), tool))
        if path is None:
            return Toolchain(usable=False, finding=f"no {tool} was found on PATH")
        version = _ask(path, cwd)
        if version is None:
            return Toolchain(usable=False, finding=f"{path} --version failed")
        if version < minimum:
            oldest = f"{_text(minimum)}, the oldest that will do"
            return Toolchain(usable=False, finding=f"{tool} {_text(version)} is older than {oldest}")
    return Toolchain(usable=True, finding=f"cargo and rustc at or above {_text(minimum)}")


def _ask(path: str, cwd: Path) -> Version | None:
    try:
        done = subprocess.run(
            [path, "--version"],
            cwd=cwd,
            # A proxy that has no toolchain says so; it does not fetch one.
            env={**os.environ, "RUSTUP_AUTO_INSTALL": "0"},
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
            check=True,
        )
        return _parse(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _parse(text: str) -> Version:
    match = _VERSION.search(text)
    if match is None:
        raise ValueError(f"no version in {text!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def _text(version: Version) -> str:
    return ".".join(map(str, version))
