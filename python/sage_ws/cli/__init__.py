"""The command ``sage-ws``: try a server, run a handler, send a message, without writing a program.

Exit codes: 0 done; 1 it was tried and failed (no connection, an error answered, a check of the demo); 2 the
arguments make no sense; 130 interrupted. What fails says so in one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sage_ws.cli.arguments import UsageError, parse
from sage_ws.errors import SageError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; ``sys.argv``'s by default.

    Returns:
        The exit code.

    Raises:
        SystemExit: after ``--help`` and ``--version``, as argparse does.
    """
    try:
        arguments = parse(argv)
        code: int = arguments.run(arguments)
    except UsageError as error:
        return _complain(error, 2)
    except (SageError, OSError, ImportError) as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 130
    return code


def _complain(error: Exception, code: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    sys.stderr.write(f"sage-ws: {text}\n")
    return code
