"""Every option, its default and its check: stated once, here.

The `TypedDict`s are what a caller's type checker sees; the frozen settings below hold the same names
with their defaults, and each field carries the check that a value must pass at construction. Seconds
are floats, ``None`` switches a limit off.
"""

from __future__ import annotations

import enum
import math
import random
import ssl as _ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, TypedDict
from urllib.parse import SplitResult, urlsplit

from sage_ws.compression import Deflate

if TYPE_CHECKING:
    from sage_ws.aio.server import Server
    from sage_ws.handler import Handler, UpgradeRequest
    from sage_ws.message import Response, SecureMessage


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Given for a ``timeout``: use the transport's own default."""

Seconds: TypeAlias = float | None
"""A time in seconds; None for no limit."""
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields of the opening handshake: a mapping, or pairs where a name may come twice."""
HeadersFactory: TypeAlias = Callable[[], Headers | Awaitable[Headers]]
"""Makes header fields for each dial, so that a token is fresh; may be an ``async def``."""
if TYPE_CHECKING:
    Next: TypeAlias = Callable[[SecureMessage], Awaitable[Response]]
    Interceptor: TypeAlias = Callable[[SecureMessage, Next], Awaitable[Response]]
else:  # messages are made further up, and whoever reads the hints at run time must find every name here
    Next = Callable[..., Awaitable[Any]]
    """What an interceptor calls to go on, once or more often or not at all: ``await next(message)``."""
    Interceptor = Callable[..., Awaitable[Any]]
    """A function around a call: ``async def interceptor(message, next)``, which returns the Response."""
Authorize: TypeAlias = "Callable[[UpgradeRequest], Awaitable[str | None]]"
Lifespan: TypeAlias = "Callable[[Server], AbstractAsyncContextManager[object]]"
Network: TypeAlias = IPv4Network | IPv6Network


class Dedupe(Protocol):
    """The interface of a store that lets a server run a message at most once: ``ServerOptions.dedupe``.

    A key is 32 bytes: a digest of whose message it is and of its id (docs/how-to/at-most-once.md).
    `DedupeMemory` and `DedupeSQLite` are two; one of your own has these methods.
    """

    async def open(self) -> None:
        """Get ready: called before a server listens, in its loop and process; several may share a store."""

    async def begin(self, key: bytes) -> Response | Literal["run", "unknown"]:
        """Decide what becomes of a message, and wait for that where it runs already.

        Returns:
            ``"run"``: it is the first with this key, and runs; `finish` or `cut` follows. A Response: the
            answer of the first. ``"unknown"``: there was a run, and how it ended is not known.
        """
        ...

    async def finish(self, key: bytes, response: Response) -> None:
        """Keep the answer of a run, and give it to those who wait in `begin`."""

    def cut(self, key: bytes) -> None:
        """A run was broken off: from here on its outcome is unknown."""

    async def close(self) -> None:
        """Let go of files and threads: once for each `open`."""


class CommonOptions(TypedDict, total=False):
    """Options of both ends; `CommonSettings` has the defaults."""

    read_timeout: Seconds
    write_timeout: Seconds
    close_timeout: Seconds
    ping_interval: Seconds
    ping_timeout: Seconds
    keepalive_interval: Seconds
    max_message_size: int | None
    max_concurrency: int
    max_queue_bytes: int
    max_pending: int
    compression: Literal["deflate"] | Deflate | None
    encoding: Literal["auto", "cbor", "json", "plain"]
    busy_poll: Seconds
    link: Literal["auto", "direct", "loop"]
    ssl: _ssl.SSLContext | None
    interceptors: Collection[Interceptor]
    push_interceptors: Collection[Interceptor]


class ClientOptions(CommonOptions, total=False):
    """Options of `Client` and `connect`; `ClientSettings` has the defaults."""

    dial_timeout: Seconds
    headers: Headers | HeadersFactory
    origin: str | None
    proxy: str | Literal[True] | None
    reconnect: bool
    wait_for_ready: bool
    backoff: Callable[[int], float]
    handler: Handler | None


class ServerOptions(CommonOptions, total=False):
    """Options of `Server`, `serve` and `run`; `ServerSettings` has the defaults."""

    open_timeout: Seconds
    origins: Collection[str | None] | None
    authorize: Authorize | None
    max_connections: int | None
    max_connections_per_address: int | None
    max_connections_per_identity: int | None
    dedupe: Dedupe | None
    lifespan: Lifespan | None
    health_path: str | None
    trusted_proxies: Collection[str]


# ── checks: each takes the option's name and value, and raises an error that names both ──
Check: TypeAlias = Callable[[str, Any], None]

_PROXY_SCHEMES: Final = ("http", "https", "socks5h", "socks5", "socks4a", "socks4")

IPV4_MAPPED_BITS: Final = 96
"""Of an IPv6 address that stands for an IPv4 one (RFC 4291 §2.5.5.2)."""

_MOST: Final = 2**63 - 1
"""The largest number that the native core counts to, and that makes sense anywhere."""


def _seconds(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or None, not {type(value).__name__}")
    if isinstance(value, int) and value > _MOST:  # no clock holds it: a float may be infinite
        raise ValueError(f"{name} must be at most {_MOST} seconds, or None to switch it off")
    if value <= 0 or math.isnan(value):
        raise ValueError(f"{name} must be over 0 seconds, or None to switch it off, not {value}")


def _count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    if value > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}")


def _count_or_none(name: str, value: object) -> None:
    if value is not None:
        _count(name, value)


def _bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")


def _callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")


def _callable_or_none(name: str, value: object) -> None:
    if value is not None:
        _callable(name, value)


def _text_or_none(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")


def _origin_or_none(name: str, value: object) -> None:
    _text_or_none(name, value)
    if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError(f"{name} must be an origin such as https://agent.example, not {value!r}")


def _path_or_none(name: str, value: object) -> None:
    _text_or_none(name, value)
    if isinstance(value, str) and not value.startswith("/"):
        raise ValueError(f"{name} must start with a slash, not {value!r}")


def split_proxy(url: str) -> SplitResult:
    """Check a proxy's URL and take it apart.

    Raises:
        ValueError: it is no such URL; the text shows nothing of it, for a password may stand there.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if not parts.hostname or port == 0 or parts.scheme not in _PROXY_SCHEMES:
        raise ValueError(
            "a proxy's URL names scheme and host, such as http://proxy:3128 or socks5h://proxy:1080; schemes"
            f" are {', '.join(_PROXY_SCHEMES)}"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("a proxy's URL has no path, query or fragment")
    return parts


def _proxy(name: str, value: object) -> None:
    if value is True or value is None:
        return
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be a URL, True for the environment's, or None, not {type(value).__name__}"
        )
    try:
        split_proxy(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _ssl_context(name: str, value: object) -> None:
    if value is not None and not isinstance(value, _ssl.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext or None, not {type(value).__name__}")


def _headers(name: str, value: object) -> None:
    if isinstance(value, (str, bytes)) or not (callable(value) or isinstance(value, Iterable)):
        raise TypeError(
            f"{name} must be a mapping, pairs, or a callable that makes them, not {type(value).__name__}"
        )


def _origins(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise TypeError(f"{name} must be a collection of origins or None, not {type(value).__name__}")
    for origin in value:
        if origin is None:
            continue
        if not isinstance(origin, str):
            raise TypeError(f"{name} must hold str and None, not {type(origin).__name__}")
        scheme, separator, host = origin.partition("://")
        if not (scheme and separator and host) or "/" in host:
            raise ValueError(f"{name} must hold origins such as https://agent.example, not {origin!r}")


def trusted_network(value: str) -> Network | None:
    """The network that an entry of ``trusted_proxies`` names; None for ``"unix"``, which has none.

    Raises:
        ValueError: it names no network.
    """
    if value == "unix":
        return None
    network = ip_network(value)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < IPV4_MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - IPV4_MAPPED_BITS))  # as peers of it are compared


def _trusted_proxies(name: str, value: object) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise TypeError(f"{name} must be a collection of addresses and networks, not {type(value).__name__}")
    for one in value:
        if not isinstance(one, str):
            raise TypeError(f"{name} must hold str, not {type(one).__name__}")
        try:
            trusted_network(one)
        except ValueError as error:
            raise ValueError(
                f"{name} must hold addresses or networks such as 10.0.0.0/8, or 'unix': {error}"
            ) from None


def _interceptors(name: str, value: object) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise TypeError(f"{name} must be a collection of functions, not {type(value).__name__}")
    for one in value:
        if not callable(one):
            raise TypeError(f"{name} must hold functions, not {type(one).__name__}")


_DEDUPE_METHODS: Final = ("open", "begin", "finish", "cut", "close")


def _dedupe(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, type):
        raise TypeError(f"{name} must be a store, not a class: {value.__name__}(...)")
    missing = [one for one in _DEDUPE_METHODS if not callable(getattr(value, one, None))]
    if missing:
        raise TypeError(f"{name} must be a store or None; {type(value).__name__} has no {', '.join(missing)}")


def _compression(name: str, value: object) -> None:
    if value is not None and value != "deflate" and not isinstance(value, Deflate):
        raise TypeError(f"{name} must be 'deflate', a Deflate or None, not {value!r}")


def _one_of(*allowed: str) -> Check:
    """An option that takes one of these words."""

    def check(name: str, value: object) -> None:
        if value not in allowed:
            raise ValueError(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")

    return check


def full_jitter(attempt: int) -> float:
    """The default ``backoff``: a random wait of up to 1 s, doubled with each attempt, capped at 30 s.

    Args:
        attempt: dials that have failed since the connection was lost, from 0.

    Returns:
        Seconds to wait before the next dial.
    """
    return random.uniform(0, min(30.0, 2.0 ** min(attempt, 5)))


def _option(default: Any, check: Check, *, shown: bool = True) -> Any:
    return field(default=default, metadata={"check": check}, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """Checked options of both ends."""

    read_timeout: Seconds = _option(60.0, _seconds)
    write_timeout: Seconds = _option(30.0, _seconds)
    close_timeout: Seconds = _option(10.0, _seconds)
    ping_interval: Seconds = _option(20.0, _seconds)
    ping_timeout: Seconds = _option(20.0, _seconds)
    keepalive_interval: Seconds = _option(20.0, _seconds)
    max_message_size: int | None = _option(16 * 1024 * 1024, _count_or_none)
    max_concurrency: int = _option(64, _count)
    max_queue_bytes: int = _option(4 * 1024 * 1024, _count)
    max_pending: int = _option(1024, _count)
    compression: Literal["deflate"] | Deflate | None = _option(None, _compression)
    encoding: Literal["auto", "cbor", "json", "plain"] = _option(
        "auto", _one_of("auto", "cbor", "json", "plain")
    )
    busy_poll: Seconds = _option(None, _seconds)
    link: Literal["auto", "direct", "loop"] = _option("auto", _one_of("auto", "direct", "loop"))
    ssl: _ssl.SSLContext | None = _option(None, _ssl_context)
    interceptors: Collection[Interceptor] = _option((), _interceptors)
    push_interceptors: Collection[Interceptor] = _option((), _interceptors)

    @classmethod
    def parse(cls, options: Mapping[str, Any], owner: str) -> Self:
        """Check a caller's options.

        Args:
            options: the keyword arguments as given.
            owner: the callable they were given to, for the error's text.

        Raises:
            TypeError: an option is unknown, of a wrong type, or not built yet.
            ValueError: a value makes no sense, such as a negative timeout.
        """
        checks: dict[str, Check] = {one.name: one.metadata["check"] for one in fields(cls)}
        for name, value in options.items():
            check = checks.get(name)
            if check is None:
                raise TypeError(f"{owner} has no option {name!r}; it has {', '.join(sorted(checks))}")
            check(name, value)
        return cls(**options)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(CommonSettings):
    """Checked options of a client."""

    dial_timeout: Seconds = _option(30.0, _seconds)
    # not shown: tokens stand there, and a password in a proxy's URL
    headers: Headers | HeadersFactory = _option((), _headers, shown=False)
    origin: str | None = _option(None, _origin_or_none)
    proxy: str | Literal[True] | None = _option(True, _proxy, shown=False)
    reconnect: bool = _option(True, _bool)
    wait_for_ready: bool = _option(False, _bool)
    backoff: Callable[[int], float] = _option(full_jitter, _callable)
    handler: Handler | None = _option(None, _callable_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(CommonSettings):
    """Checked options of a server."""

    open_timeout: Seconds = _option(10.0, _seconds)
    origins: Collection[str | None] | None = _option(None, _origins)
    authorize: Authorize | None = _option(None, _callable_or_none)
    max_connections: int | None = _option(None, _count_or_none)
    dedupe: Dedupe | None = _option(None, _dedupe)
    max_connections_per_address: int | None = _option(None, _count_or_none)
    max_connections_per_identity: int | None = _option(None, _count_or_none)
    lifespan: Lifespan | None = _option(None, _callable_or_none)
    health_path: str | None = _option("/healthz", _path_or_none)
    trusted_proxies: Collection[str] = _option((), _trusted_proxies)


def check_timeout(timeout: Seconds | Unset) -> None:
    """Check the ``timeout`` argument of one call.

    Raises:
        TypeError: it is not seconds, None or `UNSET`.
        ValueError: it is negative, zero or not a number.
    """
    if timeout is not UNSET:
        _seconds("timeout", timeout)


def check_path(path: str | None) -> None:
    """Check the path that a server serves.

    Raises:
        TypeError: it is no str.
        ValueError: it does not start with a slash.
    """
    _path_or_none("path", path)


def check_run(path: str | None, workers: int, certfile: str | None, keyfile: str | None) -> None:
    """Check what `run` takes besides the options.

    Raises:
        TypeError: path or a file is no str, or workers no int.
        ValueError: path does not start with a slash, there would be no worker, or a key has no certificate.
    """
    _path_or_none("path", path)
    _count("workers", workers)
    _text_or_none("certfile", certfile)
    _text_or_none("keyfile", keyfile)
    if certfile is None and keyfile is not None:
        raise ValueError("keyfile needs certfile, the certificate that it is the key of")
