"""Clients for any SAGE server, by hand on sockets, a process: ``python -m bench.raw_clients``.

One driver for all servers, so that what differs is the server. It reads JSON lines, and answers each:

- ``{"open": 5000, "address": …, "message": true}`` opens connections, 64 of them at once in their opening
  handshake, and brings a message there and back on each; ``{"seconds": …}``
- ``{"answer_pings": 3}`` answers pings for so many seconds; ``{"pings": …}``
- ``{"close": true}`` closes all; ``{"closed": …}``
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import socket
import struct
import sys
import time
from itertools import cycle
from typing import Any, Final
from urllib.parse import urlsplit

from bench.message import check, payloads, request
from bench.processes import allow_files

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Linux's: the port is chosen by where it leads to, so that one may serve several destinations."""
AT_ONCE: Final = 64
"""Below what any server's queue of connections to be accepted holds."""
PATIENCE: Final = 30.0
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455's own example."""
PING: Final = 0x89
PONG: Final = 0x8A
TEXT: Final = 0x81
NO_MASK: Final = bytes(4)
"""A mask as good as another, which leaves the bytes as they are."""


class Refused(Exception):
    """A server did not do as it should."""


class Client:
    """One connection."""

    def __init__(self, address: str, source: str, message: bool) -> None:
        at = urlsplit(address)
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((source, 0))
        self.socket.connect_ex((at.hostname, at.port))
        self._head = (
            f"GET {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._message = message
        self._opened = False
        self._got = b""

    def greet(self) -> None:
        """Send the opening handshake."""
        self.socket.send(self._head)

    def read(self) -> bool:
        """Take what came; returns whether all that was awaited is there.

        Raises:
            Refused: it is something else.
        """
        self._receive()
        if not self._opened:
            head, end, self._got = self._got.partition(b"\r\n\r\n")
            if not end:
                self._got = head
                return False
            if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
                raise Refused(f"the answer to the opening handshake was {head!r}")
            self._opened = True
            if self._message:
                self.socket.send(frame(TEXT, json.dumps(request("raw-1", payloads(256)[0])).encode()))
        if not self._message:
            return True
        for kind, payload in self.frames():
            if kind == TEXT:
                answer = json.loads(payload)
                check(answer["message_id"] == "raw-1", base64.b64decode(answer["data"]) == payloads(256)[0])
                return True
        return False

    def frames(self) -> list[tuple[int, bytes]]:
        """The whole frames that have come: first byte and payload."""
        whole, got = [], self._got
        while len(got) >= 2:
            size, start = got[1], 2
            if size == 126:
                size, start = int.from_bytes(got[2:4], "big"), 4
            if len(got) < start + size:
                break
            whole.append((got[0], got[start : start + size]))
            got = got[start + size :]
        self._got = got
        return whole

    def answer_pings(self) -> int:
        """Answer those that have come; returns how many."""
        self._receive()
        pings = [payload for kind, payload in self.frames() if kind == PING]
        for payload in pings:
            self.socket.send(frame(PONG, payload))
        return len(pings)

    def _receive(self) -> None:
        part = self.socket.recv(65536)
        if not part:
            raise Refused(f"the server ended the connection after {self._got!r}")
        self._got += part


def frame(kind: int, payload: bytes) -> bytes:
    """A client's frame."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return bytes((kind,)) + length + NO_MASK + payload


class Clients:
    """All of them."""

    def __init__(self) -> None:
        self._open: dict[int, Client] = {}
        self._poll = select.epoll()
        # Many sources, so that no port is wanted while TIME_WAIT holds it.
        self._sources = cycle(f"127.0.0.{number}" for number in range(2, 250))

    def open(self, address: str, count: int, message: bool) -> float:
        """Open connections; returns how many seconds that took.

        Raises:
            Refused: the server did not do as it should.
        """
        begun, left = time.perf_counter(), count
        opening: dict[int, Client] = {}
        while left or opening:
            while left and len(opening) < AT_ONCE:
                client = Client(address, next(self._sources), message)
                opening[client.socket.fileno()] = client
                self._poll.register(client.socket, select.EPOLLOUT)
                left -= 1
            events = self._poll.poll(PATIENCE)
            if not events:
                raise Refused(f"{len(opening)} connections wait in vain")
            for number, event in events:
                if event & select.EPOLLOUT:
                    opening[number].greet()
                    self._poll.modify(number, select.EPOLLIN)
                elif number not in opening:
                    self._open[number].answer_pings()
                elif opening[number].read():
                    self._open[number] = opening.pop(number)
        return time.perf_counter() - begun

    def answer_pings(self, seconds: float) -> int:
        """Answer pings for so long; returns how many came."""
        until, pings = time.perf_counter() + seconds, 0
        while (left := until - time.perf_counter()) > 0:
            for number, _ in self._poll.poll(left):
                pings += self._open[number].answer_pings()
        return pings

    def close(self) -> int:
        """Hang up; returns how many did."""
        closed = len(self._open)
        for client in self._open.values():
            client.socket.close()
        self._open.clear()
        return closed

    def obey(self, line: dict[str, Any]) -> dict[str, float]:
        """Do what a line says; see the head of this file."""
        if "open" in line:
            return {"seconds": self.open(line["address"], line["open"], line["message"])}
        if "answer_pings" in line:
            return {"pings": self.answer_pings(line["answer_pings"])}
        return {"closed": self.close()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.raw_clients", description=__doc__)
    parser.add_argument("--cpu", type=int, help="the core to stay on")
    cpu = parser.parse_args().cpu
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    allow_files()
    clients = Clients()
    for line in sys.stdin:
        print(json.dumps(clients.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
