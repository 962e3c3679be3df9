"""Real proxies between a client and a server of ours: Debian's packages, set up as the documentation says.

Each how-to page of a server's proxy holds one configuration, and that is what runs here, with other ports,
and with the lines changed that a test is about. A proxy is a process of its own, in the foreground, on
loopback; it ends with its test. Where one is not installed its tests are skipped, but in CI, which has all.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PATIENCE = 20.0
"""Seconds after which a wait for a proxy has failed."""
TRIES = 3
"""Of a start: somebody else may take a port that was free."""

Change = tuple[str, str]
"""A pattern that must be in a configuration, and what stands there instead."""


def absent(reason: str) -> NoReturn:
    """What a test needs is not on this machine: it is skipped, but in CI, which has everything."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)


def tool(name: str) -> str:
    """The path of a program that is needed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    return shutil.which(name, path=path) or absent(f"{name} is not installed")


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


class Kind(NamedTuple):
    """How one proxy is run.

    Attributes:
        program: its name.
        arguments: ``@port`` in them is the port to listen on, ``@folder`` a folder to write to, ``@file`` and
            ``@site`` the paths of the two below.
        file: a configuration, where more is needed than a page says.
        page: where the configuration stands that its readers write.
        title: of the block there.
        listen: what makes the page's port ours.
        listen_too: what makes it listen on ``@other`` as well.
        reload: a signal to its process, or the arguments of a command.
        environment: variables beside the session's own.
    """

    program: str
    arguments: tuple[str, ...]
    file: str = ""
    page: str = ""
    title: str = "none"
    listen: Change = ("", "")
    listen_too: Change = ("", "")
    reload: signal.Signals | tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


NGINX = Kind(
    "nginx",
    ("-e", "stderr", "-p", "@folder", "-c", "@file"),
    file="""
daemon off;
user root;
pid @folder/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path @folder/body;
    proxy_temp_path @folder/proxy;
    fastcgi_temp_path @folder/fastcgi;
    uwsgi_temp_path @folder/uwsgi;
    scgi_temp_path @folder/scgi;
    include @site;
}
""",
    page="behind-nginx.md",
    title="sage.conf",
    listen=(r"listen 80;", "listen 127.0.0.1:@port;"),
    listen_too=(r"(listen .*;)", r"\1 listen 127.0.0.1:@other;"),
    reload=signal.SIGHUP,
)
HAPROXY = Kind(
    "haproxy",
    ("-W", "-db", "-f", "@site"),
    page="behind-haproxy.md",
    title="haproxy.cfg",
    listen=(r"bind :80", "bind 127.0.0.1:@port"),
    listen_too=(r"(bind .*)", r"\1\n    bind 127.0.0.1:@other"),
    reload=signal.SIGUSR2,
)
APACHE = Kind(
    "apache2",
    ("-D", "FOREGROUND", "-f", "@file"),
    file="""
ServerName localhost
ServerRoot @folder
DefaultRuntimeDir @folder
PidFile @folder/apache.pid
ErrorLog @folder/error.log
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
StartServers 1
Include @site
""",
    page="behind-apache.md",
    title="sage.conf",
    listen=(r"<VirtualHost \*:80>", "Listen 127.0.0.1:@port\n<VirtualHost *:@port>"),
    listen_too=(r"\A", "Listen 127.0.0.1:@other\n"),
    reload=signal.SIGUSR1,
)
CADDY = Kind(
    "caddy",
    ("run", "--adapter", "caddyfile", "--config", "@site"),
    page="behind-caddy.md",
    title="Caddyfile",
    listen=(
        r":80 {",
        "{\n    admin 127.0.0.1:@admin\n    auto_https off\n}\n:@port {\n    bind 127.0.0.1",
    ),
    listen_too=(r"\Z", "\n:@other {\n    bind 127.0.0.1\n}\n"),
    reload=("reload", "--adapter", "caddyfile", "--config", "@site", "--address", "127.0.0.1:@admin"),
    environment={"XDG_DATA_HOME": "@folder", "XDG_CONFIG_HOME": "@folder", "HOME": "@folder"},
)
TINYPROXY = Kind(
    "tinyproxy",
    ("-d", "-c", "@file"),
    file="Port @port\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nLogLevel Critical\n",
)
MICROSOCKS = Kind("microsocks", ("-i", "127.0.0.1", "-p", "@port"))
KINDS = {"nginx": NGINX, "haproxy": HAPROXY, "apache": APACHE, "caddy": CADDY}


def configuration(kind: Kind) -> str:
    """What a page tells its readers to write."""
    page = (HOW_TO / kind.page).read_text("utf-8")
    found = re.search(rf'^```\w+ title="{re.escape(kind.title)}"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert found, f"{kind.page} has no block {kind.title}"
    return found[1]


class RunningProxy:
    """A proxy that runs.

    Args:
        kind: which.
        upstream: the port of the server behind it, where there is one.
        changes: of the page's configuration.
        folder: for its files.
    """

    def __init__(self, kind: Kind, upstream: int, changes: tuple[Change, ...], folder: Path) -> None:
        self.kind = kind
        self.port = 0
        self._program = tool(kind.program)
        self._upstream = upstream
        self._changes = changes
        self._folder = folder
        self._values: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it, until it accepts."""
        for _ in range(TRIES):
            self.port = free_port()
            self._values = {
                "folder": str(self._folder),
                "file": str(self._folder / "main.conf"),
                "site": str(self._folder / self.kind.title),
                "port": str(self.port),
                "admin": str(free_port()),
            }
            self._write()
            with (self._folder / "output").open("wb") as output:
                self._process = await asyncio.create_subprocess_exec(
                    self._program,
                    *map(self._filled, self.kind.arguments),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            if await self._accepts(self.port):
                return
        pytest.fail(f"{self._program} did not start:\n{(self._folder / 'output').read_text()}")

    async def reload(self) -> None:
        """Give it a new configuration, in its own way, until that is in force."""
        assert self._process is not None
        self._values["other"] = str(free_port())
        self._write(self.kind.listen_too)
        other = int(self._values["other"])
        if isinstance(self.kind.reload, signal.Signals):
            for _ in range(int(PATIENCE)):  # one that is still starting hears no signal
                self._process.send_signal(self.kind.reload)
                if await self._accepts(other, patience=1.0):
                    return
            pytest.fail(f"{self._program} did not reload:\n{(self._folder / 'output').read_text()}")
        else:
            done = await asyncio.create_subprocess_exec(
                self._program,
                *map(self._filled, self.kind.reload),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            async with asyncio.timeout(PATIENCE):
                assert await done.wait() == 0
            assert await self._accepts(other), (self._folder / "output").read_text()

    async def end(self) -> None:
        """End it, and what it started."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await process.wait()
        with suppress(ProcessLookupError):  # its group is its own
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _write(self, *further: Change) -> None:
        Path(self._values["file"]).write_text(self._filled(self.kind.file))
        if not self.kind.page:
            return
        text = configuration(self.kind).replace("8080", str(self._upstream))
        for pattern, replacement in (*self._changes, self.kind.listen, *further):
            text, count = re.subn(pattern, replacement, text, count=1)
            assert count, f"{self.kind.page} has no {pattern!r}"
        Path(self._values["site"]).write_text(self._filled(text))

    def _filled(self, text: str) -> str:
        return re.sub(r"@(\w+)", lambda found: self._values[found[1]], text)

    def _environment(self) -> dict[str, str]:
        own = {name: self._filled(value) for name, value in self.kind.environment.items()}
        return {**os.environ, **own}

    async def _accepts(self, port: int, patience: float = PATIENCE) -> bool:
        """Whether it takes a connection within this time; not if its process ends first."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._process.returncode is None:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.01)
                    else:
                        writer.close()
                        return True
        return False


Start = Callable[..., Awaitable[RunningProxy]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each proxy in turn."""
    return KINDS[request.param]


@pytest.fixture
def tinyproxy() -> Kind:
    """An HTTP proxy for clients."""
    return TINYPROXY


@pytest.fixture
def microsocks() -> Kind:
    """A SOCKS5 proxy for clients."""
    return MICROSOCKS


@pytest.fixture
def kinds() -> Mapping[str, Kind]:
    """Every proxy that stands before a server, by name."""
    return KINDS


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """``proxy = await start(kind, upstream port, (pattern, replacement), …)``: it ends with the test."""
    running: list[RunningProxy] = []

    async def of(kind: Kind, upstream: int = 0, *changes: Change) -> RunningProxy:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        proxy = RunningProxy(kind, upstream, changes, folder)
        running.append(proxy)
        await proxy.start()
        return proxy

    yield of
    for proxy in running:
        await proxy.end()
