"""Places for so many connections of one address, and of one identity.

A place is taken when a connection opens, and given back when its socket is gone, as with ``max_connections``.
Who has no connection leaves nothing here, so that it never holds more than the connections that are open.

The refusal is 429 (RFC 6585 §4): it is about the caller. A 503 is about the server, and a balancer that sees
many of them takes it for a sick one, so that one greedy caller would cost the others theirs.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final

from sage_ws.aio.opening import Refusal
from sage_ws.errors import peer_text

if TYPE_CHECKING:
    from sage_ws.options import ServerSettings

HOST_BITS: Final = 64
"""Of an IPv6 address: a household has that many to itself, and could choose another one each time."""


class Quota:
    """Counts who holds how many places.

    Args:
        limit: places for each; None counts nobody.
        kind: what is counted, for a refusal's text.
    """

    __slots__ = ("_held", "_kind", "_limit")

    def __init__(self, limit: int | None, kind: str) -> None:
        self._limit = limit
        self._kind = kind
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        """How many hold a place."""
        return len(self._held)

    def check(self, who: str | None) -> None:
        """Let one in, if there is a place; None is nobody in particular, and has no limit.

        Raises:
            Refusal: 429.
        """
        if self._limit is not None and who is not None and self._held.get(who, 0) >= self._limit:
            text = f"{self._kind} {peer_text(who)} has its {self._limit} connections"
            raise Refusal(429, text, {"Retry-After": "1"})

    def take(self, who: str | None) -> None:
        """Take a place; that there is one was asked before."""
        if self._limit is not None and who is not None:
            self._held[who] = self._held.get(who, 0) + 1

    def give_back(self, who: str | None) -> None:
        """Give one back."""
        if self._limit is None or who is None:
            return
        left = self._held[who] - 1
        if left:
            self._held[who] = left
        else:
            del self._held[who]


class Quotas:
    """Both limits of a server, and which connection holds which place.

    Args:
        settings: the server's options.
    """

    __slots__ = ("_holders", "addresses", "identities")

    def __init__(self, settings: ServerSettings) -> None:
        self.addresses = Quota(settings.max_connections_per_address, "address")
        self.identities = Quota(settings.max_connections_per_identity, "identity")
        self._holders: dict[object, tuple[str | None, str | None]] = {}

    @classmethod
    def of(cls, settings: ServerSettings) -> Quotas | None:
        """Make them; None where neither limit is set."""
        if settings.max_connections_per_address is settings.max_connections_per_identity is None:
            return None
        return cls(settings)

    def check(self, remote: Any, identity: str | None) -> None:
        """Let a caller in, if it has a place left.

        Args:
            remote: its address.
            identity: who it has proved to be; None for nobody, and before it was asked.

        Raises:
            Refusal: 429.
        """
        self.addresses.check(caller_of(remote))
        self.identities.check(identity)

    def take(self, link: object, remote: Any, identity: str | None) -> None:
        """A connection opens."""
        caller = caller_of(remote)
        self.addresses.take(caller)
        self.identities.take(identity)
        self._holders[link] = caller, identity

    def give_back(self, link: object) -> None:
        """Its socket is gone."""
        caller, identity = self._holders.pop(link)
        self.addresses.give_back(caller)
        self.identities.give_back(identity)


def caller_of(remote: Any) -> str | None:
    """Who is told from others by a remote address.

    Args:
        remote: a socket address, or what a trusted proxy told.

    Returns:
        The IPv4 address, the network of an IPv6 address; None on a unix socket, where nobody has one.
    """
    if not isinstance(remote, tuple):
        return None
    try:
        address = ip_address(remote[0])
    except ValueError:  # an address of another family
        return str(remote[0])
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:  # how an IPv4 peer looks on a socket of both families
        return str(address.ipv4_mapped)
    if address.is_link_local or address.is_loopback:  # all neighbours share such a network
        return str(address)
    return str(IPv6Network((int(address), HOST_BITS), strict=False))
