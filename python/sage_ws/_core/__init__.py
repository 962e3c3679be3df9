"""The one switch between the two bodies of the core, and the face that both have.

``SAGE_WS_CORE`` is read once, at the first import:

- ``auto`` (the default): the native extension, or the fallback where the extension is *absent*.
  An extension that is there and does not load raises its own error: were it passed over, a broken
  build would ship as a slow one and no test would notice.
- ``rust``: the native extension; absent, it raises ImportError.
- ``pure``: the fallback, in Python alone.

A plain ``from . import _rust`` could not tell absent from broken: both are an ImportError. So the
module is looked up by name, and only its own name in ``ModuleNotFoundError.name`` means absent.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

_NATIVE = "sage_ws._core._rust"
_FALLBACK = "sage_ws._core._pure"
VARIABLE: Final = "SAGE_WS_CORE"


def _choose(wanted: str) -> tuple[Literal["rust", "pure"], ModuleType]:
    if wanted not in {"auto", "rust", "pure"}:
        raise ValueError(f"{VARIABLE} must be auto, rust or pure, not {wanted!r}")
    if wanted != "pure":
        try:
            return "rust", importlib.import_module(_NATIVE)
        except ModuleNotFoundError as error:
            if error.name != _NATIVE:
                raise
            if wanted == "rust":
                raise ImportError(
                    f"{VARIABLE}=rust, but the native extension is not installed", name=_NATIVE
                ) from error
    return "pure", importlib.import_module(_FALLBACK)


name, _body = _choose(os.environ.get(VARIABLE) or "auto")

if TYPE_CHECKING:
    from sage_ws._core._rust import (
        Connection,
        Dispatch,
        Poller,
        Response,
        SecureMessage,
        Socket,
        decode_message,
        decode_response,
        encode_message,
        encode_response,
    )
else:
    Connection = _body.Connection
    Dispatch = _body.Dispatch
    Response = _body.Response
    SecureMessage = _body.SecureMessage
    decode_message = _body.decode_message
    decode_response = _body.decode_response
    encode_message = _body.encode_message
    encode_response = _body.encode_response
    Poller = getattr(_body, "Poller", None)
    Socket = getattr(_body, "Socket", None)

has_poller: Final = hasattr(_body, "Poller")
"""Whether this core has what the direct link stands on, `Poller` and `Socket`: the native one, on Linux."""

__all__ = [
    "Connection",
    "Dispatch",
    "Poller",
    "Response",
    "SecureMessage",
    "Socket",
    "decode_message",
    "decode_response",
    "encode_message",
    "encode_response",
    "has_poller",
    "name",
]
