"""Known vulnerabilities of dependencies: by cargo-audit for Rust crates, by pip-audit for Python packages.

    .venv/bin/python .ci/audit.py

Both ask a database of advisories. Where one cannot be had, this says `not audited` and why, and passes: what
was not looked up is neither sound nor a failure. An advisory that applies fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "target" / "audit"
LOCKS = ("Cargo.lock", "rust/fuzz/Cargo.lock", "bench/limit/Cargo.lock")
ADVISORIES = os.environ.get("AUDIT_RUST_ADVISORIES", "https://github.com/RustSec/advisory-db.git")
SECONDS = 600


class NotAuditedError(Exception):
    """Why not."""


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A tool to its end, whatever it came to."""
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAuditedError(str(error)) from error


def needed(*command: str | Path, **variables: str) -> None:
    """A step that an audit cannot do without."""
    done = run(*command, **variables)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotAuditedError(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")


def audit_rust() -> Iterator[str]:
    """The advisories that apply to a lock file."""
    database = TOOLS / "advisory-db"
    if database.exists():
        needed("git", "-C", database, "pull", "--quiet", GIT_TERMINAL_PROMPT="0")
    else:
        needed("git", "clone", "--quiet", "--depth=1", ADVISORIES, database, GIT_TERMINAL_PROMPT="0")
    needed("cargo", "install", "cargo-audit", "--locked", "--quiet", "--root", TOOLS)
    for lock in LOCKS:
        told = run(
            TOOLS / "bin" / "cargo-audit", "audit", "--no-fetch", "--json", "--db", database, "--file", lock
        )
        try:
            found = json.loads(told.stdout)["vulnerabilities"]["list"]
        except (ValueError, LookupError) as error:
            raise NotAuditedError(f"{lock}: {told.stderr.strip()}") from error
        for one in found:
            package, advisory = one["package"], one["advisory"]
            yield f"{lock}: {package['name']} {package['version']}: {advisory['id']}, {advisory['title']}"


def audit_python() -> Iterator[str]:
    """The advisories that apply to a package of this environment."""
    tool = TOOLS / "python"
    if not tool.exists():
        venv.create(tool, with_pip=True)
    needed(tool / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit")
    options = ("--format=json", "--progress-spinner=off", "--skip-editable", "--timeout=10")
    told = run(tool / "bin" / "pip-audit", *options, "--path", sysconfig.get_path("purelib"))
    try:
        packages = json.loads(told.stdout)["dependencies"]
    except (ValueError, LookupError) as error:
        raise NotAuditedError((told.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]) from error
    known = [package for package in packages if "vulns" in package]
    if not known:
        raise NotAuditedError(f"the package index has no advisories for any of {len(packages)} packages")
    unknown = [package["name"] for package in packages if "vulns" not in package]
    print("not audited, for the index does not know them:", *unknown)
    for package in known:
        for one in package["vulns"]:
            yield f"{package['name']} {package['version']}: {one['id']}"


def main() -> int:
    """Both.

    Returns:
        1 where an advisory applies.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for name, audit in (("Rust crates", audit_rust), ("Python packages", audit_python)):
        before = len(found)
        try:
            found.extend(audit())
            print(f"{name}: {len(found) - before} advisories apply")
        except NotAuditedError as reason:
            print(f"{name}: not audited: {reason}")
    print(*found, sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
