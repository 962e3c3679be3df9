"""What a peer is: a way to bring messages to a server and answers back, one line of the tables.

Its two ends run in processes of their own (`bench.child`). There are two kinds: a `PythonPeer`, whose ends
are two functions of a module, and a `Program` in another language; `Pair` takes an end of each.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol, TypeAlias, cast

from bench.driving import Ask

End: TypeAlias = Literal["serve", "drive"]


@dataclass(frozen=True)
class Peer(ABC):
    """One line of the tables.

    Attributes:
        name: for ``--peers``, ``bench.child`` and the JSON.
        title: for the tables.
        environment: variables for both processes, such as the core that they shall run.
        loop: the event loop's library, where it belongs to what is compared; None takes the run's.
        shapes: names of the shapes that it takes part in; None for all.
        messages: that it brings there and back for each ask of the driver's.
    """

    name: str
    title: str
    environment: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    loop: Literal["asyncio", "uvloop"] | None = field(default=None, kw_only=True)
    shapes: frozenset[str] | None = field(default=None, kw_only=True)
    messages: int = field(default=1, kw_only=True)

    @abstractmethod
    def missing(self) -> str | None:
        """What keeps it from running here, None if nothing does."""

    def at(self, end: End) -> Peer:  # it is the same at both, but for `Pair`
        """The peer that is this end of it."""
        return self

    def takes(self, shape: str) -> bool:
        """Whether it takes part in the shape of this name."""
        return self.shapes is None or shape in self.shapes


class Ends(Protocol):
    """The two ends of a peer written in Python; a module with these functions is one."""

    def serve(self) -> AbstractAsyncContextManager[str]:
        """Run the server on a free port; gives the address for ``connect``."""
        ...

    def connect(self, address: str, in_flight: int, /) -> AbstractAsyncContextManager[Ask]:
        """Open one connection, for so many messages at once."""
        ...


@dataclass(frozen=True)
class PythonPeer(Peer):
    """A peer written in Python.

    Attributes:
        where: its `Ends`, ``module`` or ``module:attribute``; imported only where they run.
        packages: distributions that it needs, whose versions are recorded.
    """

    where: str
    packages: tuple[str, ...] = field(kw_only=True)

    def missing(self) -> str | None:
        if self.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            return "uvloop is not installed"
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                return f"{package} is not installed"
        return None

    def versions(self) -> dict[str, str]:
        """What it is made of."""
        return {package: version(package) for package in self.packages}

    def ends(self) -> Ends:
        """Import them."""
        module, _, attribute = self.where.partition(":")
        ends = importlib.import_module(module)
        return cast("Ends", getattr(ends, attribute) if attribute else ends)


@dataclass(frozen=True)
class Sage(PythonPeer):
    """sage_ws itself.

    Attributes:
        core: that both ends run.
        option: both ends' own, if any; where it is not built yet, the peer is missing.
    """

    core: Literal["rust", "pure"] = field(kw_only=True)
    option: tuple[str, Any] | None = field(default=None, kw_only=True)
    packages: tuple[str, ...] = field(default=("sage-ws",), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", {**self.environment, "SAGE_WS_CORE": self.core})

    def missing(self) -> str | None:
        if self.core == "rust" and importlib.util.find_spec("sage_ws._core._rust") is None:
            return "the native extension is not built here"
        if self.option is not None:
            from sage_ws import Client

            try:
                Client("ws://127.0.0.1/ws", **dict([self.option]))
            except TypeError as error:
                return str(error)
        return super().missing()


@dataclass(frozen=True)
class Program(Peer):
    """A peer that is a program; it ``serve``s or ``drive``s, and speaks `bench.child`'s lines.

    Attributes:
        tool: what builds it.
        build: makes the program, unless it is there already, and gives the beginning of its command.
        arguments: behind the end's name.
    """

    tool: str
    build: Callable[[], Sequence[str]]
    arguments: tuple[str, ...] = field(default=(), kw_only=True)

    def missing(self) -> str | None:
        return None if shutil.which(self.tool) else f"{self.tool} is not installed"

    def command(self, end: End) -> list[str]:
        """The program and its arguments."""
        return [*self.build(), end, *self.arguments]


@dataclass(frozen=True)
class Workers(Program):
    """`sage_ws.run`, which owns its process; its argument is how many workers it shall have."""

    def missing(self) -> str | None:
        import sage_ws

        async def probe() -> None:
            sage_ws.run(lambda _: None, workers=int(self.arguments[0]))

        try:
            asyncio.run(probe())
        except TypeError as error:
            return str(error)
        except RuntimeError:  # a loop runs already: it got as far as that, and no further
            return super().missing()
        raise AssertionError("run() ran inside a loop")


@dataclass(frozen=True)
class Pair(Peer):
    """The server of one peer and the client of another."""

    server: Peer
    client: Peer

    def missing(self) -> str | None:
        return self.server.missing() or self.client.missing()

    def at(self, end: End) -> Peer:
        return self.server if end == "serve" else self.client
