# ruff: noqa: INP001  # mkdocs runs this file by its path
"""mkdocs' hook: every decision record stands in the navigation, by number, without being listed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    """Add them behind the pages that ``mkdocs.yml`` lists."""
    records = sorted(path.name for path in Path(config.docs_dir, "decisions").glob("*.md"))
    config.nav.append({"Decisions": [f"decisions/{name}" for name in records]})
