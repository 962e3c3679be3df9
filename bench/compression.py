"""permessage-deflate on and off: bytes, time and memory, both ends in memory: `python -m bench.compression`.

Every message is another one, there and back between two connections of the core that ``SAGE_WS_CORE``
chooses; on and off take turns, and the best round of each counts. Memory is what a process grows by for each
connection that has received and sent one message, less what it grows by without compression.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sage_ws import Deflate, SecureMessage, core_name
from sage_ws._core import Connection

SIZES: Final = (1 << 10, 4 << 10, 16 << 10, 64 << 10)
ROUNDS: Final = 5
BYTES: Final = 1 << 20
"""Of payload, in each round."""
CONNECTIONS: Final = 300


def taking_over(window_bits: int, memory_level: int) -> Deflate:
    """Context takeover in both directions, every message compressed."""
    return Deflate(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=window_bits,
        client_max_window_bits=window_bits,
        memory_level=memory_level,
        threshold=0,
    )


SETTINGS: Final[dict[str, Deflate]] = {
    "default": Deflate(threshold=0),
    "level=1": Deflate(threshold=0, level=1),
    "level=9": Deflate(threshold=0, level=9),
    "windows of 2^12, memory_level=5": Deflate(
        threshold=0, server_max_window_bits=12, client_max_window_bits=12, memory_level=5
    ),
    "takeover, windows of 2^9, memory_level=1": taking_over(9, 1),
    "takeover, windows of 2^12, memory_level=5": taking_over(12, 5),
    "takeover, windows of 2^15, memory_level=8": taking_over(15, 8),
}


def texts(size: int) -> Iterator[bytes]:
    """Prose and code as people write them, cut anew for each message."""
    docs = Path(__file__).parent.parent / "docs"
    prose = b"".join(path.read_bytes() for path in sorted(docs.rglob("*.md")))
    source = random.Random(size)
    while True:
        start = source.randrange(len(prose) - size)
        yield prose[start : start + size]


def noise(size: int) -> Iterator[bytes]:
    """What does not compress, but for its base64."""
    source = random.Random(size)
    while True:
        yield source.randbytes(size)


def ends(wanted: Deflate | None, subprotocol: str | None = None) -> tuple[Connection, Connection]:
    """A client's and a server's connection that have agreed on that."""
    if wanted is None:
        return Connection("client", subprotocol=subprotocol), Connection("server", subprotocol=subprotocol)
    client = wanted.client_max_window_bits, not wanted.client_no_context_takeover
    server = wanted.server_max_window_bits, not wanted.server_no_context_takeover
    effort = wanted.threshold, wanted.level, wanted.memory_level
    return (
        Connection("client", subprotocol=subprotocol, deflate=(*client, *server, *effort)),
        Connection("server", subprotocol=subprotocol, deflate=(*server, *client, *effort)),
    )


def carry(client: Connection, server: Connection, messages: list[SecureMessage]) -> int:
    """Bring messages there and their echoes back, one at a time; returns bytes on the wire."""
    travelled = 0
    for number, message in enumerate(messages):
        client.send_message(message, number, math.inf)
        there = client.data_to_send()
        for asked in server.receive_data(there):
            server.send_response(asked, asked.payload)
        back = server.data_to_send()
        assert len(client.receive_data(back)) == 1
        travelled += len(there) + len(back)
    return travelled


def measure(
    payloads: Iterator[bytes], size: int, wanted: Deflate, subprotocol: str | None
) -> tuple[float, float, float]:
    """Bytes on the wire, and seconds for a message off and on."""
    messages = [SecureMessage(payload=next(payloads), did="did:sage:bench") for _ in range(BYTES // size)]
    best = {None: math.inf, wanted: math.inf}
    travelled: dict[Deflate | None, int] = {}
    for _ in range(ROUNDS):
        for setting, least in best.items():
            client, server = ends(setting, subprotocol)
            begun = time.perf_counter()
            travelled[setting] = carry(client, server, messages)
            best[setting] = min(least, (time.perf_counter() - begun) / len(messages))
    return travelled[wanted] / travelled[None], best[None], best[wanted]


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def take_memory(name: str) -> float:
    """Bytes for each connection, in this process."""
    wanted = SETTINGS.get(name)
    message = SecureMessage(payload=next(texts(4096)), did="did:sage:bench")
    held: list[Any] = []
    for _ in range(20):  # what a process allocates once is no connection's
        carry(*ends(wanted), [message])
    client, _ = ends(wanted)
    client.send_message(message, 0, math.inf)
    chunk = client.data_to_send()
    before = resident()
    for _ in range(CONNECTIONS):
        _, server = ends(wanted)
        (asked,) = server.receive_data(chunk)
        server.send_response(asked, asked.payload)
        server.data_to_send()
        held.append(server)
    return (resident() - before) / len(held)


def memory_of(name: str) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "bench.compression", "--memory-of", name]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-of", help="a setting: its bytes for a connection, alone")
    parser.add_argument("--subprotocol", help="sage.1.json or sage.1.cbor; plain SAGE JSON without it")
    given = parser.parse_args()
    if given.memory_of is not None:
        print(take_memory(given.memory_of))
        return
    print(f"{core_name} core, {given.subprotocol or 'plain SAGE JSON'}")
    print(f"\n{'':44} {'payload':>14} {'bytes':>6} {'off µs':>8} {'on µs':>8} {'pays below':>14}")
    for name, wanted in SETTINGS.items():
        for kind, payloads in (("text", texts), ("noise", noise)):
            for size in SIZES:
                share, off, on = measure(payloads(size), size, wanted, given.subprotocol)
                # The link on which the bytes that are saved take as long as it took to save them.
                grown = 1 if given.subprotocol == "sage.1.cbor" else 4 / 3
                link = 2 * size * grown * (1 - share) * 8 / max(on - off, 1e-9) / 1e6
                took = f"{off * 1e6:>8.1f} {on * 1e6:>8.1f} {link:>7.0f} Mbit/s"
                print(f"{name:44} {kind:>7} {size >> 10:>2} KiB {share:>6.2f} {took}")
    without = memory_of("off")
    print(f"\n{'':44} {'bytes for a connection':>24}")
    for name in SETTINGS:
        print(f"{name:44} {memory_of(name) - without:>24.0f}")


if __name__ == "__main__":
    main()
