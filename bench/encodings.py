"""What CBOR saves: the same messages in each encoding, taking turns, through two connections in memory.

    chrt -f 10 python -m bench.encodings

The core is the one that ``SAGE_WS_CORE`` chooses. Each line has the median of the rounds, there and back in
microseconds, and how many times as long JSON takes, plain and extended: the median of the rounds' ratios.
"""

from __future__ import annotations

import time
from math import inf
from statistics import median
from typing import Final

from bench.message import CONTEXT_ID, DID, METADATA, ROLE, SIGNATURE, TASK_ID, payloads
from sage_ws import SecureMessage, _core

SIZES: Final = (64, 256, 4 << 10, 64 << 10, 1 << 20)
ENCODINGS: Final = (None, "sage.1.json", "sage.1.cbor")
ROUNDS: Final = 15
SECONDS: Final = 0.02
"""Of a turn, about."""


def carry(subprotocol: str | None, messages: list[SecureMessage], turns: int) -> float:
    """Seconds that a message and its echo take."""
    client, server = (_core.Connection(role, subprotocol=subprotocol) for role in ("client", "server"))
    start = time.perf_counter()
    for turn in range(turns):
        client.send_message(messages[turn % len(messages)], None, inf)
        (asked,) = server.receive_data(client.data_to_send())
        server.send_response(asked, asked.payload)
        client.receive_data(server.data_to_send())
    return (time.perf_counter() - start) / turns


def main() -> None:
    """Measures and prints."""
    print(f"{_core.name} core: µs there and back, and times as long as CBOR")
    print(f"{'bytes':>8} {'plain':>9} {'json':>9} {'cbor':>9} {'plain':>7} {'json':>7}")
    for size in SIZES:
        messages = [
            SecureMessage(payload, DID, f"m-{number}", SIGNATURE, CONTEXT_ID, TASK_ID, METADATA, ROLE)
            for number, payload in enumerate(payloads(size)[:8])
        ]
        turns = max(2, int(SECONDS / carry(None, messages, 4)))
        rounds = [[carry(one, messages, turns) for one in ENCODINGS] for _ in range(ROUNDS)]
        plain, json, cbor = (1e6 * median(column) for column in zip(*rounds, strict=True))
        ratios = [median(one[column] / one[2] for one in rounds) for column in (0, 1)]
        print(f"{size:8} {plain:9.2f} {json:9.2f} {cbor:9.2f} {ratios[0]:6.2f}x {ratios[1]:6.2f}x")


if __name__ == "__main__":
    main()
