"""SAGE as its Go package does it, on gorilla/websocket, both ends in Go: the program in ``go/``."""

from __future__ import annotations

from pathlib import Path

from bench.building import built

SOURCES = Path(__file__).parent / "go"


def build() -> Path:
    """The program, built where its sources have changed."""
    return built(
        "go",
        SOURCES,
        lambda folder: ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(folder / "sagebench"), "."],
        program="sagebench",
    )
