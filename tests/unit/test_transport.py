"""The registry: which transport a URL gets, what can be used, and what the refusals say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sage_ws
from sage_ws import Client, Response, SecureMessage, register, schemes, select_by_url, transport

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

InstallDistribution = Callable[[str, str], Path]


class StubTransport:
    """A MessageTransport that says what it was made of."""

    def __init__(self, url: str, **options: object) -> None:
        self.url = url
        self.options = options

    async def send(self, message: SecureMessage, *, timeout: object = None) -> Response:
        return Response(message_id=message.id)

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def registry_as_before() -> Iterator[None]:
    before = dict(transport._registered)
    yield
    transport._registered.clear()
    transport._registered.update(before)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallDistribution:
    """Put a distribution with these entry points on the path, as pip would."""

    def install(name: str, entry_points: str) -> Path:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[sage_ws.transports]\n{entry_points}\n")
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    return install


@pytest.fixture
def own_entry_points(install: InstallDistribution) -> None:
    """Ours, as pyproject.toml has them; found so even in a tree that is not installed."""
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["sage_ws.transports"]
    install("sage_ws", "\n".join(f"{scheme} = {home}" for scheme, home in points.items()))


def without_library(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if a library were not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == name else find_spec(one))


@pytest.mark.parametrize("url", ["ws://host/ws", "wss://host/ws", "WS://host/ws"])
def test_a_websocket_url_gets_a_client_that_has_not_dialled(url: str) -> None:
    selected = select_by_url(url, dial_timeout=3)
    assert isinstance(selected, Client)
    assert selected.state is sage_ws.State.IDLE
    assert {"ws", "wss"} <= schemes()


def test_a_registered_factory_gets_the_url_and_the_options() -> None:
    register("mem+x", StubTransport)
    selected = select_by_url("MEM+X://here", size=3)
    assert isinstance(selected, StubTransport)
    assert (selected.url, selected.options) == ("MEM+X://here", {"size": 3})
    assert isinstance(selected, sage_ws.MessageTransport)
    assert "mem+x" in schemes()


def test_a_scheme_is_registered_once_unless_replaced() -> None:
    register("mem", StubTransport)
    with pytest.raises(ValueError, match="scheme 'mem' is registered already"):
        register("MEM", StubTransport)
    other = type("Other", (StubTransport,), {})
    register("mem", other, replace=True)
    assert isinstance(select_by_url("mem://x"), other)


def test_our_own_scheme_is_taken_over_only_by_replace() -> None:
    with pytest.raises(ValueError, match="'ws' is registered already"):
        register("ws", StubTransport)
    register("ws", StubTransport, replace=True)
    assert isinstance(select_by_url("ws://x"), StubTransport)
    assert isinstance(select_by_url("wss://x"), Client)


@pytest.mark.parametrize("scheme", ["", "1a", "a b", "a:", "ä"])
def test_what_is_no_scheme_cannot_be_registered(scheme: str) -> None:
    with pytest.raises(ValueError, match="not a URL scheme"):
        register(scheme, StubTransport)


def test_an_unknown_scheme_is_refused_by_naming_the_known_ones() -> None:
    register("aaa", StubTransport)
    with pytest.raises(ValueError, match=r"no transport for scheme 'ftp', known are aaa, .*ws, wss"):
        select_by_url("ftp://host")


@pytest.mark.parametrize("url", ["", "localhost:8080/ws", "/ws"])
def test_a_url_without_a_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"no scheme, known are .*ws"):
        select_by_url(url)


@pytest.mark.usefixtures("own_entry_points")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_http_is_found_by_its_entry_point(scheme: str) -> None:
    from sage_ws.transports.http import HTTPTransport

    assert scheme in schemes()
    assert isinstance(select_by_url(f"{scheme}://host", timeout=3), HTTPTransport)


@pytest.mark.usefixtures("own_entry_points")
def test_http_without_its_extra_is_not_listed_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_library(monkeypatch, "aiohttp")
    assert not {"http", "https"} & schemes()
    with pytest.raises(ImportError, match=r"'http' needs aiohttp: pip install 'sage-ws\[http\]'") as caught:
        select_by_url("http://host")
    assert caught.value.name == "aiohttp"


def test_an_installed_distribution_brings_a_scheme_loaded_when_asked_for(
    install: InstallDistribution,
) -> None:
    folder = install("other-transport", "Carrier = pigeon_post:Pigeon")
    folder.joinpath("pigeon_post.py").write_text(
        "class Pigeon:\n    def __init__(self, url, *, hops=1):\n        self.route = (url, hops)\n"
    )
    try:
        assert "carrier" in schemes()
        assert "pigeon_post" not in sys.modules
        assert select_by_url("carrier://loft", hops=2).route == ("carrier://loft", 2)  # type: ignore[attr-defined]
    finally:
        sys.modules.pop("pigeon_post", None)


def test_an_installed_distribution_cannot_take_ws_away(install: InstallDistribution) -> None:
    install("other-transport", "ws = nowhere_at_all:Pigeon")
    assert isinstance(select_by_url("ws://host"), Client)


def test_an_entry_point_without_its_package_is_not_listed_and_says_why(install: InstallDistribution) -> None:
    install("other-transport", "carrier = nowhere_at_all:Pigeon")
    assert "carrier" not in schemes()
    with pytest.raises(ImportError, match="'carrier': cannot load nowhere_at_all:Pigeon: No module named"):
        select_by_url("carrier://loft")


def test_a_module_made_by_hand_counts_as_installed(
    install: InstallDistribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("hand_made")
    module.Pigeon = StubTransport  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hand_made", module)
    install("other-transport", "carrier = hand_made:Pigeon")
    assert "carrier" in schemes()
    assert isinstance(select_by_url("carrier://loft"), StubTransport)


def test_listing_the_schemes_imports_no_library() -> None:
    script = (
        "import sys, sage_ws; sage_ws.schemes();"
        "sys.exit(any(one in sys.modules for one in ('aiohttp', 'rich', 'cryptography')))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False, timeout=30)
    assert done.returncode == 0
