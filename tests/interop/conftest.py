"""Strangers: programs on other WebSocket libraries, built once, run as processes, driven by JSON lines.

A program takes commands on its standard input, ``{"do": …}``, says what happens on its standard output,
``{"event": …}``, and ends with its input. What is built or installed for them stays outside this tree,
under a key of its sources, for the next session.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

HERE = Path(__file__).parent
PATIENCE = 20.0
"""Seconds after which a wait for a stranger has failed."""
BUILD_TIME = 600.0
"""Seconds for a compiler that may have to build its standard library first."""
LINE_LIMIT = 1 << 26


# ── building ───────────────────────────────────────────────────────────────────────────
def absent(reason: str) -> NoReturn:
    """What a test needs is not on this machine: it is skipped, but in CI, which has everything."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)


def tool(name: str) -> str:
    """The path of a program that is needed."""
    return shutil.which(name) or absent(f"{name} is not installed")


@contextmanager
def cache(name: str, *sources: Path) -> Iterator[Path]:
    """A folder that belongs to these sources, and to nobody else while the block runs."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    root = Path(tempfile.gettempdir()) / f"sage-ws-interop-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    assert root.stat().st_uid == os.getuid(), f"{root} belongs to somebody else"
    folder = root / f"{name}-{digest.hexdigest()[:16]}"
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        yield folder


def build(command: list[str], folder: Path, **environment: str) -> None:
    """Run a compiler or an installer: what it says is shown if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


class Stranger:
    """How to start a program.

    Attributes:
        command: and its first arguments.
        environment: variables beside the session's own.
    """

    def __init__(self, *command: str, **environment: str) -> None:
        self.command = command
        self.environment = environment


@pytest.fixture(scope="session")
def go_stranger() -> Stranger:
    """The SAGE peer on gorilla/websocket."""
    go, folder = tool("go"), HERE / "go"
    with cache("go", *sorted(folder.iterdir())) as cached:
        binary = cached / "sagepeer"
        if not binary.exists():
            made = cached / "new"
            build(
                [go, "build", "-buildvcs=false", "-o", str(made), "."],
                folder,
                GOTOOLCHAIN="local",
                GOWORK="off",
            )
            made.rename(binary)
    return Stranger(str(binary))


@pytest.fixture(scope="session")
def node_stranger() -> Stranger:
    """The plain peer on ws."""
    node, npm, folder = tool("node"), tool("npm"), HERE / "node"
    manifests = [folder / "package.json", folder / "package-lock.json"]
    with cache("node", *manifests) as cached:
        done = cached / "installed"
        if not done.exists():
            for manifest in manifests:
                shutil.copy(manifest, cached)
            build([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cached)
            done.touch()
    return Stranger(node, str(folder / "peer.js"), NODE_PATH=str(cached / "node_modules"))


@pytest.fixture(scope="session")
def tungstenite_stranger() -> Stranger:
    """The plain peer on tungstenite."""
    cargo, folder = tool("cargo"), HERE / "tungstenite"
    with cache("tungstenite", *sorted(folder.glob("Cargo.*")), *sorted(folder.glob("src/*.rs"))) as cached:
        binary = cached / "debug" / "sage-ws-interop-peer"
        if not binary.exists():
            build([cargo, "build", "--locked", "--quiet"], folder, CARGO_TARGET_DIR=str(cached))
    return Stranger(str(binary))


@pytest.fixture(scope="session")
def python_stranger() -> Callable[[str], Stranger]:
    """The plain peers on Python libraries, by name."""

    def of(library: str) -> Stranger:
        if importlib.util.find_spec(library) is None:
            absent(f"{library} is not installed")
        # They run nothing of sage_ws: measuring what is covered would only slow them down.
        return Stranger(
            sys.executable, str(HERE / "python" / f"{library}_peer.py"), COVERAGE_PROCESS_CONFIG=""
        )

    return of


# ── running ────────────────────────────────────────────────────────────────────────────
class Program:
    """A stranger that runs.

    Args:
        process: with its pipes.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._early: deque[dict[str, Any]] = deque()

    async def tell(self, do: str, **fields: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        await self._process.stdin.drain()

    async def event(self, name: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The next event of this name; those of other names wait for whom they concern."""
        for event in self._early:
            if event["event"] == name:
                self._early.remove(event)
                return event
        async with asyncio.timeout(patience):
            while (event := await self._next())["event"] != name:
                self._early.append(event)
        return event

    async def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"the program ended with {await self._process.wait()}, see its standard error"
        event: dict[str, Any] = json.loads(line)
        assert event["event"] != "error", event
        return event

    async def ask(self, do: str, event: str, patience: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Give a command, and wait for the event that it leads to."""
        await self.tell(do, **fields)
        return await self.event(event, patience)

    async def kill(self) -> list[dict[str, Any]]:
        """Kill -9; the events that nobody has asked for, the last whole line included."""
        assert self._process.stdout is not None
        self._process.kill()
        async with asyncio.timeout(PATIENCE):
            lines = (await self._process.stdout.read()).split(b"\n")[:-1]
        return [*self._early, *map(json.loads, lines)]

    async def end(self) -> None:
        """End it, one way or the other."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.communicate()
        except TimeoutError:
            self._process.kill()
            await self._process.communicate()


@pytest.fixture
async def run() -> AsyncIterator[Callable[..., Awaitable[Program]]]:
    """``program = await run(stranger, "argument", …)``: it ends with the test."""
    programs: list[Program] = []

    async def start(stranger: Stranger, *arguments: str) -> Program:
        environment: Mapping[str, str] = {**os.environ, **stranger.environment}
        process = await asyncio.create_subprocess_exec(
            *stranger.command,
            *arguments,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        programs.append(Program(process))
        return programs[-1]

    yield start
    for program in programs:
        await program.end()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """``await eventually(lambda: condition)``: waits until it holds, and fails if it never does."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # of anything, not only of what has an event
                await asyncio.sleep(0.001)

    return wait
