"""Places for each caller: who counts as one, and that nothing is kept of who has gone."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ws.aio.opening import Refusal
from sage_ws.aio.quota import Quota, Quotas, caller_of
from sage_ws.options import ServerSettings


def test_each_has_its_own_places() -> None:
    quota = Quota(2, "address")
    quota.take("a")
    quota.take("a")
    quota.take("b")
    quota.check("b")
    quota.check("c")
    with pytest.raises(Refusal, match=r"^address 'a' has its 2 connections$") as refused:
        quota.check("a")
    assert refused.value.status == 429
    quota.give_back("a")
    quota.check("a")


def test_nothing_is_kept_of_who_has_gone() -> None:
    quota = Quota(3, "address")
    for number in range(1000):
        for _ in range(number % 3 + 1):
            quota.take(str(number))
    assert len(quota) == 1000
    for number in range(1000):
        for _ in range(number % 3 + 1):
            quota.give_back(str(number))
    assert len(quota) == 0


@pytest.mark.parametrize(("limit", "who"), [(1, None), (None, "somebody")])
def test_who_has_no_limit_is_not_counted(limit: int | None, who: str | None) -> None:
    quota = Quota(limit, "identity")
    for _ in range(3):
        quota.check(who)
        quota.take(who)
    assert len(quota) == 0
    quota.give_back(who)


def test_an_identity_is_shown_escaped_and_cut() -> None:
    quota = Quota(1, "identity")
    quota.take("a\n" * 1000)
    with pytest.raises(Refusal) as refused:
        quota.check("a\n" * 1000)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_off_there_are_none() -> None:
    assert Quotas.of(ServerSettings.parse({}, "Server")) is None
    for name in ("max_connections_per_address", "max_connections_per_identity"):
        assert Quotas.of(ServerSettings.parse({name: 1}, "Server")) is not None


CALLERS: dict[str, tuple[Any, str | None]] = {
    "ipv4": (("192.0.2.7", 5000), "192.0.2.7"),
    "told-by-a-proxy": (("192.0.2.7", 0), "192.0.2.7"),
    "ipv4-on-a-socket-of-both": (("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7"),
    "ipv6": (("2001:db8:1:2:3:4:5:6", 5000, 0, 0), "2001:db8:1:2::/64"),
    "ipv6-told-by-a-proxy": (("2001:db8:1:2::7", 0), "2001:db8:1:2::/64"),
    "ipv6-loopback": (("::1", 5000, 0, 0), "::1"),
    "link-local": (("fe80::1%eth0", 5000, 0, 2), "fe80::1%eth0"),
    "another-family": (("aa:bb:cc", 3), "aa:bb:cc"),
    "unix": ("", None),
    "abstract-unix": (b"\0x", None),
    "unknown": (None, None),
}


@pytest.mark.parametrize(("remote", "who"), CALLERS.values(), ids=CALLERS)
def test_who_counts_as_one(remote: Any, who: str | None) -> None:
    assert caller_of(remote) == who
