"""A server program to be flooded: it answers a payload of digits with as many bytes, and any other by itself.

::

    python -m tests.faults.flooded PORT [OPTIONS]

OPTIONS is JSON: the server's options, and ``buffer``, the bytes that the kernel may hold for each connection
and direction, and ``descriptors``, how many the process may have.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
from typing import Any

from tests.faults.child import input_ended, run, say

from sage_ws import SecureMessage, serve


def handler(message: SecureMessage) -> bytes:
    return bytes(int(message.payload)) if message.payload.isdigit() else message.payload


async def main(port: int, buffer: int, options: Any) -> None:
    """Serve until the standard input ends."""
    listening = socket.create_server(("127.0.0.1", port))
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF) if buffer else ():
        listening.setsockopt(socket.SOL_SOCKET, name, buffer)
    async with serve(handler, sock=listening, **options):
        say("listening")
        await input_ended()


if __name__ == "__main__":
    _, port, *given = sys.argv
    options = json.loads(given[0]) if given else {}
    if descriptors := options.pop("descriptors", 0):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    run(main(int(port), options.pop("buffer", 0), options))
