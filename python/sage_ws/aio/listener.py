"""The listening sockets of a server: bound, held, closed, with what asyncio leaves open about them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sage_ws.aio.link import UNLIMITED

if TYPE_CHECKING:
    from sage_ws.options import ServerSettings

BACKLOG = 1024
"""Connections that the kernel may hold for us between accepts."""
ACCEPTS = 64
"""Of them that asyncio takes in one turn; to it one backlog means both. Out of descriptors it logs as many
errors before it breaks off and waits for a second (python/cpython#151615). With 16 a storm costs 5 % more."""
FREE_PORT_ATTEMPTS = 5
"""Tries to find one free port on all addresses of a host."""


async def bound(
    make: Callable[[], asyncio.Protocol],
    settings: ServerSettings,
    address: str | os.PathLike[str] | socket.socket | tuple[str | None, int],
    *,
    shares_port: bool,
) -> asyncio.Server:
    """Bind, and do not listen yet.

    Args:
        make: makes the protocol of each connection.
        settings: the server's options.
        address: path of a unix socket; a socket that is bound already; host and port, 0 for any free one,
            which is the same on all addresses of the host.
        shares_port: other processes listen on it too.

    Raises:
        OSError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"backlog": ACCEPTS, "start_serving": False}
    if settings.ssl is not None:
        options |= {
            "ssl": settings.ssl,
            "ssl_handshake_timeout": settings.open_timeout or UNLIMITED,
            "ssl_shutdown_timeout": settings.close_timeout or UNLIMITED,
        }
    if isinstance(address, (str, os.PathLike)):
        return await loop.create_unix_server(make, address, **options)
    if not isinstance(address, tuple):
        if address.family == getattr(socket, "AF_UNIX", None):
            return await loop.create_unix_server(make, sock=address, **options)
        return await loop.create_server(make, sock=address, **options)
    host, port = address
    options["reuse_port"] = shares_port
    listener = await loop.create_server(make, host, port, **options)
    for _ in range(FREE_PORT_ATTEMPTS):
        ports = {one.getsockname()[1] for one in listener.sockets}
        if len(ports) == 1:
            break
        # Each address got a free port of its own: take one of them on all.
        listener.close()
        await asyncio.sleep(0)  # uvloop lets go of a socket in its next round
        try:
            listener = await loop.create_server(make, host, ports.pop(), **options)
        except OSError:  # somebody has it on another address
            listener = await loop.create_server(make, host, port, **options)
    return listener


def hold(listening: Any) -> None:
    """Have the kernel hold `BACKLOG` connections of a listening socket, which is the loop's."""
    try:
        shared = socket.fromfd(listening.fileno(), listening.family, listening.type)
    except OSError:  # no descriptor is left to do it by
        return
    with shared:
        shared.listen(BACKLOG)


async def stop_listening(listener: asyncio.Server) -> None:
    """Close the listening sockets once all that they have accepted has become a connection.

    Of one that is accepted when the listener closes asyncio would let go: nobody closes it, and its peer
    waits (python/cpython#109564).
    """
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # of Proactor, where there is nothing between the two
        for one in listener.sockets:
            loop.remove_reader(one)
        for _ in range(2):  # a task's first step, and the `connection_made` that it calls for
            await asyncio.sleep(0)
    listener.close()


def remove_socket(path: str) -> None:
    """Remove a unix socket's file; newer Pythons do it themselves."""
    with suppress(FileNotFoundError, ValueError):  # Linux's abstract ones have none: a zero byte is no path
        os.unlink(path)  # noqa: PTH108 - pathlib is not worth its import here
