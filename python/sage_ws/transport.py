"""What every transport can do, and which one a URL's scheme asks for.

``select_by_url`` finds a scheme's factory in three places, in this order:

1. what the program registered itself by ``register``;
2. ``ws`` and ``wss``, our own, known here by name only: nothing is imported before it is asked for;
3. the entry point group ``sage_ws.transports`` of installed distributions, ours (``http``, ``https``)
   among them, one entry per scheme::

       [project.entry-points."sage_ws.transports"]
       mqtt = "my_package.transport:MqttTransport"

So an installed distribution cannot take ``ws`` away from us, and a program can, by ``replace=True``.
``schemes`` lists those that can be used: it looks for libraries, and imports none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from sage_ws.options import UNSET, Seconds, Unset

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from sage_ws.message import Response, SecureMessage

ENTRY_POINT_GROUP: Final = "sage_ws.transports"


@runtime_checkable
class MessageTransport(Protocol):
    """One message out, its response back: SAGE's ``transport.MessageTransport``."""

    async def send(self, message: SecureMessage, *, timeout: Seconds | Unset = UNSET) -> Response:
        """Send ``message`` and wait for its response.

        Args:
            message: what to send; its ``id`` is the correlation key.
            timeout: seconds for everything; ``None`` waits without end; not given, the transport's own.

        Raises:
            NotSentError: nothing left this process.
            MaybeDeliveredError: bytes left, no response came.
            DecodeError: the response cannot be read.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. A second call does nothing."""
        ...


TransportFactory: TypeAlias = Callable[..., MessageTransport]
"""``factory(url, **options)``, without I/O; it imports its library when it is called, or later."""


# By name, so that nothing is imported upwards, nor before its scheme is asked for.
_WEBSOCKET: Final = ("sage_ws.aio.client", "Client")
_OURS: Final = {"ws": _WEBSOCKET, "wss": _WEBSOCKET}

# What an entry point cannot say: our modules that need an extra, its library first, then its name.
_EXTRAS: Final = {"sage_ws.transports.http": ("aiohttp", "http")}

_registered: dict[str, TransportFactory] = {}


def register(scheme: str, factory: TransportFactory, *, replace: bool = False) -> None:
    """Make ``select_by_url`` use ``factory`` for URLs of this scheme, in this process.

    Args:
        scheme: as in ``scheme://host``, of letters, digits, ``+``, ``-`` and ``.``; case does not matter.
        factory: called as ``factory(url, **options)``; imports its library late.
        replace: take over a scheme that is registered, or is ``ws`` or ``wss``.

    Raises:
        ValueError: the scheme is taken and ``replace`` is false, or is no URL scheme (RFC 3986 §3.1).
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise ValueError(f"not a URL scheme: {scheme!r}")
    scheme = scheme.lower()
    if not replace and (scheme in _registered or scheme in _OURS):
        raise ValueError(f"scheme {scheme!r} is registered already; replace=True takes it over")
    _registered[scheme] = factory


def schemes() -> frozenset[str]:
    """The schemes that can be used here and now: those whose library is installed."""
    return frozenset(
        {
            *_registered,
            *_OURS,
            *(entry.name.lower() for entry in _entry_points() if _is_importable(_library(entry))),
        }
    )


def select_by_url(url: str, **options: Any) -> MessageTransport:
    """The transport for a URL, made by its scheme's factory; nothing is dialled yet.

    Args:
        url: such as ``wss://agent.example/ws``.
        options: handed to the factory as they are.

    Raises:
        ValueError: no transport is known for the scheme; the text names the known ones.
        ImportError: the transport's library is not installed; the text says what to install.
    """
    scheme, colon, _ = url.partition("://")
    scheme = scheme.lower()
    if not colon:
        raise ValueError(f"URL has no scheme, known are {_known()}")
    return _factory(scheme)(url, **options)


def _factory(scheme: str) -> TransportFactory:
    if scheme in _registered:
        return _registered[scheme]
    if scheme in _OURS:
        module, name = _OURS[scheme]
        return cast("TransportFactory", getattr(importlib.import_module(module), name))
    for entry in _entry_points():
        if entry.name.lower() == scheme:
            return _load(entry)
    raise ValueError(f"no transport for scheme {scheme[:40]!r}, known are {_known()}")


def _load(entry: EntryPoint) -> TransportFactory:
    if entry.module in _EXTRAS and not _is_importable(_library(entry)):
        library, extra = _EXTRAS[entry.module]
        raise ImportError(
            f"scheme {entry.name!r} needs {library}: pip install 'sage-ws[{extra}]'", name=library
        )
    try:
        return cast("TransportFactory", entry.load())
    except (ImportError, AttributeError) as error:
        raise ImportError(f"scheme {entry.name!r}: cannot load {entry.value}: {error}") from error


def _library(entry: EntryPoint) -> str:
    """The top-level module without which this transport cannot be used."""
    return _EXTRAS[entry.module][0] if entry.module in _EXTRAS else entry.module.partition(".")[0]


def _entry_points() -> tuple[EntryPoint, ...]:
    """Read anew each time: the cold path, and ``sys.path`` may have grown."""
    import importlib.metadata  # milliseconds that `import sage_ws` must not spend

    return tuple(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))


def _is_importable(module: str) -> bool:
    """Whether a top-level module can be found, without running any of it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is imported already, and made by hand: it has no spec
        return True


def _known() -> str:
    return ", ".join(sorted(schemes()))
