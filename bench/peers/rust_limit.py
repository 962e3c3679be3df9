"""Pure Rust: the program in ``bench/limit``, a server and a load generator by hand on epoll."""

from __future__ import annotations

from pathlib import Path

from bench.building import KEPT, built

SOURCES = Path(__file__).parent.parent / "limit"


def build() -> list[str]:
    """The program, built where its sources have changed."""
    return [str(built(SOURCES, "sage-limit", _command))]


def _command(folder: Path) -> list[str]:
    build = f"cargo build --release --locked --quiet --target-dir '{KEPT / 'cargo'}'"
    return ["sh", "-c", f"{build} && cp '{KEPT}/cargo/release/sage-limit' '{folder}'"]
