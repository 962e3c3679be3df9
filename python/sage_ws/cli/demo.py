"""``sage-ws demo``: what ``make demo`` runs."""

from __future__ import annotations

import argparse

from sage_ws.cli.usage import Commands, count
from sage_ws.demo import command


def add_to(commands: Commands) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("demo", help="watch agents talk: signed messages, checked, counted")
    parser.add_argument(
        "--messages",
        type=count,
        default=command.MESSAGES,
        metavar="N",
        help=f"over each transport ({command.MESSAGES})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when every check held."""
    return command.run(arguments.messages)
