"""The fuzz target of an opening request's head, which is parsed in Python: `.ci/fuzz` starts it too.

    .venv/bin/python .ci/fuzz_heads.py 600

It runs the properties of tests/property/test_heads.py, round after round, each from a seed of its own.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import seed, settings

PROPERTIES = Path(__file__).parents[1] / "tests" / "property" / "test_heads.py"


EXAMPLES = Counter[str]()


def counted(name: str, inner: Callable[..., None]) -> Callable[..., None]:
    """The property, its examples counted."""

    @wraps(inner)
    def counting(*arguments: Any, **named: Any) -> None:
        EXAMPLES[name] += 1
        inner(*arguments, **named)

    return counting


def properties() -> list[Any]:
    """Those of the file, with the examples of this profile."""
    settings.register_profile("fuzz", max_examples=100, deadline=None, database=None)
    settings.load_profile("fuzz")
    spec = importlib.util.spec_from_file_location("test_heads", PROPERTIES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[Any] = [value for value in vars(module).values() if hasattr(value, "hypothesis")]
    for one in found:
        one.hypothesis.inner_test = counted(one.__name__, one.hypothesis.inner_test)
    return found


def main() -> None:
    """One round at least. A finding is raised, as small as it can be made."""
    ends = time.monotonic() + float(sys.argv[1])
    targets = properties()
    for number in count(time.time_ns()):
        for target in targets:
            try:
                seed(number)(target)()
            except BaseException:
                print(
                    f"heads: ended after {EXAMPLES.total()} examples, in {target.__name__} with seed {number}"
                )
                raise
        if time.monotonic() > ends:
            break
    print(f"heads: {EXAMPLES.total()} examples of {len(targets)} properties, no finding")


if __name__ == "__main__":
    main()
