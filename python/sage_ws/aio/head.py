"""The head of an opening request: its grammar, the fields that decide who comes in, and the rest on demand.

A head is sound if one strict expression matches the whole of it (RFC 9112 §3, §5: no line end but CRLF, a
token before each colon, no fold, no control character). One search then finds the few fields that the opening
handshake reads; the others stay bytes until somebody asks. `websockets`' parser takes and refuses the same
heads (tests/property/test_heads.py) at ten times the cost: docs/decisions/0008-heads-are-parsed-here.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from websockets.datastructures import Headers

# Possessive: a head that does not match is given up in one pass, whatever stands in it.
_SOUND = re.compile(
    r"GET ([\x21-\x7e]++) HTTP/1\.1\r\n"
    r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*\r\n"
)
_READ = re.compile(
    r"\r\n(host|upgrade|connection|origin|sec-websocket-(?:key|version|protocol)|content-length|transfer-encoding"
    r"|x-forwarded-for):[ \t]*+([^\r]*+)",
    re.ASCII | re.IGNORECASE,
)


def shown_address(address: Any) -> str:
    """A socket's address as a URL would have it: ``(host, port, …)`` for TCP, else a unix socket's path."""
    if not isinstance(address, tuple):
        return f"unix:{address}" if address else "a unix socket"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class RequestHead:
    """A sound GET.

    Attributes:
        path: the request target.
        fields: the values, in their order, of each field that the opening handshake reads and that is there;
            names in lower case.
        lines: the header fields as they came, each with its CRLF.
    """

    __slots__ = ("fields", "lines", "path")

    def __init__(self, path: str, fields: Mapping[str, Sequence[str]], lines: bytes) -> None:
        self.path = path
        self.fields = fields
        self.lines = lines

    @property
    def headers(self) -> Headers:
        """All header fields."""
        return parse_fields(self.lines)


def parse_head(head: bytes) -> RequestHead | None:
    """Read a head that ends with its only empty line; None where it is not a sound GET."""
    text = head.decode("latin-1")
    sound = _SOUND.fullmatch(text)
    if sound is None:
        return None
    fields: dict[str, list[str]] = {}
    for name, value in _READ.findall(text):
        fields.setdefault(name.lower(), []).append(value.rstrip(" \t"))
    target = sound[1]
    return RequestHead(target, fields, head[len(target) + len("GET  HTTP/1.1\r\n") : -len("\r\n")])


def parse_fields(lines: bytes) -> Headers:
    """All header fields of a sound head."""
    from websockets.datastructures import Headers

    headers = Headers()
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers[name] = value.strip(" \t")
    return headers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReceivedRequest:
    """A sound opening request, as ``authorize`` sees it.

    Attributes:
        path: the request target, query included.
        remote_address: the peer's socket address, or what a trusted proxy told of it.
        origin: the Origin header, None without one.
        peer_certificate: what the client's certificate says, None without a verified one.
    """

    path: str
    _lines: bytes
    remote_address: Any
    origin: str | None
    peer_certificate: Mapping[str, Any] | None = None
    _headers: Headers | None = field(default=None, init=False)

    def __repr__(self) -> str:
        path = self.path.partition("?")[0]  # a token may stand behind it, as in the header fields
        told = f"remote_address={self.remote_address!r}, origin={self.origin!r}"
        return f"ReceivedRequest({path=}, {told}, peer_certificate={self.peer_certificate!r})"

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; names match in any case. Parsed when they are first read."""
        if self._headers is None:
            object.__setattr__(self, "_headers", parse_fields(self._lines))
        assert self._headers is not None
        return self._headers

    def forget_headers(self) -> None:
        """Let the parsed fields go: who opened a connection with them seldom reads them again."""
        object.__setattr__(self, "_headers", None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReceivedRequest):
            return NotImplemented
        return self._told() == other._told()

    __hash__ = None  # type: ignore[assignment]  # as its headers have none

    def _told(self) -> tuple[object, ...]:
        return self.path, self.headers, self.remote_address, self.origin, self.peer_certificate
