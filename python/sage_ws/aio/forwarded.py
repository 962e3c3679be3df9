"""Who calls, where a proxy stands between: `X-Forwarded-For`, believed from named proxies alone.

Anybody may write that header, and each proxy appends whom it got the request from. It is therefore read from
its end: an address counts only as far as those behind it are proxies of ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeAlias

from sage_ws.options import Network, trusted_network

_Address: TypeAlias = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")
"""An IPv6 address in brackets, or an IPv4 address with a port: some proxies write these."""
NO_PORT = 0
"""Stands in a socket address where a header told the host alone."""


def remote_address(peer: Any, forwarded: Iterable[str], trusted: Collection[str]) -> Any:
    """The address of who calls.

    Args:
        peer: the socket's peer address.
        forwarded: the request's `X-Forwarded-For` fields.
        trusted: networks of proxies that are believed, and ``"unix"`` for those on a unix socket.

    Returns:
        The peer's address, if it is no trusted proxy or tells no address; else ``(host, 0)`` with the last
        address that is none of a trusted proxy, or the first one where all are.
    """
    if not trusted:
        return peer
    networks = _networks(tuple(trusted))
    if isinstance(peer, tuple):
        own = _parsed(peer[0])
        believed = own is not None and _within(own, networks)
    else:
        believed = "unix" in trusted
    if not believed:
        return peer
    caller = peer
    for text in reversed(",".join(forwarded).split(",")):
        address = _parsed(text.strip())
        if address is None:  # whoever wrote this, nothing before it can be relied on
            break
        caller = (str(address), NO_PORT)
        if not _within(address, networks):
            break
    return caller


@lru_cache
def _networks(trusted: tuple[str, ...]) -> list[Network]:
    return [network for one in trusted if (network := trusted_network(one)) is not None]


def _parsed(text: str) -> _Address | None:
    matched = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((matched[1] or matched[2]) if matched else text)
    except ValueError:
        return None
    # On a socket of both families an IPv4 peer looks like this.
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: _Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
