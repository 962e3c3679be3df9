"""Stores that let a server run a message at most once: in memory, and in a file that outlives a crash."""

from sage_ws.dedupe.memory import DedupeMemory
from sage_ws.dedupe.sqlite import DedupeSQLite

__all__ = ["DedupeMemory", "DedupeSQLite"]
