"""What the README says can be done: its Python runs as it stands, its commands, extras and links exist."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sage_ws.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = "\n".join(re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_prints_what_it_says(block: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    (tmp_path / "pasted.py").write_text(block.replace("8080", str(port)), "utf-8")
    path = os.pathsep.join(
        str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part
    )
    done = subprocess.run(
        [sys.executable, "pasted.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == re.findall(r"^ *print\(.*?\) +# (.*)$", block, re.MULTILINE)


def test_it_opens_with_two_commands_and_a_program() -> None:
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert [line.partition("#")[0].strip() for line in fences[0][1].splitlines()] == [
        "make demo",
        "make test",
    ]
    assert fences[1][0] == "python"
    assert "async with serve(handler" in fences[1][1]


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?<=[`\s#])make ([a-z-]+)", README))
    assert {"demo", "test", "bench", "docs"} <= named <= targets


def test_its_extras_exist() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    installed = {
        name for names in re.findall(r"pip install .*?\.\[([a-z,]+)\]", README) for name in names.split(",")
    }
    table = README.partition("| extra | for |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE))
    assert installed
    assert listed
    assert installed | listed <= extras


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^sage-ws (\w+)", SHELL, re.MULTILINE))))
def test_its_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"sage-ws {command}" in capsys.readouterr().out


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert "docs/images/data-path.svg" in links
    for link in links:
        target, _, anchor = link.partition("#")
        page = ROOT / (target or "README.md")
        assert page.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings], link
