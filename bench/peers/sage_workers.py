"""`sage_ws.run` with several workers: it owns its process, so that `bench.child` cannot run it.

``python -m bench.peers.sage_workers serve 2`` starts it, speaks `bench.child`'s lines and ends it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Final

import sage_ws
from bench.peers.sage import echo

SECONDS: Final = 10.0
"""For the first worker to listen, and for all of them to end."""


def serve(workers: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with subprocess.Popen(
        [sys.executable, "-m", "bench.peers.sage_workers", "run", workers, str(port)],
        stdin=subprocess.DEVNULL,
    ) as running:
        try:
            wait_for(port)
            address = f"ws://127.0.0.1:{port}/ws"
            print(json.dumps({"address": address, "loop": "uvloop", "versions": {}}), flush=True)
            sys.stdin.read()
        finally:
            running.terminate()
            running.wait(SECONDS)


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sage_ws.run(echo, "127.0.0.1", int(sys.argv[3]), workers=int(sys.argv[2]))
