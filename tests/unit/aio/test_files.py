"""The room of sockets says of each of its files what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import sage_ws.aio


def test_the_map_names_no_file_that_is_not_there() -> None:
    named = re.findall(r"``([a-z_]+)``", sage_ws.aio.__doc__ or "")
    files = {one.stem for one in Path(sage_ws.aio.__file__).parent.glob("*.py")}
    assert len(named) == len(set(named)) > 30
    assert set(named) <= files
