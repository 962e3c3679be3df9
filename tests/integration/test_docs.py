"""Every Python block of the documentation runs, and prints what stands behind its ``print``.

The blocks of a page are one script, top to bottom. A block with a title is a file of that name instead;
one that is called ``test_….py`` is given to pytest.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sage_ws
import sage_ws.testing
from sage_ws.cli import main
from sage_ws.options import ClientSettings, CommonSettings, ServerSettings

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^\s*print\(.*?\)(?: +# (.*))?$", re.MULTILINE)
LANGUAGES = {"python", "sh", "text", "toml", "powershell", "nginx", "apache", "javascript"}
SECONDS = 60
"""For one program: the tutorial starts half a dozen."""

pytestmark = pytest.mark.timeout(300)

PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
TUTORIAL = "tutorial.md"


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and text of each fenced block."""
    return FENCE.findall((DOCS / page).read_text("utf-8"))


def script(page: str) -> str:
    return "\n\n".join(text for language, title, text in blocks(page) if language == "python" and not title)


def write_files(page: str, folder: Path, port: int = 8080) -> list[str]:
    """Write the blocks that are files, with another port in place of 8080; returns their names."""
    names = []
    for language, title, text in blocks(page):
        if language == "python" and title:
            (folder / title).write_text(text.replace("8080", str(port)), "utf-8")
            names.append(title)
    return names


def run(folder: Path, *arguments: str) -> str:
    """What a Python process prints; it must end with 0."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _absolute_python_path()},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _absolute_python_path() -> str:
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(str(Path(part).absolute()) for part in parts if part)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_their_language(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    assert text.count("\n```") == 2 * len(blocks(page)), "a fence that is not closed, or is indented"
    assert {language for language, _, _ in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", [page for page in PAGES if script(page)])
def test_blocks_print_what_they_say(page: str, tmp_path: Path, closed_port: int) -> None:
    text = script(page).replace("8080", str(closed_port))
    (tmp_path / "page.py").write_text(text, "utf-8")
    said = PRINTED.findall(text)
    assert "" not in said, "a print without the comment that says what it prints"
    assert run(tmp_path, "page.py").splitlines() == said


@pytest.mark.parametrize("page", [page for page in PAGES if page != TUTORIAL])
def test_blocks_for_pytest_pass(page: str, tmp_path: Path) -> None:
    names = write_files(page, tmp_path)
    assert all(name.startswith("test_") for name in names), "only the tutorial's files are run by a test"
    if names:
        run_pytest(tmp_path, names)


def run_pytest(folder: Path, names: list[str]) -> None:
    plugin = [] if entry_points(group="pytest11", name="sage_ws") else ["-p", "sage_ws.testing.plugin"]
    (folder / "pytest.ini").write_text("[pytest]\n")
    said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *names)
    assert " passed" in said


# ── the reference pages that are written by hand ────────────────────────────────────────
def rows(page: str, section: str) -> list[list[str]]:
    """The cells of a section's table, without its heading."""
    text = (DOCS / page).read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_option_stands_with_its_default() -> None:
    page = "reference/options.md"
    for section, settings, inherited in (
        ("Both ends", CommonSettings, None),
        ("Client", ClientSettings, CommonSettings),
        ("Server", ServerSettings, CommonSettings),
    ):
        known = {one.name: one.default for one in fields(settings)}
        for one in fields(inherited) if inherited else ():
            del known[one.name]
        told = {row[0].strip("`"): row[1].strip("`") for row in rows(page, section)}
        shown = {name: getattr(default, "__name__", repr(default)) for name, default in known.items()}
        assert told == shown


@pytest.mark.parametrize("command", ["serve", "send", "ping", "top", "demo"])
def test_every_argument_of_the_command_stands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    taken = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    page = (DOCS / "reference/cli.md").read_text("utf-8")
    section = page.partition(f"\n## `sage-ws {command}")[2].partition("\n## ")[0]
    assert taken == set(re.findall(r"`(--[a-z-]+)`", section))


def test_every_public_name_stands_in_the_reference() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
    named = set(re.findall(r"^::: sage_ws[\w.]*\.(\w+)$", pages, re.MULTILINE))
    by_hand = {"core_name"}  # a str, chosen at import: no docstring could stand on it
    assert set(sage_ws.__all__) - named == by_hand
    assert all(f"`sage_ws.{name}`" in pages for name in by_hand)
    assert set(sage_ws.testing.__all__) <= named


def test_every_error_stands() -> None:
    page = (DOCS / "reference/errors.md").read_text("utf-8")
    errors = {name for name in sage_ws.__all__ if name.endswith("Error")}
    assert set(re.findall(r"^::: sage_ws\.errors\.(\w+)$", page, re.MULTILINE)) == errors
    tree = (DOCS / "how-to/errors.md").read_text("utf-8")
    assert all(name in tree for name in errors)


def test_the_values_stand_with_their_fields() -> None:
    page = (DOCS / "reference/values.md").read_text("utf-8")
    for value in (sage_ws.SecureMessage, sage_ws.Response):
        (signature,) = re.findall(rf"^{value.__name__}\((\w+: .*?)\)$", page, re.MULTILINE | re.DOTALL)
        assert tuple(re.findall(r"(\w+): ", signature)) == value.__match_args__


def test_the_page_on_tls_shows_the_example_as_it_is() -> None:
    example = (DOCS / "examples/client_certificates.py").read_text("utf-8")
    functions = example[example.index("def server_context") :]
    assert functions in [text for _, _, text in blocks("how-to/tls.md")]


def test_every_number_of_stats_stands() -> None:
    page = (DOCS / "how-to/tuning.md").read_text("utf-8").partition("## What `stats()` shows")[2]
    of_client, _, of_server = page.partition("A server's:")
    client = sage_ws.Client("ws://agent.example")
    server = sage_ws.Server(lambda message: None)
    for section, stats in ((of_client, client.stats()), (of_server, server.stats())):
        names = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
        assert {name.strip("`") for cell in names[2:] for name in cell.split(", ")} == set(stats)


def anchor_of(heading: str) -> str:
    """As mkdocs and GitHub have it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """Among the sources too: mkdocs says nothing of a link that climbs out of its folder."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        there = (DOCS / page).parent / target if target else DOCS / page
        assert there.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(anchor_of, headings), link


# ── tests that a page names ─────────────────────────────────────────────────────────────
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)+)`")


def names_of(path: Path) -> set[str]:
    """``::function``, ``::Class`` and ``::Class::function`` of a file."""
    found = set()
    for one in ast.parse(path.read_text("utf-8")).body:
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(f"::{one.name}")
        if isinstance(one, ast.ClassDef):
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            found |= {f"::{one.name}::{inner.name}" for inner in one.body if isinstance(inner, functions)}
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if "`tests/" in (DOCS / page).read_text("utf-8")])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = set(NAMED_TEST.findall((DOCS / page).read_text("utf-8")))
    files = {path: names_of(DOCS.parent / path) for path, _ in named}
    assert {f"{path}{name}" for path, name in named if name not in files[path]} == set()


def test_the_threat_model_shows_what_it_says() -> None:
    """Each row names a test, or says that nothing stops it."""
    page = (
        (DOCS / "explanation/threat-model.md").read_text("utf-8").partition("## Somebody on the network")[2]
    )
    rows = [row for row in page.splitlines() if row.startswith("| ") and "---" not in row]
    rows = [row for row in rows if not row.endswith("| shown by |")]
    assert len(rows) > 50
    assert not [row for row in rows if "`tests/" not in row and "| nothing" not in row]


# ── the tutorial: its files and commands, in its order ──────────────────────────────────
@contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    """``sage-ws serve``, as the tutorial starts it."""
    command = [sys.executable, "-m", "sage_ws", "serve", "agent:answer", "--port", str(port), "--path", "/ws"]
    environment = {**os.environ, "PYTHONPATH": _absolute_python_path()}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            line = child.stderr.readline()
            assert f"serving on 127.0.0.1:{port}" in line, line + child.stderr.read()
            yield
        finally:
            child.terminate()
            child.wait(SECONDS)


def test_the_tutorial(tmp_path: Path, closed_port: int) -> None:
    names = write_files(TUTORIAL, tmp_path, closed_port)
    assert names == ["agent.py", "ask.py", "ask_many.py", "ask_nothing.py", "test_agent.py"]
    outputs = iter([text for language, _, text in blocks(TUTORIAL) if language == "text"])
    commands = [text for language, _, text in blocks(TUTORIAL) if language == "sh"]
    assert commands[0] == "sage-ws serve agent:answer --port 8080 --path /ws\n"
    assert commands[1] == (
        'sage-ws send ws://127.0.0.1:8080/ws --did did:sage:me --payload "one two three"\n'
    )
    url = f"ws://127.0.0.1:{closed_port}/ws"
    with served(tmp_path, closed_port):
        asked = ["send", url, "--did", "did:sage:me", "--payload", "one two three"]
        assert run(tmp_path, "-m", "sage_ws", *asked).strip() == next(outputs).strip()
        for name in names[1:4]:
            assert run(tmp_path, name) == next(outputs)
    assert next(outputs, None) is None
    run_pytest(tmp_path, names[4:])
