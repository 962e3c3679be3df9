"""The PEP 517 front: which build it picks, what it says, and what a pure wheel holds. Nothing is compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import sage_ws_build as front
from sage_ws_build.toolchain import find_toolchain, minimum_version

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in toolchains are shell scripts")

ROOT = Path(__file__).resolve().parents[2]
MSRV = minimum_version(ROOT / "Cargo.toml")
EXTENSION = f"_rust{EXTENSION_SUFFIXES[0]}"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The only folder on PATH, empty at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CARGO", "RUSTC", front.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return folder


def put(folder: Path, tool: str, script: str) -> None:
    file = folder / tool
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def put_toolchain(folder: Path, version: str) -> None:
    for tool in ("cargo", "rustc"):
        put(folder, tool, f'echo "{tool} {version} (0123456789 2026-01-01)"')


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


class TestToolchain:
    def test_no_cargo(self, path):
        assert find_toolchain(MSRV, cwd=ROOT) == (False, "no cargo was found on PATH")

    def test_cargo_without_a_compiler(self, path):
        put(path, "cargo", "echo cargo 9.0.0")
        assert find_toolchain(MSRV, cwd=ROOT) == (False, "no rustc was found on PATH")

    def test_exactly_the_minimum_will_do(self, path):
        put_toolchain(path, dotted(MSRV))
        assert find_toolchain(MSRV, cwd=ROOT).usable

    def test_one_minor_version_below_will_not(self, path):
        older = f"{MSRV[0]}.{MSRV[1] - 1}.9"
        put_toolchain(path, older)
        found = find_toolchain(MSRV, cwd=ROOT)
        assert found == (False, f"cargo {older} is older than {dotted(MSRV)}, the oldest that will do")

    def test_versions_are_numbers_not_text(self, path):
        put_toolchain(path, f"{MSRV[0]}.{MSRV[1] * 10}.0-nightly")
        assert find_toolchain(MSRV, cwd=ROOT).usable

    def test_a_proxy_without_a_toolchain(self, path):
        put_toolchain(path, "9.0.0")
        put(path, "rustc", "echo 'no default toolchain' >&2; exit 1")
        assert find_toolchain(MSRV, cwd=ROOT) == (False, f"{path}/rustc --version failed")

    def test_a_tool_that_says_no_version(self, path):
        put(path, "cargo", "echo hello")
        assert find_toolchain(MSRV, cwd=ROOT) == (False, f"{path}/cargo --version failed")

    def test_a_proxy_is_asked_not_to_install_and_from_the_source_folder(self, path, tmp_path):
        put(path, "cargo", '[ "$RUSTUP_AUTO_INSTALL" = 0 ] && [ -f marker ] && echo cargo 9.0.0')
        put(path, "rustc", "echo rustc 9.0.0")
        (tmp_path / "marker").touch()
        assert find_toolchain(MSRV, cwd=tmp_path).usable

    def test_the_compiler_that_cargo_would_take(self, path, tmp_path, monkeypatch):
        put_toolchain(path, "9.0.0")
        put(tmp_path, "old-rustc", "echo rustc 1.0.0")
        monkeypatch.setenv("RUSTC", str(tmp_path / "old-rustc"))
        assert not find_toolchain(MSRV, cwd=ROOT).usable


class TestChoice:
    def test_auto_is_native_with_a_toolchain(self, path):
        put_toolchain(path, dotted(MSRV))
        assert front.choose() == "native"

    def test_auto_is_pure_without_one_and_says_why(self, path, capsys):
        assert front.choose() == "pure"
        assert capsys.readouterr().err == (
            "sage-ws: building without the native core: no cargo was found on PATH\n"
        )

    def test_native_without_one_is_an_error(self, path, monkeypatch):
        monkeypatch.setenv(front.VARIABLE, "native")
        with pytest.raises(front.BuildError, match="SAGE_WS_BUILD=native, but no cargo was found on PATH"):
            front.choose()

    def test_pure_asks_no_toolchain(self, path, monkeypatch):
        monkeypatch.setenv(front.VARIABLE, "pure")
        put_toolchain(path, dotted(MSRV))
        put(path, "cargo", f"touch {path}/asked")
        assert front.choose() == "pure"
        assert not (path / "asked").exists()

    def test_empty_means_auto(self, path, monkeypatch):
        monkeypatch.setenv(front.VARIABLE, "")
        put_toolchain(path, dotted(MSRV))
        assert front.choose() == "native"

    @pytest.mark.parametrize("hook", [front.get_requires_for_build_wheel, front.get_requires_for_build_sdist])
    def test_an_unknown_value_is_named(self, path, monkeypatch, hook):
        monkeypatch.setenv(front.VARIABLE, "fast")
        with pytest.raises(front.BuildError, match="SAGE_WS_BUILD must be auto, native or pure, not 'fast'"):
            hook()


HOOKS = (
    "prepare_metadata_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "build_wheel",
    "build_editable",
)


@pytest.fixture
def backends(monkeypatch):
    """Stand-ins for both back ends: each hook answers which it was, and what it was given."""
    for name in ("maturin", "hatchling.build"):
        module = types.ModuleType(name)
        for hook in (*HOOKS, "build_sdist"):
            setattr(module, hook, lambda *given, said=f"{name} {hook}": " ".join(map(str, (said, *given))))
        monkeypatch.setitem(sys.modules, name, module)
    # Set and not deleted, so that what the front puts there is undone after the test.
    monkeypatch.setenv("MATURIN_NO_INSTALL_RUST", "")


class TestHooks:
    @pytest.mark.parametrize("hook", ["get_requires_for_build_wheel", "get_requires_for_build_editable"])
    def test_requirements_follow_the_choice(self, path, hook):
        assert getattr(front, hook)() == front.REQUIREMENTS["pure"]
        put_toolchain(path, dotted(MSRV))
        assert getattr(front, hook)() == front.REQUIREMENTS["native"]

    @pytest.mark.parametrize("hook", HOOKS)
    def test_the_work_is_handed_over(self, path, backends, monkeypatch, tmp_path, hook):
        monkeypatch.setattr(front, "ROOT", tmp_path)
        (tmp_path / "Cargo.toml").write_text('[workspace.package]\nrust-version = "1.85"\n')
        given = ("out", {"a": "b"}, "meta") if hook.startswith("build") else ("out", {"a": "b"})
        said = " ".join(map(str, given))
        assert getattr(front, hook)(*given) == f"hatchling.build {hook} {said}"
        put_toolchain(path, "1.85.0")
        assert getattr(front, hook)(*given) == f"maturin {hook} {said}"

    def test_an_sdist_is_hatchlings_whatever_is_installed(self, path, backends):
        put_toolchain(path, dotted(MSRV))
        assert front.get_requires_for_build_sdist() == front.REQUIREMENTS["pure"]
        assert front.build_sdist("out", {"a": "b"}) == "hatchling.build build_sdist out {'a': 'b'}"

    def test_maturin_may_never_download_a_toolchain(self, path, backends):
        put_toolchain(path, dotted(MSRV))
        front.build_wheel("out")
        assert os.environ["MATURIN_NO_INSTALL_RUST"] == "1"

    def test_a_pure_editable_takes_the_old_extension_away(
        self, path, backends, monkeypatch, tmp_path, capsys
    ):
        monkeypatch.setenv(front.VARIABLE, "pure")
        monkeypatch.setattr(front, "ROOT", tmp_path)
        core = tmp_path / "python" / "sage_ws" / "_core"
        core.mkdir(parents=True)
        for name in (EXTENSION, "_rust.pyi", "__init__.py"):
            (core / name).touch()
        front.build_editable("out")
        assert sorted(file.name for file in core.iterdir()) == ["__init__.py", "_rust.pyi"]
        assert f"removing {EXTENSION}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of this source, with an extension of a native build in it."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "target")
    for entry in ("pyproject.toml", "README.md", "LICENSE", "Cargo.toml"):
        shutil.copy(ROOT / entry, tree)
    for entry in ("build_backend", "python", "rust"):
        shutil.copytree(ROOT / entry, tree / entry, ignore=ignored)
    (tree / "python" / "sage_ws" / "_core" / EXTENSION).write_bytes(b"stale")
    return tree


class TestWithHatchling:
    """The real back end, with ``SAGE_WS_BUILD=pure``."""

    def call(
        self, tree: Path, hook: str, wanted: str = "pure", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """One hook in a process of its own, as a front end calls it."""
        code = f"import sage_ws_build; print(sage_ws_build.{hook}('dist'))"
        environment |= {front.VARIABLE: wanted, "PYTHONPATH": str(tree / "build_backend")}
        return subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            cwd=tree,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=50,
        )

    def test_the_pure_wheel(self, tree):
        done = self.call(tree, "build_wheel")
        name = done.stdout.strip()
        assert done.returncode == 0, done.stderr
        assert name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(tree / "dist" / name) as wheel:
            files = wheel.namelist()
            entry_points = next(file for file in files if file.endswith("entry_points.txt"))
            assert "sage-ws = sage_ws.cli:main" in wheel.read(entry_points).decode()
        assert not [file for file in files if file.endswith((".so", ".pyd"))]
        assert {"sage_ws/__init__.py", "sage_ws/py.typed", "sage_ws/_core/_rust.pyi"} <= set(files)
        assert all(file.startswith(("sage_ws/", "sage_ws-")) for file in files)

    def test_the_sdist_holds_what_a_native_build_needs(self, tree):
        done = self.call(tree, "build_sdist")
        name = done.stdout.strip()
        assert done.returncode == 0, done.stderr
        with tarfile.open(tree / "dist" / name) as sdist:
            files = {file.partition("/")[2] for file in sdist.getnames()}
        assert not [file for file in files if file.endswith((".so", ".pyd"))]
        assert {
            "Cargo.toml",
            "build_backend/sage_ws_build/__init__.py",
            "python/sage_ws/__init__.py",
            "rust/core/Cargo.toml",
            "rust/python/src/lib.rs",
        } <= files

    @pytest.mark.parametrize("kind", ["wheel", "editable"])
    def test_the_metadata_alone_under_pip_too(self, tree, kind):
        (tree / "dist").mkdir(exist_ok=True)
        for tracker in ({}, {"PIP_BUILD_TRACKER": "somewhere"}):
            done = self.call(tree, f"prepare_metadata_for_build_{kind}", **tracker)
            assert done.stdout == "sage_ws-0.1.0.dist-info\n", done.stderr
            folder = tree / "dist" / done.stdout.strip()
            assert "\nName: sage-ws\n" in (folder / "METADATA").read_text()
            shutil.rmtree(folder)

    def test_an_unknown_value_is_one_clear_line(self, tree):
        done = self.call(tree, "build_wheel", "fast")
        assert done.returncode == 1
        assert done.stderr == "sage-ws: SAGE_WS_BUILD must be auto, native or pure, not 'fast'\n"
