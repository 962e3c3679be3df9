"""A TCP proxy that does to bytes what networks do: it delays, drops, cuts, slices, stalls and resets them.

::

    async with FaultProxy(server.port) as proxy:
        client = connect(f"ws://127.0.0.1:{proxy.port}/ws")
        proxy.up.delay = 0.01     # towards the server
        proxy.down.stall()        # towards the client
        proxy.reset()             # every connection that runs now

What is switched takes hold of running connections too, with the next piece that is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

PIECE = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way:
    """What happens to the bytes that go one way.

    Attributes:
        delay: seconds that each piece is held.
        slice: bytes that are written at once; 0 for whole pieces.
        drops: whether they are taken, and never come out.
        cut_at: bytes of a connection behind which it is ended both ways, TLS or not; None for never.
        reset_at: the same, by a reset.
        passed: bytes that came out, of all connections.
    """

    def __init__(self) -> None:
        self._flows = asyncio.Event()
        self.passed = 0
        self.heal()

    def heal(self) -> None:
        """No fault any more."""
        self.delay = 0.0
        self.slice = 0
        self.drops = False
        self.cut_at: int | None = None
        self.reset_at: int | None = None
        self.flow()

    def stall(self) -> None:
        """Read nothing more: the buffers in front of the proxy fill up, and no end is told of it."""
        self._flows.clear()

    def flow(self) -> None:
        """Go on behind a stall."""
        self._flows.set()

    async def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Bring all bytes from one socket to the other, then the end.

        Raises:
            _Cut: here the connection is to end.
            ConnectionError: one of the two is gone.
        """
        loop = asyncio.get_running_loop()
        carried = 0
        while True:
            await self._flows.wait()
            data = await loop.sock_recv(source, PIECE)
            await self._flows.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if self.drops:
                continue
            end = min((at for at in (self.cut_at, self.reset_at) if at is not None), default=None)
            kept = data if end is None else data[: max(0, end - carried)]
            step = self.slice or PIECE
            for start in range(0, len(kept), step):
                await self._flows.wait()
                await loop.sock_sendall(sink, kept[start : start + step])
                self.passed += len(kept[start : start + step])
            carried += len(kept)
            if end is not None and carried >= end:
                raise _Cut(reset=end == self.reset_at)


class _Cut(Exception):
    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class FaultProxy:
    """A listening socket in front of a server on this machine.

    Args:
        target: the server's port.
        buffer: bytes that the kernel keeps for each socket of the proxy: few fill sooner; 0 for its default.

    Attributes:
        up: towards the server.
        down: towards the client.
        port: where it listens.
        accepted: connections so far.
    """

    def __init__(self, target: int, *, buffer: int = 0) -> None:
        self.target = target
        self.up = Way()
        self.down = Way()
        self.port = 0
        self.accepted = 0
        self._buffer = buffer
        self._listening: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], tuple[socket.socket, socket.socket]] = {}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def connections(self) -> int:
        """How many run now."""
        return len(self._running)

    def heal(self) -> None:
        """No fault any more, either way; what was dropped or cut stays so."""
        self.up.heal()
        self.down.heal()

    def stall(self) -> None:
        """A dead network: nothing goes through, and nobody is told."""
        self.up.stall()
        self.down.stall()

    def cut(self) -> None:
        """End every connection that runs, both ways."""
        self._end_all(reset=False)

    def reset(self) -> None:
        """The same by resets, which throw away what is under way."""
        self._end_all(reset=True)

    def _end_all(self, *, reset: bool) -> None:
        for task, ends in self._running.items():
            _end(ends, reset=reset)
            task.cancel()

    async def _accept(self) -> None:
        assert self._listening is not None
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listening)
            client.setblocking(False)
            self.accepted += 1
            task = loop.create_task(self._connect(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        with client, self._socket() as server:
            self._running[task] = client, server
            try:
                await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self.target))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self.up.carry(client, server))
                    ways.create_task(self.down.carry(server, client))
            except* _Cut as cuts:
                resets = (one.reset for one in cuts.exceptions if isinstance(one, _Cut))
                _end((client, server), reset=any(resets))
            except* OSError:
                _end((client, server), reset=True)  # one end is gone: the other hears of it as it did
            finally:
                del self._running[task]

    def _socket(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        if self._buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        return made

    async def __aenter__(self) -> Self:
        self._listening = self._socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(1024)
        self.port = self._listening.getsockname()[1]
        task = asyncio.get_running_loop().create_task(self._accept())
        self._tasks.add(task)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._listening.close()


def _end(ends: tuple[socket.socket, socket.socket], *, reset: bool) -> None:
    """Say the end to both; the sockets themselves are closed by whose they are."""
    for end in ends:
        with contextlib.suppress(OSError):  # not connected, or gone
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                end.shutdown(socket.SHUT_RDWR)
