"""The port that several processes listen on: bound once by their parent, which accepts nothing there.

The parent's binding makes port 0 one port for all, and finds an address in use before any process starts. A
socket that is bound and does not listen gets no connections. Each worker listens on one of its own beside it
(SO_REUSEPORT), and the kernel spreads new connections over those.
"""

from __future__ import annotations

import asyncio
import socket

from sage_ws.aio.head import shown_address
from sage_ws.aio.listener import FREE_PORT_ATTEMPTS


class SharedPort:
    """One port, held on every address of a host until `close`.

    Args:
        host: address or name to bind; None for all interfaces.
        port: port to bind; 0 for any that is free on all of them.

    Attributes:
        number: the port.
        where: the addresses, as a log shows them.

    Raises:
        OSError: the address cannot be bound, or is listened on: by the workers of another run too.
    """

    def __init__(self, host: str | None, port: int) -> None:
        # A loop for this alone: nothing of it is left when workers are forked.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            self._sockets = runner.run(_bind(host, port))
        for one in self._sockets:
            # Not before it is bound: two runs that share from the start get the same port, and never know.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.number: int = self._sockets[0].getsockname()[1]
        self.where = ", ".join(sorted(shown_address(one.getsockname()) for one in self._sockets))

    def close(self) -> None:
        """Let go of it; whoever listens goes on."""
        for one in self._sockets:
            one.close()


async def _bind(host: str | None, port: int) -> list[socket.socket]:
    sockets = await _bind_each(host, port)
    for _ in range(FREE_PORT_ATTEMPTS):
        ports = {one.getsockname()[1] for one in sockets}
        if len(ports) == 1:
            break
        # Each address got a free port of its own: take one of them on all.
        for one in sockets:
            one.close()
        try:
            sockets = await _bind_each(host, ports.pop())
        except OSError:  # somebody has it on another address
            sockets = await _bind_each(host, port)
    return sockets


async def _bind_each(host: str | None, port: int) -> list[socket.socket]:
    """Bind as a server does, without listening."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        return [one.dup() for one in server.sockets]
    finally:
        server.close()
