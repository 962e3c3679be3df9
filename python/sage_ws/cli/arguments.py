"""Every command's arguments, and what is wrong with them, said in one line."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from typing import NoReturn

import sage_ws
from sage_ws.cli import demo, ping, send, serve, top
from sage_ws.cli.usage import UsageError

__all__ = ["UsageError", "parse"]

VERSION = f"sage-ws {sage_ws.__version__} ({sage_ws.core_name} core, Python {platform.python_version()})"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``run`` on the result is the command's function.

    Raises:
        UsageError: the arguments make no sense.
    """
    parser = _Parser(prog="sage-ws", description="SAGE messages between agents, over WebSocket and HTTP.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (demo, serve, send, ping, top):
        command.add_to(commands)
    return parser.parse_args(argv)


class _Parser(argparse.ArgumentParser):
    """argparse prints the whole usage before an error; one line is enough."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")
