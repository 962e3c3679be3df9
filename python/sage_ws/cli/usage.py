"""What the commands share: the error for senseless arguments, and the types of their values."""

from __future__ import annotations

import argparse
import math
from typing import TypeAlias

from sage_ws.options import trusted_network

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class UsageError(Exception):
    """The command line makes no sense: one line, exit code 2."""


def seconds(text: str) -> float:
    """A positive number of seconds."""
    value = _number(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def port(text: str) -> int:
    """A TCP port; 0 for a free one."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def trusted_proxy(text: str) -> str:
    """An address or a network, or ``unix``."""
    try:
        trusted_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; nor is it 'unix'") from error
    return text


def path(text: str) -> str:
    """A URL's path."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not start with a slash")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
