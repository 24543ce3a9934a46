"""The program is a house: a file imports only from floors below its own, or from its own folder. Read from the source, not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "dinogrl"

# First part of the path below src/dinogrl -> floor. A new file or folder must be given its floor here. Files of floors 0 and 1
# lie in one folder and may know each other; from floor 2 up, folders of one floor do not: models knows no data, no losses.
FLOORS = {
    "errors": 0,
    "config": 0,
    "distances": 0,
    "distributed": 0,
    "locks": 0,
    "memory": 0,
    "runtime": 0,
    "catalog": 0,
    "modality_names": 0,
    "records": 1,
    "recipes": 1,
    "checkpoints": 1,
    "hub_folders": 1,
    "onnx_sessions": 1,
    "data": 2,
    "models": 2,
    "losses": 2,
    "evaluation": 2,
    "embedding": 3,
    "parsing": 3,
    "simulation": 3,
    "reports": 4,
    "training": 4,
    "gallery": 4,
    "footage": 4,
    "web": 5,
    "reproduce": 5,
    "cli": 6,
    "__main__": 7,
}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(module: str) -> str:
    """``dinogrl.models.build`` -> ``models``; ``dinogrl`` itself -> the empty text."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every module of ours that a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join([*parent, *([node.module] if node.module else [])])
            # "from dinogrl import records" names a module by its last word
            names = [f"dinogrl.{alias.name}" for alias in node.names] if module == "dinogrl" else [module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "dinogrl")


def faults(path: str, code: str) -> list[str]:
    """Every import in ``code``, lying at ``path`` below src/dinogrl, that climbs a floor or crosses to a neighbour."""
    own = Path(path).parts[0].removesuffix(".py")
    if own not in FLOORS:
        return [f"{path}: {own!r} has no floor; give it one in {Path(__file__).name}"]
    package = ".".join(["dinogrl", *Path(path).parts[:-1]])
    found = []
    for line, name in imports(ast.parse(code), package):
        other = room(name)
        if other == own:
            continue
        if other not in FLOORS:
            if own == "cli":
                continue  # the ground door: what the package offers everybody, such as its version
            found.append(f"{path}:{line}: imports {name}, which stands on no floor")
        elif FLOORS[other] > FLOORS[own]:
            found.append(f"{path}:{line}: floor {FLOORS[own]} imports {name} from floor {FLOORS[other]}")
        elif FLOORS[other] == FLOORS[own] >= 2:
            found.append(f"{path}:{line}: imports {name} from its own floor, but another folder")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_only_from_floors_below(path: Path) -> None:
    assert not faults(path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("models/build.py", "from dinogrl.data.loaders import TrainingLoader"),
        ("models/streams/gait.py", "import dinogrl.losses.triplet"),
        ("models/streams/gait.py", "from ...training import run"),
        ("evaluation/metrics.py", "from dinogrl.embedding.extract import extract"),
        ("evaluation/metrics.py", "def late():\n    from dinogrl.models import build"),
        ("errors.py", "from dinogrl.records import Tracklet"),
        ("config.py", "from dinogrl import checkpoints"),
        ("training/run.py", "from dinogrl.cli import main"),
        ("data/loaders.py", "from dinogrl import load_recipe"),
        ("drawer/things.py", "x = 1"),
    ],
)
def test_the_checker_sees_a_climb(path: str, code: str) -> None:
    assert faults(path, code)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("training/run.py", "from dinogrl.models.build import build_model\nfrom dinogrl import runtime"),
        ("models/dinogrl.py", "from .streams import gait\nfrom dinogrl.records import ModelOutput"),
        ("models/streams/gait.py", "from ..heads import Head\nfrom . import appearance"),
        ("records.py", "from dinogrl.errors import DataError\nfrom dinogrl.catalog import Catalog"),
        ("cli/main.py", "from dinogrl import __version__"),
        ("data/frames.py", "import numpy\nfrom torch import Tensor"),
    ],
)
def test_the_checker_lets_a_descent_pass(path: str, code: str) -> None:
    assert not faults(path, code)
