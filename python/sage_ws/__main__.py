"""``python -m sage_ws``: the same as the command ``sage-ws``."""

from __future__ import annotations

import sys

from sage_ws.cli import main

if __name__ == "__main__":
    sys.exit(main())
