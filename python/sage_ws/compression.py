"""What ``compression=`` takes: permessage-deflate (RFC 7692), and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """How messages are compressed: ``compression=Deflate(...)``; ``compression="deflate"`` is ``Deflate()``.

    A *window* is how far back a message may refer, and *context takeover* whether it may refer to messages
    before it. Both cost memory for each connection while it is open, and both are agreed on with the peer.

    Attributes:
        server_no_context_takeover: each message of the server stands for itself.
        client_no_context_takeover: each message of the client stands for itself.
        server_max_window_bits: base-2 logarithm of the server's window, 9 to 15. A server that does not know
            how to keep to it (Go's is one) is taken as it is.
        client_max_window_bits: base-2 logarithm of the client's window, 9 to 15.
        threshold: messages of fewer bytes on the wire are sent as they are.
        level: effort of compression, 1 (fast) to 9; 0 does not compress.
        memory_level: memory for that effort, 1 to 9.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: it is out of its range.
    """

    server_no_context_takeover: bool = True
    client_no_context_takeover: bool = True
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15
    threshold: int = 1024
    level: int = 6
    memory_level: int = 8

    def __post_init__(self) -> None:
        """Check each value."""
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _RANGES:
                least, most = _RANGES[one.name]
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"{one.name} must be an int, not {type(value).__name__}")
                if not least <= value <= most:
                    raise ValueError(f"{one.name} must be {least} to {most}, not {value}")
            elif not isinstance(value, bool):
                raise TypeError(f"{one.name} must be a bool, not {type(value).__name__}")


_RANGES = {
    "server_max_window_bits": (9, 15),
    "client_max_window_bits": (9, 15),
    "threshold": (0, 2**63 - 1),
    "level": (0, 9),
    "memory_level": (1, 9),
}
