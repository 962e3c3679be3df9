"""Whose address counts, by the proxies that are trusted."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ws.aio.forwarded import remote_address

PROXY = ("10.0.0.1", 5000)
TRUSTED = ["10.0.0.0/8", "fd00::/8"]

CASES: dict[str, tuple[Any, list[str], list[str], Any]] = {
    # peer, headers, trusted, who calls
    "nobody-is-trusted": (PROXY, ["192.0.2.1"], [], PROXY),
    "another-is-trusted": (PROXY, ["192.0.2.1"], ["10.0.0.2"], PROXY),
    "it-tells": (PROXY, ["192.0.2.1"], TRUSTED, ("192.0.2.1", 0)),
    "it-tells-nothing": (PROXY, [], TRUSTED, PROXY),
    "an-empty-field": (PROXY, [""], TRUSTED, PROXY),
    "the-last-that-is-no-proxy": (
        PROXY,
        ["198.51.100.9, 192.0.2.1,10.2.3.4 , 10.0.0.9"],
        TRUSTED,
        ("192.0.2.1", 0),
    ),
    "several-fields-are-one": (PROXY, ["198.51.100.9", "192.0.2.1"], TRUSTED, ("192.0.2.1", 0)),
    "all-are-proxies": (PROXY, ["10.7.0.1, 10.2.3.4"], TRUSTED, ("10.7.0.1", 0)),
    "nothing-before-nonsense": (PROXY, ["192.0.2.1, unknown, 10.2.3.4"], TRUSTED, ("10.2.3.4", 0)),
    "nonsense-alone": (PROXY, ["unknown"], TRUSTED, PROXY),
    "ipv6": (("fd00::1", 5000, 0, 0), ["2001:db8::7"], TRUSTED, ("2001:db8::7", 0)),
    "ipv6-in-brackets": (PROXY, ["[2001:db8::7]"], TRUSTED, ("2001:db8::7", 0)),
    "ipv6-with-a-port": (PROXY, ["[2001:db8::7]:443"], TRUSTED, ("2001:db8::7", 0)),
    "ipv4-with-a-port": (PROXY, ["192.0.2.1:443"], TRUSTED, ("192.0.2.1", 0)),
    "ipv4-on-an-ipv6-socket": (("::ffff:10.0.0.1", 5000, 0, 0), ["192.0.2.1"], TRUSTED, ("192.0.2.1", 0)),
    "ipv4-named-as-ipv6": (PROXY, ["192.0.2.1"], ["::ffff:10.0.0.0/104"], ("192.0.2.1", 0)),
    "and-no-other": (("11.0.0.1", 5000), ["192.0.2.1"], ["::ffff:10.0.0.0/104"], ("11.0.0.1", 5000)),
    "a-unix-socket": ("", ["192.0.2.1"], [*TRUSTED, "unix"], ("192.0.2.1", 0)),
    "a-unix-socket-that-is-not-trusted": ("", ["192.0.2.1"], TRUSTED, ""),
}


@pytest.mark.parametrize(("peer", "forwarded", "trusted", "caller"), CASES.values(), ids=CASES)
def test_who_calls(peer: Any, forwarded: list[str], trusted: list[str], caller: Any) -> None:
    assert remote_address(peer, forwarded, trusted) == caller
