"""The in-tree PEP 517 front: it decides how this source becomes a wheel, and hands over.

    pip, build, uv … → sage_ws_build ─┬─ a Rust toolchain at or above the MSRV → maturin: the native wheel
                                      └─ none                                  → hatchling: py3-none-any

``SAGE_WS_BUILD`` says what is wanted:

- ``auto`` (the default): native where ``toolchain`` finds a toolchain that will do, else pure;
- ``native``: the same, but an error where none is found;
- ``pure``: never compile.

What is *not* decided here: a compilation that fails is an error in every mode. Were it passed over,
a broken build would ship as a slow one. An sdist is always hatchling's, the Rust sources in it: it
is the same file whoever makes it.

Only the standard library is imported at the top: the build front is loaded before its requirements
are there. docs/decisions/0001-build-front.md tells what was refused.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias
from zipfile import ZipFile

from sage_ws_build.toolchain import find_toolchain, minimum_version

__all__ = [
    "BuildError",
    "build_editable",
    "build_sdist",
    "build_wheel",
    "choose",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

VARIABLE = "SAGE_WS_BUILD"
REQUIREMENTS = {"native": ["maturin>=1.9.4,<2"], "pure": ["hatchling>=1.27,<2"]}
_MODULES = {"native": "maturin", "pure": "hatchling.build"}
ROOT = Path(__file__).resolve().parents[2]

Settings: TypeAlias = dict[str, Any] | None
Mode: TypeAlias = Literal["native", "pure"]


class BuildError(SystemExit):
    """A build that cannot go on. As a SystemExit its text is all that the user sees, without a traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(f"sage-ws: {text}")


def choose() -> Mode:
    """Which of the two builds it is, from the environment and the toolchain at hand.

    Raises:
        BuildError: ``SAGE_WS_BUILD`` is none of the three, or ``native`` without a toolchain that will do.
    """
    wanted = os.environ.get(VARIABLE) or "auto"
    if wanted not in {"auto", "native", "pure"}:
        raise BuildError(f"{VARIABLE} must be auto, native or pure, not {wanted!r}")
    if wanted == "pure":
        return "pure"
    toolchain = find_toolchain(minimum_version(ROOT / "Cargo.toml"), cwd=ROOT)
    if toolchain.usable:
        return "native"
    if wanted == "native":
        raise BuildError(f"{VARIABLE}=native, but {toolchain.finding}")
    print(f"sage-ws: building without the native core: {toolchain.finding}", file=sys.stderr)
    return "pure"


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """PEP 517: what the build that ``choose`` picks needs installed."""
    del config_settings
    return REQUIREMENTS[choose()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """PEP 660: the same as for a wheel."""
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """PEP 517: hatchling, always; a misspelt ``SAGE_WS_BUILD`` is still said here, not one step later."""
    del config_settings
    choose()
    return REQUIREMENTS["pure"]


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: the metadata alone; nothing is compiled for it."""
    return _prepare_metadata("wheel", metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 660: the metadata alone; nothing is compiled for it."""
    return _prepare_metadata("editable", metadata_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: maturin's wheel for this interpreter and platform, or hatchling's for any."""
    return str(_backend(choose()).build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """PEP 660: the package where it stands; a native build leaves its extension in the tree.

    A pure one takes it away again: ``SAGE_WS_CORE=auto`` would go on loading the old one, beside
    sources that have moved on.
    """
    mode = choose()
    if mode == "pure":
        _remove_extensions(ROOT / "python" / "sage_ws" / "_core")
    return str(_backend(mode).build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: every source, Rust's included, whichever way it will be built."""
    return str(_backend("pure").build_sdist(sdist_directory, config_settings))


def _prepare_metadata(kind: str, metadata_directory: str, config_settings: Settings) -> str:
    backend = _backend(choose())
    prepare = getattr(backend, f"prepare_metadata_for_build_{kind}", None)
    if prepare is not None:
        return str(prepare(metadata_directory, config_settings))
    # Under pip, hatchling leaves the hook out. This is what a front end does where there is none.
    with TemporaryDirectory() as folder:
        wheel = getattr(backend, f"build_{kind}")(folder, config_settings)
        with ZipFile(Path(folder, wheel)) as archive:
            members = [name for name in archive.namelist() if ".dist-info/" in name]
            archive.extractall(metadata_directory, members)
    return members[0].partition("/")[0]


def _backend(mode: Mode) -> Any:
    # maturin downloads a whole toolchain where it finds no cargo, unless this is set.
    os.environ["MATURIN_NO_INSTALL_RUST"] = "1"
    return importlib.import_module(_MODULES[mode])


def _remove_extensions(folder: Path) -> None:
    for suffix in EXTENSION_SUFFIXES:
        extension = folder / f"_rust{suffix}"
        if extension.exists():
            print(f"sage-ws: removing {extension.name}, left by a native build", file=sys.stderr)
            extension.unlink()
