"""The README's example runs, and the commands and files it names exist."""

import re
from pathlib import Path

import pytest

from tvm_sparsewino.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program):
    return sorted(set(re.findall(rf"`{program} ([a-z-]+)`", README)))


def test_example_runs_and_prints_its_result(capsys):
    (example,) = blocks("python")
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["y"].shape == (1, 32, 64, 64)
    assert capsys.readouterr().out.startswith("(1, 32, 64, 64) ")


def test_example_is_short():
    (example,) = blocks("python")
    assert len(example.splitlines()) <= 18


@pytest.mark.parametrize("command", commands("sparsewino"))
def test_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert command in capsys.readouterr().out


def test_readme_names_commands():
    assert {
        "demo",
        "compile",
        "run",
        "inspect",
        "train",
        "tune",
        "bench",
        "export",
        "runner",
    } <= set(commands("sparsewino"))


@pytest.mark.parametrize("goal", commands("make"))
def test_goal_is_in_the_makefile(goal):
    assert re.search(rf"^{goal}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []
