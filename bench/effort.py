"""How long a run takes: a short one that is honest, and a full one whose figures are calm."""

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
        idle_rounds: of opening handshakes, of memory, of pings.
        handshakes: in a storm.
        idle: connections whose memory is taken.
        pinged: connections that are pinged.
        ping_seconds: for which they are.
        imports: of each core.
    """

    rounds: int
    seconds: float
    curve_rounds: int
    idle_rounds: int
    handshakes: int
    idle: int
    pinged: int
    ping_seconds: float
    imports: int


SHORT: Final = Effort(
    rounds=5,
    seconds=0.3,
    curve_rounds=3,
    idle_rounds=3,
    handshakes=2_000,
    idle=5_000,
    pinged=10_000,
    ping_seconds=3,
    imports=15,
)
FULL: Final = Effort(
    rounds=11,
    seconds=1.0,
    curve_rounds=7,
    idle_rounds=5,
    handshakes=10_000,
    idle=5_000,
    pinged=10_000,
    ping_seconds=10,
    imports=51,
)
