"""The opening handshake's rules, both sides, without a socket: heads in, heads out (RFC 6455 §4).

A head is cut out of the stream at CRLFCRLF and classified before anything parses it, so that an
endless or hostile one is refused in linear time with the status that names its fault (wire.md,
"Opening handshake"). What is inside a sound head is judged by `websockets`' sans-I/O protocols.

Over 500 lines: both sides read and refuse heads by the same rules.
"""

from __future__ import annotations

import binascii
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from sage_ws.aio.head import RequestHead, parse_head
from sage_ws.errors import DialError, RefusedError, peer_text
from sage_ws.options import Headers

if TYPE_CHECKING:
    from websockets.client import ClientProtocol

MAX_LINE: Final = 8 * 1024 - len(b"\r\n")
"""Bytes of a line without its CRLF; with it, it is what `websockets` takes too."""
MAX_HEAD: Final = 64 * 1024
MAX_HEADERS: Final = 128
MAX_BODY: Final = 64 * 1024
"""Bytes of a refusal's body that a client reads."""
START: Final = len(b"HTTP/")
"""Bytes by which another protocol is told from HTTP."""
SHORTEST_SECRET: Final = 6
"""Characters of a word of ours that no error repeats; shorter ones are everywhere, and no secrets."""
SHOWN_START: Final = 16
"""Characters that are shown of what is no HTTP: enough to know a protocol by, too few for a secret."""

SUBPROTOCOLS: Final[Mapping[str, Sequence[str]]] = {
    "auto": ("sage.1.cbor", "sage.1.json"),
    "cbor": ("sage.1.cbor",),
    "json": ("sage.1.json",),
    "plain": (),
}
"""What ``encoding`` has a client offer, best first, and a server choose (wire.md, "The extended wire")."""

PLAIN: Final = "sage.0.json"
"""Offered before the others, and chosen by none of ours: plain SAGE JSON. Some servers, `ws` of Node among
them, choose the first that is offered, whatever it is, and speak as ever."""

_END = b"\r\n\r\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
_METHOD_BYTE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/(\d\.\d)")
_AUTHORITY = re.compile(r"\Ahttps?://[^/?]+", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = {"upgrade", "connection", "host", "origin"}
_PLAIN = {*_OURS, "user-agent", ""}

# `websockets` logs heads at DEBUG, headers with tokens included: its records stop here.
QUIET = logging.getLogger("sage_ws.opening.heads")
QUIET.addHandler(logging.NullHandler())
QUIET.setLevel(logging.CRITICAL)
QUIET.propagate = False

WEBSOCKET_NEEDED = (
    "this is a WebSocket endpoint, and the request asks for no upgrade; if a proxy stands between, it must"
    " pass the Upgrade and Connection headers on"
)


Negotiated: TypeAlias = tuple[int, bool, int, bool, int, int, int]
"""permessage-deflate as the core's ``deflate`` argument has it."""


class Agreement(NamedTuple):
    """What the ends agreed on in the opening handshake, beside the connection itself.

    Attributes:
        deflate: how messages are compressed; None where they are not.
        subprotocol: how they are encoded; None for plain SAGE JSON.
    """

    deflate: Negotiated | None = None
    subprotocol: str | None = None


class Refusal(Exception):
    """The opening handshake ends here.

    Attributes:
        status: the HTTP status that says so.
        headers: further header fields of the answer.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}

    def encode(self) -> bytes:
        """The HTTP answer, whole."""
        body = f"{self}\n".encode()
        lines = [
            f"HTTP/1.1 {self.status} {_phrase(self.status)}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode("latin-1", "replace") + _END + body


def _phrase(status: int) -> str:
    try:
        from http import HTTPStatus

        return HTTPStatus(status).phrase
    except ValueError:  # a status of the user's own
        return "Refused"


def _is_tls(start: bytes) -> bool:
    """Whether bytes begin with a TLS record: a handshake's, or an alert's (RFC 8446 §5.1)."""
    return start[:1] in {b"\x15", b"\x16"} and start[1:2] in {b"", b"\x03"}


class HeadReader:
    """Collects bytes until a head is whole; keeps what comes behind it."""

    __slots__ = ("_buffer", "_searched", "rest")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.rest = b""

    @property
    def start(self) -> bytes:
        """The first bytes that came, `START` at most."""
        return bytes(self._buffer[:START])

    def receive_data(self, data: bytes) -> bytes | None:
        """Take a chunk.

        Returns:
            The head, its empty line included, once it is whole; `rest` then holds what followed it.

        Raises:
            Refusal: 414 for a first line over 8 KiB, 431 for a longer header line, more than 128 headers
                or 64 KiB in all.
        """
        buffer = self._buffer
        if not buffer and len(data) <= MAX_LINE and 0 <= data.find(_END) == len(data) - len(_END):
            # All of it in one read, as almost always; and no line can be too long in so few bytes.
            if data.count(b"\r\n") > MAX_HEADERS + 2:
                raise Refusal(431, f"more than {MAX_HEADERS} headers")
            return data
        buffer += data
        end = buffer.find(_END, max(0, self._searched - 3))
        self._searched = len(buffer)
        size = len(buffer) if end < 0 else end + len(_END)
        first = buffer.find(b"\r\n", 0, MAX_LINE + 2)
        if first < 0 and size >= MAX_LINE + 2:  # a line at its limit may still wait for its CRLF
            raise Refusal(414, f"the request line is over {MAX_LINE} bytes")
        if size > MAX_HEAD:
            raise Refusal(431, f"the head is over {MAX_HEAD} bytes")
        if end < 0:
            return None
        head = bytes(buffer[:size])
        self.rest = bytes(buffer[size:])
        buffer.clear()
        lines = head.split(b"\r\n")[1:-2]
        if len(lines) > MAX_HEADERS:
            raise Refusal(431, f"more than {MAX_HEADERS} headers")
        if any(len(line) > MAX_LINE for line in lines):
            raise Refusal(431, f"a header line is over {MAX_LINE} bytes")
        return head


def check_request_start(start: bytes) -> None:
    """Judge a request by its first bytes: who speaks another protocol may end no line, and wait for us.

    Raises:
        Refusal: 400, it begins no method.
    """
    if not _METHOD_BYTE.match(start):
        line = f"malformed request line {_shown_line(start)}"
        raise Refusal(400, f"{line}: it is TLS, and this port is plain ws://" if _is_tls(start) else line)


def _shown_line(data: bytes) -> str:
    line = data.partition(b"\r\n")[0].decode("latin-1")
    return peer_text(line.partition("?")[0], SHOWN_START)


def _shown_url(url: str) -> str:
    """A peer's URL without what may be a secret: user info and query."""
    return peer_text(url.partition("?")[0].rpartition("@")[2])


def parse_request(head: bytes, health_path: str | None) -> RequestHead:
    """Judge a request's head by itself: what it says, not yet who may come in.

    Returns:
        The request: an upgrade to WebSocket 13, or a GET of ``health_path``.

    Raises:
        Refusal: 400, 405 or 426, with the likely cause.
    """
    request = parse_head(head)
    if request is None:
        raise _malformed(head)
    fields = request.fields
    if "transfer-encoding" in fields:
        raise Refusal(400, "malformed head: transfer codings aren't supported")
    if "content-length" in fields and set(fields["content-length"]) != {"0"}:
        raise Refusal(400, "malformed head: unsupported request body")
    path = request.path = _resource_name(request.path)
    if len(fields.get("host", ())) != 1:
        raise Refusal(400, "exactly one Host header is needed")
    if "upgrade" not in fields and path.partition("?")[0] == health_path:
        return request
    if not (_names(fields, "upgrade", "websocket") and _names(fields, "connection", "upgrade")):
        raise Refusal(426, WEBSOCKET_NEEDED, {"Upgrade": "websocket"})
    versions = fields.get("sec-websocket-version", ())
    if versions != ["13"]:
        shown = peer_text(", ".join(versions)) if versions else "none"
        raise Refusal(426, f"WebSocket version 13 is needed, not {shown}", {"Sec-WebSocket-Version": "13"})
    return request


def _malformed(head: bytes) -> Refusal:
    """What is wrong with a head that is no sound GET."""
    from websockets.server import ServerProtocol

    line = head[: head.index(b"\r\n")]
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        return Refusal(400, f"malformed request line {_shown_line(line)}")
    method, _, version = matched.groups()
    if method != b"GET":
        shown = f"method {method.decode()} is not GET: this is a WebSocket endpoint, for ws:// URLs"
        return Refusal(405, shown, {"Allow": "GET"})
    if version != b"1.1":
        return Refusal(400, f"HTTP/{version.decode()} is not HTTP/1.1; a proxy may speak an older one to us")
    rest = head.replace(b"\r\n", b"")
    if b"\n" in rest or b"\r" in rest:
        return Refusal(400, "malformed head: a line does not end in CRLF")
    protocol = ServerProtocol(logger=QUIET)
    protocol.receive_data(head)
    cause = protocol.handshake_exc
    said = str(cause.__cause__ or cause) if cause else "no sound request"
    # behind a colon the library says what the peer sent: a token may stand there
    return Refusal(400, f"malformed head: {peer_text(said.partition(': ')[0])}")


def _resource_name(target: str) -> str:
    """Path and query of a request target, which may be a whole URL too (RFC 6455 §4.2.1, (1))."""
    if target.startswith("/"):
        return target
    path = _AUTHORITY.sub("", target)
    if path == target:
        raise Refusal(400, f"malformed request target {_shown_url(target)}")
    return path if path.startswith("/") else f"/{path}"


def _names(fields: Mapping[str, Sequence[str]], name: str, token: str) -> bool:
    """Whether a field has this token in its lists, in any case."""
    for value in fields.get(name, ()):
        for one in value.split(","):
            if one.strip().lower() == token:
                return True
    return False


def _is_list(value: str) -> bool:
    """Whether a value is a list of tokens (RFC 9110 §5.6.1, ``1#token``)."""
    items = [item for part in value.split(",") if (item := part.strip(" \t"))]
    return bool(items) and all(map(_TOKEN.fullmatch, items))


def offered_subprotocols(encoding: str) -> list[str]:
    """What a client offers, in the order of its wishes."""
    known = SUBPROTOCOLS[encoding]
    return [PLAIN, *known] if known else []


def choose_subprotocol(request: RequestHead, known: Sequence[str]) -> str | None:
    """The first of those that the client offers which is known; None for none (RFC 6455 §4.2.2)."""
    for value in request.fields.get("sec-websocket-protocol", ()):
        for one in value.split(","):
            if (name := one.strip(" \t")) in known:
                return name
    return None


def accept(request: RequestHead, subprotocol: str | None = None, extensions: str | None = None) -> bytes:
    """The 101 that answers a sound request (RFC 6455 §4.2.2), with what was chosen.

    Raises:
        Refusal: 400, the key is not 16 bytes of base64, or a list of tokens is none.
    """
    fields = request.fields
    keys = fields.get("sec-websocket-key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise _unacceptable(request)
    for name in ("connection", "sec-websocket-protocol"):
        for value in fields.get(name, ()):
            if not (_TOKEN.fullmatch(value) or _is_list(value)):
                raise _unacceptable(request)
    digest = hashlib.sha1(keys[0].encode() + _GUID, usedforsecurity=False).digest()
    answer = _SWITCHING + binascii.b2a_base64(digest, newline=False)
    if subprotocol is not None:
        answer += f"\r\nSec-WebSocket-Protocol: {subprotocol}".encode()
    if extensions is not None:
        answer += b"\r\nSec-WebSocket-Extensions: " + extensions.encode()
    return answer + _END


def _unacceptable(request: RequestHead) -> Refusal:
    """What is wrong with a request that `accept` does not take."""
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    headers = request.headers
    # Among several upgrades ours is one; the library wants it to be alone.
    del headers["Upgrade"]
    headers["Upgrade"] = "websocket"
    response = ServerProtocol(logger=QUIET).accept(Request(request.path, headers))
    said = response.body.decode("utf-8", "replace").partition(" header")
    return Refusal(400, peer_text(f"{said[0]}{said[1]}".strip()))  # what follows is the peer's


def check_origin(request: RequestHead, origins: Iterable[str | None] | None) -> str | None:
    """Let a request's Origin pass, or refuse it (RFC 6455 §10.2, §4.2.2).

    Without a list a browser's Origin must name the host that the request went to. With one it must be in
    it, scheme, host and port alike; None in it lets a request without Origin pass.

    Returns:
        The origin, None without one.

    Raises:
        Refusal: 403.
    """
    given = request.fields.get("origin", ())
    if len(given) > 1:
        raise Refusal(403, "more than one Origin header")
    origin = given[0].strip() if given else None
    if origins is None:
        if origin is None:
            return None
        own = _endpoint(f"{origin.partition('://')[0]}://{request.fields['host'][0]}")
        if own is not None and _endpoint(origin) == own:
            return origin
        raise Refusal(403, f"origin {_shown_url(origin)} is not this host; list it in origins=")
    if origin is None:
        if None in origins:
            return None
        raise Refusal(403, "an Origin header is needed")
    wanted = _endpoint(origin)
    if wanted is not None and any(one is not None and _endpoint(one) == wanted for one in origins):
        return origin
    raise Refusal(403, f"origin {_shown_url(origin)} is not allowed")


def _endpoint(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin, the default port filled in; None for what is no such origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def refusal_of(error: RefusedError) -> Refusal:
    """What ``authorize`` raised, as an answer."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    text = str(error).encode(errors="replace").decode()  # a lone surrogate has no bytes
    return Refusal(error.status, text or _phrase(error.status), headers)


# ── the client's side ─────────────────────────────────────────────────────────────────
def check_headers(headers: Headers) -> list[tuple[str, str]]:
    """A caller's header fields as pairs, checked so that none can forge another.

    Raises:
        TypeError: a name or a value is no str.
        ValueError: it holds what no header may, or is one that the opening handshake sets.
    """
    pairs: list[Any] = []  # what a caller gave, whatever its annotation says
    pairs.extend(headers.items() if isinstance(headers, Mapping) else headers)
    for pair in pairs:
        two = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not two or not all(isinstance(one, str) for one in pair):
            raise TypeError("headers must be pairs of str")
        name, value = pair
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"header name {name!r} is not a token (RFC 9110 §5.1)")
        if _CONTROL.search(value):
            raise ValueError(f"header {name} holds a control character")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"header {name} holds characters beyond latin-1") from None
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {name} belongs to the opening handshake")
    return pairs


def encode_request(protocol: ClientProtocol, headers: Iterable[tuple[str, str]]) -> bytes:
    """The client's opening request."""
    request = protocol.connect()
    request.headers["User-Agent"] = "sage-ws"
    for name, value in headers:
        if name.lower() == "user-agent":
            del request.headers["User-Agent"]
        request.headers[name] = value
    return request.serialize()


def secret_words(request: bytes) -> list[str]:
    """Words of our own request that are nobody's to repeat: its query's, and the caller's header fields'."""
    line, *fields = request.decode("latin-1").split("\r\n")
    told = [line.partition("?")[2].rpartition(" ")[0]]
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() not in _PLAIN and not name.lower().startswith("sec-websocket-"):
            told.append(value)
    return [word for text in told for word in re.split(r"[\s,;&=\"]+", text)]


def told_text(text: str, secrets: Iterable[str]) -> str:
    """A peer's text as an error or a log line shows it: some send back what they were told."""
    for word in sorted(set(secrets), key=len, reverse=True):
        if len(word) >= SHORTEST_SECRET:
            text = text.replace(word, "***")
    return peer_text(text)


def answer_text(body: bytes, secrets: Iterable[str]) -> str:
    """The same of a refusal's body, behind a colon."""
    text = body.decode("utf-8", "replace").strip()
    return f": {told_text(text, secrets)}" if text else ""


def check_answer_start(start: bytes) -> None:
    """Judge an answer by its first bytes, as `check_request_start` does a request.

    Raises:
        DialError: they begin no HTTP.
    """
    if _is_tls(start):
        raise DialError("the answer is TLS, not HTTP: dial wss:// instead of ws://")
    if not start.startswith(b"HTTP/"[: len(start)]):
        raise DialError(f"the answer is not HTTP: {_shown_line(start)}")


def check_response(protocol: ClientProtocol, head: bytes, request: bytes = b"") -> int:
    """Judge a response's head.

    Args:
        protocol: judges a 101.
        head: of the response.
        request: what it answers; no error repeats the secrets in it.

    Returns:
        Its status: 101 for one that opens the connection, else one whose body is worth reading.

    Raises:
        DialError: it is not HTTP/1.1, or a 101 that breaks RFC 6455 §4.2.2.
    """
    line = head[: head.index(b"\r\n")]
    matched = re.fullmatch(rb"HTTP/(\d\.\d) (\d{3})(?: [^\r\n]*)?", line)
    if matched is None:
        raise DialError(f"the answer is not HTTP: {_shown_line(line)}")
    status = int(matched[2])
    if matched[1] != b"1.1":
        raise DialError(f"the answer is HTTP/{matched[1].decode()}, not HTTP/1.1", status=status)
    if status == 101:
        protocol.receive_data(head)
        if protocol.handshake_exc is not None:
            failure, secrets = protocol.handshake_exc, secret_words(request)
            said = told_text(str(failure), secrets)
            # what the library says holds the peer's text as it came
            whole = f"{failure} {failure.__cause__}"
            cause = None if told_text(whole, secrets) != peer_text(whole) else failure
            raise DialError(f"the 101 answer is not a WebSocket's: {said}", status=101) from cause
        if not protocol.events_received():
            raise DialError("the 101 answer is incomplete", status=101)
    return status


def content_length(head: bytes) -> int:
    """Bytes of a refusal's body that are worth waiting for: its Content-Length, `MAX_BODY` at most."""
    matched = re.search(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", head, re.IGNORECASE)
    return min(int(matched[1]), MAX_BODY) if matched else MAX_BODY
