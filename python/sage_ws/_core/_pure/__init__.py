"""The core in Python alone: bytes in, values out, where the native extension is absent.

The twin of `rust/core`, file by file, in the order in which bytes travel:

- `frame`: the header of a frame, read and written (RFC 6455 §5.2).
- `mask`: the masking of a payload (§5.3).
- `utf8`: text checked while it is still arriving (§8.1).
- `assemble`: fragments to messages, up to a limit (§5.4).
- `close`: close codes and the payload of a close frame (§5.5.1, §7.4).
- `wire`: a message's JSON to fields and back, with `canonical` for its usual form, `bulk` for very many
  values, `base64` for bytes and `scan` for the exact place of an error.
- `value`: SecureMessage and Response, as users hold them.
- `pending`: who waits for which answer.
- `connection`: all of it, one connection's worth.
- `dispatch`: requests to their handlers, up to the first suspension.
- `random`: the one source of ids and masking keys.

No sockets, no clock, no event loop. What is done byte by byte in Rust is done here by whole-buffer calls of
the standard library; the behaviour is the same, down to the error texts, and the parity tests hold both to
it.
"""

from __future__ import annotations

from sage_ws._core._pure.connection import Connection
from sage_ws._core._pure.dispatch import Dispatch
from sage_ws._core._pure.value import Response, SecureMessage
from sage_ws._core._pure.wire import decode_message, decode_response, encode_message, encode_response

__all__ = [
    "Connection",
    "Dispatch",
    "Response",
    "SecureMessage",
    "decode_message",
    "decode_response",
    "encode_message",
    "encode_response",
]
