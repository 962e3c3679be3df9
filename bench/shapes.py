"""How the messages of a round travel, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self


@dataclass(frozen=True)
class Shape:
    """Traffic of one kind.

    Attributes:
        name: for reports and ``--shapes``.
        connections: open at once.
        in_flight: messages on each of them at any moment.
        figure: what is compared: the median round trip, or messages per second.
        payload: bytes of each message's payload.
        text: whether they are prose, which compresses; random ones do not.
    """

    name: str
    connections: int
    in_flight: int
    figure: Literal["p50", "rate"]
    payload: int = 256
    text: bool = False

    @property
    def title(self) -> str:
        """A table's column heading."""
        return f"{self.name}, p50" if self.figure == "p50" else self.name


SHAPES: Final = (
    Shape("sequential", connections=1, in_flight=1, figure="p50"),
    Shape("64 in flight", connections=1, in_flight=64, figure="rate"),
    Shape("64 connections", connections=64, in_flight=1, figure="rate"),
    Shape("64 KiB", connections=1, in_flight=8, figure="rate", payload=64 << 10),
    Shape("1 MiB", connections=1, in_flight=8, figure="rate", payload=1 << 20),
)


@dataclass(frozen=True)
class Wanted:
    """One round to drive: for so many seconds, or so many messages if those are answered first."""

    shape: Shape
    seconds: float
    messages: int | None = None

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """What `to_json` made."""
        return cls(Shape(**fields["shape"]), fields["seconds"], fields["messages"])

    def to_json(self) -> dict[str, Any]:
        """For the pipe to a client's process."""
        return asdict(self)


@dataclass(frozen=True)
class Round:
    """What one round gave, by the client's own clock.

    Attributes:
        messages: sent, answered and checked.
        seconds: from the first message to the last answer.
        p50: median round trip in seconds; measured where one message is in flight alone, else None.
        p99: likewise.
        client_cpu: seconds of processor time that the client's process took meanwhile; None if unknown.
        server_cpu: the server's likewise.
    """

    messages: int
    seconds: float
    p50: float | None = None
    p99: float | None = None
    client_cpu: float | None = None
    server_cpu: float | None = None

    @property
    def cost(self) -> float:
        """Seconds per message: the median round trip where it was measured, else the inverse of the rate."""
        return self.seconds / self.messages if self.p50 is None else self.p50

    @property
    def cpu(self) -> float | None:
        """Seconds of processor time per message, both ends together; None if unknown."""
        if self.client_cpu is None or self.server_cpu is None:
            return None
        return (self.client_cpu + self.server_cpu) / self.messages

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds
