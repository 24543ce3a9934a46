"""Find a recipe by name or path, resolve what it extends, apply overrides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from dinogrl import config
from dinogrl.errors import RecipeError, UnknownNameError
from dinogrl.recipes.schema import Recipe

SHIPPED = Path(__file__).parent
FILES = {".yaml", ".yml"}
"""Endings by which a path is told from a name."""


def recipe_names() -> list[str]:
    """Names of the recipes inside this package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def recipe_summary(name: str) -> str:
    """The comment at the head of a shipped recipe, in one line."""
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by the name of a shipped one or the path of a YAML file.

    ``overrides`` are texts such as ``"training.epochs=3"``. A file may say ``extends: NAME``, or a path as seen from itself: it
    then gives only what differs. Raises :class:`RecipeError` listing every unknown key and bad value at once,
    :class:`UnknownNameError` for an unknown name.
    """
    values = _values(name, seen=())
    if overrides:
        values = config.merge(values, config.assignments(list(overrides)))
    return config.parse(Recipe, values, source=f"recipe {name}")


def recipe_from_values(values: dict[str, Any], source: str) -> Recipe:
    """A recipe from plain values, as a checkpoint keeps them."""
    return config.parse(Recipe, values, source=source)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: nothing left to defaults."""
    return config.dump_yaml(recipe.model_dump(mode="json"))


def _values(name: str | Path, seen: tuple[str, ...]) -> dict[str, Any]:
    path = _path(name)
    if str(path) in seen:
        raise RecipeError(f"{path} extends itself by way of {' -> '.join(seen)}")
    values = config.read_yaml(path)
    parent = values.pop("extends", None)
    values.setdefault("name", path.stem)
    if parent is None:
        return values
    beside = path.parent / (str(parent) if Path(str(parent)).suffix in FILES else f"{parent}.yaml")
    return config.merge(_values(beside if beside.is_file() else str(parent), (*seen, str(path))), values)


def _path(name: str | Path) -> Path:
    if isinstance(name, str) and name in recipe_names():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.suffix in FILES:
        return path
    raise UnknownNameError("recipe", str(name), recipe_names())
