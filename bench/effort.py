"""How long a run takes: a short one that is honest, a full one whose figures are calm, and a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Effort:
    """What a run may cost.

    Attributes:
        rounds: turns of each peer at each shape.
        seconds: that a turn lasts.
        curve_rounds: turns at each point of a curve.
        curve_lines: of a curve: ours, the limit, then others.
        storms: of opening handshakes.
        handshakes: in a storm.
        idle_rounds: of memory, and of pings.
        idle: connections whose memory is taken.
        pinged: connections that are pinged.
        ping_seconds: for which they are.
        imports: of each core.
        most: of connections, or of messages at once, at the right end of a curve.
    """

    rounds: int
    seconds: float
    curve_rounds: int
    curve_lines: int
    storms: int
    handshakes: int
    idle_rounds: int
    idle: int
    pinged: int
    ping_seconds: float
    imports: int
    most: int = 100_000


SHORT: Final = Effort(
    rounds=5,
    seconds=0.3,
    curve_rounds=3,
    curve_lines=2,
    storms=3,
    handshakes=2_000,
    idle_rounds=1,
    idle=5_000,
    pinged=10_000,
    ping_seconds=3,
    imports=15,
)
FULL: Final = Effort(
    rounds=11,
    seconds=1.0,
    curve_rounds=7,
    curve_lines=4,
    storms=5,
    handshakes=10_000,
    idle_rounds=3,
    idle=5_000,
    pinged=10_000,
    ping_seconds=10,
    imports=51,
)
TRIAL: Final = Effort(
    rounds=1,
    seconds=0.02,
    curve_rounds=1,
    curve_lines=4,
    storms=1,
    handshakes=100,
    idle_rounds=1,
    idle=100,
    pinged=100,
    ping_seconds=3,
    imports=1,
    most=100,
)
"""Tells whether everything runs; its figures say nothing."""
