"""House rules that nobody should have to remember: one door each, names that say something, files short enough to read."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "dinogrl"
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST = 400

# What only some files may do. Key: how a call or an import is written; value: the files below src/dinogrl that hold the door.
DOORS = {
    r"torch\.(load|save)": ("checkpoints.py",),
    r"safetensors(\..*)?": ("checkpoints.py",),
    r"pickle\.(load|loads|Unpickler)|joblib\..*|(np|numpy)\.load\(pickle\)": (),
    r"yaml(\..*)?": ("config.py",),
    r"print|sys\.exit|exit|quit|input": ("cli/",),
    r"typer(\..*)?|rich(\..*)?": ("cli/",),
    r"(torch\.distributed|dist)(\..*)?": ("distributed.py",),
    r"(torch|torch\.cuda)\.manual_seed(_all)?|(np|numpy)\.random\.seed|random\.seed": ("runtime.py",),
    r"torch\.cuda\.is_available|torch\.backends\..*": ("runtime.py",),
    r"cv2\.(imread|imdecode)|simplejpeg\.decode_jpeg(_header)?|PIL\.Image\.open|Image\.open": ("data/frames.py",),
    r".*\.cuda|.*\.is_cuda": (),
    r"eval|exec|__import__": (),
    r"importlib\.import_module": ("reproduce/bench_stages.py",),  # the literal implementation lies outside the package
}
# Names that say nothing; whatever is put there is never found again.
DRAWERS = {"utils", "util", "common", "misc", "helpers", "helper", "base", "tools", "stuff"}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; what stands before the dots may be any expression, then it is written ``?``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Everything that a file calls or imports, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func)
            if any(word.arg == "allow_pickle" and getattr(word.value, "value", None) is not False for word in node.keywords):
                yield node.lineno, "np.load(pickle)"
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def open_doors(path: str, code: str) -> list[str]:
    """Uses in ``code``, lying at ``path`` below src/dinogrl, of what only other files may use."""
    return [
        f"{path}:{line}: {name} belongs in {' or '.join(owners) or 'no file'}"
        for line, name in uses(ast.parse(code))
        for pattern, owners in DOORS.items()
        if re.fullmatch(pattern, name) and not path.startswith(owners or ("<nobody>",))
    ]


def swallowed(path: str, code: str) -> list[str]:
    """Handlers that catch everything, or catch and say nothing."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or dotted(kind) in {"Exception", "BaseException"} for kind in caught):
                found.append(f"{path}:{node.lineno}: catches everything; name what can go wrong")
    return found


def name_chains(path: str, code: str) -> list[str]:
    """``if name == "a": ... elif name == "b": ... elif name == "c": ...``: three or more branches on one text want a catalog."""
    found = []
    for node in ast.walk(ast.parse(code)):
        subjects, branch = [], node
        while isinstance(branch, ast.If):
            test = branch.test
            text = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)
            if text and isinstance(test.comparators[0], ast.Constant) and isinstance(test.comparators[0].value, str):
                subjects.append(ast.dump(test.left))
            branch = branch.orelse[0] if len(branch.orelse) == 1 else None
        if len(subjects) >= 3 and len(set(subjects)) == 1:
            found.append(f"{path}:{node.lineno}: a chain of names; use a catalog")
    return found


CHECKS: dict[str, Callable[[str, str], list[str]]] = {"doors": open_doors, "errors": swallowed, "chains": name_chains}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_source_keeps_the_rules(path: Path, check: str) -> None:
    assert not CHECKS[check](path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8"))


BAD = [
    ("doors", "models/weights.py", "import torch\nx = torch.load('a')"),
    ("doors", "models/weights.py", "from safetensors.torch import load_file"),
    ("doors", "training/run.py", "import yaml"),
    ("doors", "training/run.py", "print('epoch')"),
    ("doors", "reports/page.py", "import sys\nsys.exit(1)"),
    ("doors", "reports/tables.py", "from rich.table import Table"),
    ("doors", "training/loop.py", "import torch.distributed as dist"),
    ("doors", "training/loop.py", "from torch import distributed"),
    ("doors", "data/samplers.py", "import torch\ntorch.manual_seed(1)"),
    ("doors", "data/samplers.py", "import numpy as np\nnp.random.seed(1)"),
    ("doors", "models/build.py", "def f(m):\n    return m.cuda()"),
    ("doors", "models/build.py", "def f(m):\n    return m.layers[0].cuda()"),
    ("doors", "data/clips.py", "import cv2\ncv2.imread('a')"),
    ("doors", "data/clips.py", "from simplejpeg import decode_jpeg"),
    ("doors", "data/clips.py", "import numpy as np\nnp.load('a', allow_pickle=True)"),
    ("doors", "config.py", "x = eval('1')"),
    ("errors", "data/clips.py", "try:\n    x = 1\nexcept:\n    pass"),
    ("errors", "data/clips.py", "try:\n    x = 1\nexcept (ValueError, Exception):\n    raise"),
    (
        "chains",
        "models/build.py",
        "def f(n):\n    if n == 'a':\n        x = 1\n    elif n == 'b':\n        x = 2\n    elif n == 'c':\n        x = 3",
    ),
]
GOOD = [
    ("doors", "checkpoints.py", "import torch\nx = torch.load('a', weights_only=True)"),
    ("doors", "cli/main.py", "import typer\nprint('hello')"),
    ("doors", "data/frames.py", "import cv2\ncv2.imdecode(b, 1)"),
    ("doors", "data/samplers.py", "import numpy as np\nnp.random.default_rng(1)"),
    ("doors", "reports/page.py", "import numpy as np\nnp.load('a', allow_pickle=False)"),
    ("errors", "data/clips.py", "try:\n    x = 1\nexcept OSError as error:\n    raise ValueError from error"),
    ("chains", "models/build.py", "def f(n):\n    if n == 'a':\n        x = 1\n    else:\n        x = 2"),
]


@pytest.mark.parametrize(("check", "path", "code"), BAD)
def test_the_checker_sees_a_breach(check: str, path: str, code: str) -> None:
    assert CHECKS[check](path, code)


@pytest.mark.parametrize(("check", "path", "code"), GOOD)
def test_the_checker_lets_good_code_pass(check: str, path: str, code: str) -> None:
    assert not CHECKS[check](path, code)


def test_no_drawers() -> None:
    drawers = [path for path in MODULES if DRAWERS & {path.stem, *(part.name for part in path.relative_to(SOURCE).parents)}]
    assert not drawers, "a file is named by its one idea"


def test_no_file_too_long_to_read() -> None:
    files = [*MODULES, *sorted((ROOT / "tests").glob("*.py"))]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_every_file_of_the_package_is_installed() -> None:
    """What is no Python must be named in pyproject.toml, or an installed program lacks it."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["dinogrl"]
    named = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    others = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert not others - named


def test_every_module_says_what_it_is() -> None:
    silent = [
        path for path in MODULES if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, "begin the file with a docstring"


def test_no_path_of_somebodys_machine() -> None:
    """Absolute home, work and temporary folders make sense on one machine only."""
    private = re.compile(r"(?<![\w.])/(work|root|home|Users|opt|mnt|tmp)/\w")
    files = [
        path
        for folder in ("src", "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yaml", ".html", ".css"}
    ]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in {".md", ".toml", ".txt", ""}]
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if private.search(line)
    }
    assert not found
