"""A plugin for pytest under mutmut, which names tests by their ids and has them looked up again.

Not every id that pytest prints is one that it finds: an escaped backslash is not. Here they are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

_parametrize = pytest.Metafunc.parametrize


def _numbered(
    self: pytest.Metafunc, argnames: Any, argvalues: Iterable[Any], *rest: Any, **options: Any
) -> None:
    values = list(argvalues)
    options["ids"] = [str(number) for number in range(len(values))]
    _parametrize(self, argnames, values, *rest, **options)


pytest.Metafunc.parametrize = _numbered  # type: ignore[method-assign]
