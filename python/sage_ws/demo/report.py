"""What the clients' process tells the parent of one transport: a snapshot, small enough for ten a second."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far the messages over one transport are; the last one holds the percentiles too.

    Attributes:
        name: of the transport.
        wanted: messages to send.
        answered: messages whose answer passed every check.
        failures: messages for which that is not so.
        reasons: of the first failures.
        forgeries: messages changed after they were signed.
        refused: those of them that the agents refused for that reason.
        rate: messages answered per second.
        p50, p99: milliseconds from a send to its answer.
        latest: client, agent and answer of one exchange, for the screen.
        done: nothing more will come of this transport.
    """

    name: str
    wanted: int
    answered: int = 0
    failures: int = 0
    reasons: list[str] = field(default_factory=list)
    forgeries: int = 0
    refused: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    latest: tuple[str, str, str] | None = None
    done: bool = False

    @property
    def passed(self) -> bool:
        """Whether something was answered, nothing failed, and every forgery was refused."""
        return self.done and self.answered > 0 and not self.failures and self.refused == self.forgeries
