"""Close codes, close frames' payloads, and the failure of a connection (RFC 6455 §5.5.1, §7.1.7, §7.4)."""

from __future__ import annotations


class Failure(Exception):
    """The peer broke a rule: the connection fails with this code and reason. Never leaves the core."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def is_valid_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 §7.4, and 1012 and 1013 of IANA's registry).

    1014 is registered too, but the reference refuses it (docs/how-to/talking-to-go.md): to take it would be
    to echo it.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1013 or 3000 <= code <= 4999


def decode_close(payload: bytes) -> tuple[int | None, str]:
    """Code and reason of a peer's close frame; `None` and nothing where it carries neither.

    Raises:
        Failure: 1002 for half a code or one that may not be sent, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise Failure(1002, "close frame with one byte")
    code = int.from_bytes(payload[:2], "big")
    if not is_valid_code(code):
        raise Failure(1002, f"invalid close code {code}")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Failure(1007, "invalid UTF-8 in a close reason") from None


def encode_close(code: int | None, reason: str) -> bytes:
    """The payload of our own close frame.

    Raises:
        ValueError: for a code that may not be sent, or a reason that does not fit a control frame.
    """
    if code is None:
        return b""
    if not is_valid_code(code):
        raise ValueError(f"invalid close code {code}")
    text = reason.encode()
    if len(text) > 123:
        raise ValueError("close reason over 123 bytes")
    return code.to_bytes(2, "big") + text
