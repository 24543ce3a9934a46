"""Which runs a table needs: one for every different resolved recipe, dataset and seed, in a folder named by their digest.

Rows that come to the same network on the same data share their runs, within a table and between tables.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinogrl.data.masks import CARD
from dinogrl.errors import RecipeError
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.records import Dataset, Tracklet
from dinogrl.reproduce.tables import Row, Table

# What a run is called and how it is carried out, not what it learns.
_CIRCUMSTANCES = {("name",), ("preset",), ("seed",), ("data", "workers")} | {
    ("training", key) for key in ("device", "compile", "recompute", "checkpoint_minutes")
}


@dataclass(frozen=True)
class Run:
    """One training and its evaluation. ``words`` are what follows ``dinogrl train``; equal runs have equal folders."""

    folder: Path
    recipe: Recipe = field(compare=False)
    words: tuple[str, ...] = field(compare=False)

    def commands(self, data: Path) -> list[str]:
        """The same by hand."""
        train = shlex.join(["dinogrl", "train", *self.words, "--data", str(data), "--out", str(self.folder), "--resume"])
        return [train, shlex.join(["dinogrl", "evaluate", str(self.folder / "model.safetensors"), "--data", str(data)])]


@dataclass(frozen=True)
class Line:
    """A row and its runs, one a seed; none where it cannot be run, and ``lacking`` says why."""

    row: Row
    label: str
    runs: tuple[Run, ...]
    lacking: str = ""


@dataclass(frozen=True)
class Settings:
    """What the user chose for all rows. ``overrides`` are laid upon the base recipe before a row's own, which therefore win."""

    out: Path
    seeds: int = 1
    epochs: int | None = None
    recipe: str | None = None
    overrides: tuple[str, ...] = ()


def plan_table(name: str, table: Table, settings: Settings, fingerprint: str, dataset: Dataset) -> list[Line]:
    """The lines of a table with their runs on a dataset, of which ``fingerprint`` is the digest.

    Raises :class:`RecipeError` for a row that the base recipe cannot take.
    """
    base = settings.recipe or table.recipe
    as_published = table.protocol is not None and dataset.name == table.published and not dataset.simulated
    common = [*([f"evaluation.protocol={table.protocol}"] if as_published else []), *base_overrides(settings)]
    granularities = _granularities(base, common)
    lines = []
    for row in table.all_rows():
        if row.granularities is not None and row.granularities > len(granularities):
            continue
        kept = granularities[: row.granularities] if row.granularities is not None else ()
        label = row.label or ", ".join(map(str, kept))
        learned_from = fingerprint
        own = [*row.overrides, *([f"model.enhancement.granularities={list(kept)}"] if kept else [])]
        if row.masks is not None and (dataset.root / row.masks).is_dir():
            own += ["model.gait.silhouette=masks", f"data.masks={json.dumps(row.masks)}"]
            learned_from += _maker(dataset.root / row.masks)
        elif row.masks is not None and row.without_masks is None:
            lines.append(Line(row, label, (), f"no masks at {dataset.root / row.masks}"))
            continue
        else:
            own += row.without_masks or ()
        lines.append(Line(row, label, _runs(f"{name} {label}", base, [*common, *own], settings, learned_from)))
    if not lines:
        raise RecipeError(f"{name}: recipe {base} has no enhancement, so none of its granularities can be left out")
    return lines


def _maker(masks: Path) -> str:
    """Which parser and weights made a folder of masks, where that is written there."""
    card = masks / CARD
    return card.read_text(errors="replace") if card.is_file() else ""


def base_overrides(settings: Settings) -> list[str]:
    """What is laid upon the base recipe for every row."""
    epochs = [] if settings.epochs is None else [f"training.epochs={settings.epochs}"]
    return ["data.layout=auto", *settings.overrides, *epochs]


def _granularities(base: str, overrides: Sequence[str]) -> tuple[int, ...]:
    enhancement = load_recipe(base, overrides).model.enhancement
    return () if enhancement is None else enhancement.granularities


def _runs(name: str, base: str, overrides: Sequence[str], settings: Settings, fingerprint: str) -> tuple[Run, ...]:
    first = load_recipe(base, overrides).seed
    runs = []
    for seed in range(first, first + settings.seeds):
        words = (base, *overrides, f"seed={seed}", f"name={json.dumps(name)}")
        recipe = load_recipe(words[0], words[1:])
        folder = settings.out / f"{Path(base).stem}-{recipe_digest(recipe, fingerprint)}-seed{seed}"
        runs.append(Run(folder, recipe, words))
    return tuple(runs)


def distinct_runs(lines: Sequence[Line]) -> list[Run]:
    """Every run once, in the order of the lines, all lines' first seeds first: a table soon has a figure in every row."""
    most = max((len(line.runs) for line in lines), default=0)
    return list(dict.fromkeys(line.runs[seed] for seed in range(most) for line in lines if seed < len(line.runs)))


def recipe_digest(recipe: Recipe, fingerprint: str) -> str:
    """10 hex digits of all that a run learns from, but for its seed: the resolved recipe, defaults too, and the data."""
    values = recipe.model_dump(mode="json")
    for path in _CIRCUMSTANCES:
        _drop(values, path)
    text = json.dumps([values, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _drop(values: dict[str, Any], path: tuple[str, ...]) -> None:
    for key in path[:-1]:
        values = values.get(key, {})
    values.pop(path[-1], None)


def data_fingerprint(dataset: Dataset, sampled: int = 100) -> str:
    """16 hex digits of a dataset: every tracklet with its place in the lists, and the size in bytes of some of the frames.

    It does not depend on where the dataset lies. No frame is read.
    """
    digest = hashlib.sha256(dataset.name.encode())
    for part in (dataset.train, dataset.query, dataset.gallery):
        for tracklet in part:
            digest.update(_written(tracklet).encode())
    everyone = [*dataset.train, *dataset.query, *dataset.gallery]
    for tracklet in everyone[:: max(1, len(everyone) // sampled)]:
        path = tracklet.path(0)
        digest.update(str(path.stat().st_size if path.is_file() else -1).encode())
    return digest.hexdigest()[:16]


def _written(t: Tracklet) -> str:
    return json.dumps([t.id, t.identity, t.camera, int(t.modality), len(t.frames), t.frames[0], t.frames[-1]])
