"""UTF-8 checked while it arrives: TEXT is refused at its first bad byte, not at its end (RFC 6455 §8.1)."""

from __future__ import annotations

from codecs import utf_8_decode

from sage_ws._core._pure.close import Failure
from sage_ws.errors import DecodeError


def _failure() -> Failure:
    return Failure(1007, "invalid UTF-8")


def decode_text(payload: bytes | bytearray) -> str:
    """A whole TEXT message.

    Raises:
        Failure: 1007, for invalid UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _failure() from None


def decode_binary(payload: bytes) -> str:
    """A whole message that no frame promised to be text.

    Raises:
        DecodeError: with the offset of the first byte of the first bad sequence.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {error.start}") from None


class Utf8:
    """Judges one message's text part by part, wherever the parts are cut."""

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut = b""

    def push(self, part: bytes) -> None:
        """Take the next bytes.

        Raises:
            Failure: 1007, as soon as no further byte could make them valid.
        """
        if self._cut:
            part = self._cut + part
        try:
            _, taken = utf_8_decode(part, "strict", False)
        except UnicodeDecodeError:
            raise _failure() from None
        self._cut = part[taken:]
        # The codec waits for the third byte of an encoded surrogate, though the second one decides.
        if self._cut[:1] == b"\xed" and self._cut[1:] >= b"\xa0":
            raise _failure()
