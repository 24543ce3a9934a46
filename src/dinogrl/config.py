"""Strict settings: the only door to YAML, and typed sections in which a wrong key is an error that names the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dinogrl.errors import RecipeError, did_you_mean, in_one_line


class Section(BaseModel):
    """One section of settings. Frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


S = TypeVar("S", bound=Section)


def parse(kind: type[S], values: dict[str, Any], source: str) -> S:
    """Make a section of ``kind`` from plain values.

    Raises :class:`RecipeError` that lists every problem at once, each with its dotted key; an unknown key names the nearest one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_describe(kind, problem) for problem in error.errors()]
        raise RecipeError(f"{source}: {len(lines)} problem(s): " + "; ".join(lines)) from error


def _describe(kind: type[Section], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(kind, location[:-1])
        return f"unknown key {key!r}{did_you_mean(location[-1], known)} (known here: {', '.join(sorted(known))})"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    given = f", given {problem['input']!r}" if not isinstance(problem["input"], dict) else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}{given}" if key else message


def _fields_at(kind: type[Section], path: list[str]) -> list[str]:
    """Field names of the section that ``path`` leads to, or of ``kind`` where the path leads nowhere."""
    for part in path:
        field = kind.model_fields.get(part)
        if field is None:
            continue  # pydantic puts the name of a union's branch into the path; it is no field
        inner = next((t for t in _types_of(field.annotation) if isinstance(t, type) and issubclass(t, Section)), None)
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)


def _types_of(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(found for argument in arguments for found in _types_of(argument))]


_NO_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""Beside its own errors the reader lets through Python's: of a 13th month, of 5000 digits, of 1000 brackets."""


class _Reader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice in one mapping is an error: the first value would be lost in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        written: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in written:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            written.add(key.value)
        return node


def _values(text: str) -> Any:
    return yaml.load(text, Loader=_Reader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises :class:`RecipeError` for a missing, unreadable or non-mapping file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path}: {error}; give the path of a YAML file") from error
    try:
        values = _values(text)
    except _NO_YAML as error:
        raise RecipeError(f"{path} is not valid YAML: {in_one_line(error, 300)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}")
    return values


def dump_yaml(values: dict[str, Any]) -> str:
    """YAML text of plain values, keys in their given order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``, section by section; a value that is no mapping (``null`` too) replaces the whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def assignments(texts: list[str]) -> dict[str, Any]:
    """Turn ``["training.epochs=3", "model.gait=null"]`` into nested values; each value is read as YAML."""
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"cannot read {text!r}: write KEY=VALUE, as in training.epochs=3")
        try:
            nested: Any = _values(value)
        except _NO_YAML as error:
            raise RecipeError(f"{in_one_line(repr(text), 120)}: the value is not valid YAML") from error
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = merge(values, nested)
    return values
