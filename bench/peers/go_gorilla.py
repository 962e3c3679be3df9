"""SAGE as its Go package does it, on gorilla/websocket, both ends in Go: the program in ``go/``."""

from __future__ import annotations

from pathlib import Path

from bench.building import built

SOURCES = Path(__file__).parent / "go"
COMMAND = ("go", "build", "-trimpath", "-buildvcs=false", "-o")


def build() -> list[str]:
    """The program, built where its sources have changed."""
    return [str(built(SOURCES, "sagebench", lambda folder: [*COMMAND, str(folder), "."]))]
