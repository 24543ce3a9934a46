"""The pages tell the truth: commands parse, links lead somewhere, Python compiles and imports, the paper map names what exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from dinogrl.cli.main import app
from dinogrl.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page that are written in one of these languages."""
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if language in languages:
            yield content


def command_lines() -> Iterator[tuple[str, str]]:
    """Every line in a console block that begins with dinogrl or make, its comment cut off."""
    for page in PAGES:
        if page.name == "commands.md":
            continue  # written from the program itself; its usage lines are no commands
        for block in blocks(page, "console", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").split("  #")[0].strip()
                if words.split(" ")[0] in {"dinogrl", "make"}:
                    yield page.relative_to(ROOT).as_posix(), words


def misunderstood(line: str) -> str:
    """What the program would say against a command line; empty where it would run it."""
    program, *words = shlex.split(line)
    if program == "make":
        return "" if not words or words[0] in TARGETS else f"no make target {words[0]}"
    if not words or words[0] not in COMMANDS:
        return f"no command {words[:1]}"
    command = COMMANDS[words[0]]
    while hasattr(command, "commands") and len(words) > 1:  # a group: gallery add
        words = words[1:]
        if words[0] not in command.commands:
            return f"no command {words[:1]}"
        command = command.commands[words[0]]
    try:
        values = command.make_context(words[0], list(words[1:])).params
        if "recipe" in values:
            load_recipe(values["recipe"], values["overrides"] or [])
    except (typer.TyperException, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("page", "line"), sorted(set(command_lines())))
def test_a_command_in_the_docs_is_understood(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOGRL_DATA", raising=False)
    assert not misunderstood(line)


@pytest.mark.parametrize(
    "line",
    [
        "dinogrl trian x",
        "dinogrl check x --colour",
        "dinogrl gallery ad x",
        "dinogrl gallery remove x --colour red",
        "dinogrl train dinogrl training.epoch=3 --data x",
        "make tea",
        "dinogrl train x",
    ],
)
def test_the_checker_sees_a_wrong_command(line: str) -> None:
    assert misunderstood(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    inside = [link for link in links if link and "://" not in link and not link.startswith("mailto:")]
    assert not [link for link in inside if not (page.parent / link).exists()]


def python_blocks() -> list[tuple[str, str]]:
    return [(f"{page.relative_to(ROOT)}:{i}", code) for page in PAGES for i, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value if "\n" not in value else "")
def test_python_in_the_docs_imports_what_exists(where: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block compiles and its imports work; those of the README are run, as far as they need no files."""
    imports = [node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    runs = where.startswith("README") and "runs/" not in code
    program = code if runs else ast.unparse(ast.Module(imports, []))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, where, "exec"), {"__name__": "page"})


def test_reference_of_the_commands_is_up_to_date() -> None:
    """docs/commands.md is written by ``make docs``."""
    arguments = ["-m", "typer", "dinogrl.cli.main", "utils", "docs", "--name", "dinogrl", "--title", "Commands of dinogrl"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").strip() == done.stdout.strip(), "run make docs"


# -- the paper map ------------------------------------------------------------------------------------------------------------

PAPER_MAP = ROOT / "docs" / "paper-map.md"
NAMED = sorted(set(re.findall(r"`([\w./-]+\.(?:py|yaml))(?:::([\w.]+))?`", PAPER_MAP.read_text(encoding="utf-8"))))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Everything that a module defines: classes, functions, constants, and what its classes define, as ``Class.method``."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_paper_map_names_what_exists(file: str, name: str) -> None:
    path = ROOT / file if file.startswith("tests/") else ROOT / "src" / "dinogrl" / file
    assert path.is_file(), f"{file} is not there"
    assert not name or name in names_in(path), f"{file} defines no {name}"


@pytest.mark.parametrize(("kind", "count"), [("equation", 18), ("table", 9), ("figure", 6)])
def test_paper_map_leaves_nothing_out(kind: str, count: int) -> None:
    """Each row begins with its number; a row of an equation names a piece of code and a test."""
    section = re.search(
        rf"^## {kind}s\n(.*?)(?=^## |\Z)", PAPER_MAP.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE | re.IGNORECASE
    )
    assert section is not None
    rows = {row.split("|")[1].strip(): row for row in section[1].splitlines() if re.match(r"\| *\d", row)}
    numbers = {number for label in rows for number in _span(label)}
    assert numbers == set(range(1, count + 1))
    if kind == "equation":
        assert all("::" in row.split("|")[3] and "`tests/" in row.split("|")[4] for row in rows.values())


def _span(label: str) -> range:
    first, _, last = label.partition("-")
    return range(int(first), int(last or first) + 1)
