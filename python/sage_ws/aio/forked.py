"""What a forked child does with sockets that are its parent's.

It shares the connections, and with them the peers: a close frame of the child's would end what the parent
still uses. And it shares the loop's selector: to unregister a socket there would have the parent hear no more
of it. So a child lets go of the descriptor, and touches nothing else.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any


def let_go(held: Any) -> None:
    """Give up this process's share in a socket, which an object of the loop's goes on to count as its own.

    Its number then names the null device: freed, it would soon name something else, which that object would
    close.

    Args:
        held: the socket, or what a transport shows of it; None for none.
    """
    number = -1 if held is None else held.fileno()
    if number < 0:
        return
    with suppress(OSError):  # no descriptor is left to open it with: the share ends with the process
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, number, inheritable=False)
        finally:
            os.close(null)
