"""A run folder, read back: scores, log, recipe, embeddings and silhouettes, as far as they are there."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dinogrl.embedding.archive import load_embeddings
from dinogrl.errors import DataError, DinogrlError
from dinogrl.evaluation.evaluate import Evaluation, evaluate
from dinogrl.evaluation.rerank import Reranker, named_reranker
from dinogrl.evaluation.results import Metrics, read_metrics
from dinogrl.records import Embeddings

MAPS = ("silhouette", "gait_prior", "appearance_prior", "enriched")
SIDES = ("query.safetensors", "gallery.safetensors")
HALVES = ("first_half.safetensors", "second_half.safetensors")


@dataclass(frozen=True)
class Silhouettes:
    """n clips as the gait stream saw them: ``frames`` (n,T,H,W,3) uint8, ``modality`` (n,), ``names``; ``maps`` by name, each
    (n,T,h,w) or (n,T,C,h,w)."""

    frames: np.ndarray
    modality: np.ndarray
    names: list[str]
    maps: dict[str, np.ndarray]


@dataclass
class Run:
    """One run, under a ``name`` that no other run of the report has, drawn in the colour number ``index``. Only ``metrics`` must be
    there; of the rest, what the folder does not hold is empty or None."""

    folder: Path
    metrics: Metrics
    name: str
    recipe: str = ""
    log: dict[str, np.ndarray] = field(default_factory=dict)
    silhouettes: Silhouettes | None = None
    index: int = 0

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Rankings and distances, made anew from the embeddings in the folder, re-ranked as the result says; None where it holds
        none. What could not be done as the result says is in :attr:`remarks`. Raises :class:`DataError`, naming the folder, for
        embeddings that cannot be ranked as its metrics.json says."""
        if not _all_there(self.folder, SIDES):
            return None
        query, gallery = (_with_frames(load_embeddings(self.folder / name), self.folder) for name in SIDES)
        try:
            return evaluate(query, gallery, self.metrics.protocol, self.metrics.distance, rerank=self._reranker())
        except DinogrlError as error:
            raise DataError(f"the run {self.folder} cannot be ranked again: {error}") from error

    @cached_property
    def remarks(self) -> list[str]:
        """What is missing in this folder, and what the page shows otherwise than the scores were made: a sentence each."""
        evaluation, said = self.evaluation, []
        if evaluation is None:
            missing = " and ".join(name for name in SIDES if not (self.folder / name).is_file())
            said.append(f"{missing} missing: no strips, distances, curves, map or camera pairs; evaluate again")
        elif "rerank" in self.metrics.options and not evaluation.options:
            said.append(f"{HALVES[0]} and {HALVES[1]} missing: strips, distances and curves are those before re-ranking")
        elif self._disagrees(evaluation):
            said.append("the embeddings in the folder give other scores than its metrics.json: evaluate again")
        if evaluation is not None and not _frame_found(evaluation):
            said.append("the frames lie no longer where they were, or were never named: strips are without pictures")
        if not self.log:
            said.append("log.csv missing: no loss curves")
        return said

    def _reranker(self) -> Reranker | None:
        if self.metrics.options.get("rerank") == "temporal_k_reciprocal" and not _all_there(self.folder, HALVES):
            return None
        return named_reranker(self.metrics.options, self._halves)

    def _halves(self) -> tuple[Embeddings, Embeddings]:
        first, second = (load_embeddings(self.folder / name) for name in HALVES)
        return first, second

    def _disagrees(self, evaluation: Evaluation) -> bool:
        made = {name: outcome.scores for name, outcome in evaluation.directions.items()}
        stored = self.metrics.directions
        return made.keys() != stored.keys() or any(abs(made[name].mAP - stored[name].mAP) > 1e-3 for name in made)


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises :class:`DataError`, one line, where ``metrics.json`` is missing or a file in it is broken."""
    inside = sorted(str(path.parent) for path in folder.glob("*/metrics.json"))
    if inside and not (folder / "metrics.json").is_file():
        raise DataError(f"{folder} is no run, but holds {len(inside)}; give {' '.join(inside[:4])}{' ...' if inside[4:] else ''}")
    metrics = read_metrics(folder / "metrics.json")
    recipe = folder / "recipe.yaml"
    return Run(
        folder,
        metrics,
        metrics.title,
        _read_text(recipe) if recipe.is_file() else "",
        _read_log(folder / "log.csv"),
        _read_silhouettes(folder / "silhouettes.npz"),
    )


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders. Runs of one title are told apart by their folders' names or, where these are the same too, by a number."""
    runs = [replace(read_run(folder), index=i) for i, folder in enumerate(folders)]
    titles = [run.name for run in runs]
    places = [(run.name, run.folder.resolve().name) for run in runs]
    for run, title, place in zip(runs, titles, places, strict=True):
        if titles.count(title) > 1:
            run.name = f"{title} ({place[1] if places.count(place) == 1 else run.index + 1})"
    return runs


def _all_there(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _with_frames(side: Embeddings, folder: Path) -> Embeddings:
    """Frames that lie no longer where they are named are looked for beside and above the run folder: runs get moved together with
    their data, and reports are made from elsewhere."""
    first = next((names[0] for names in side.frames if names), None)
    if first is None or Path(first).is_file():
        return side
    parts = Path(first).parts
    for base in folder.resolve().parents:
        for cut in range(len(parts) - 1):
            if base.joinpath(*parts[cut:]).is_file():
                moved = [[str(base.joinpath(*Path(name).parts[cut:])) for name in names] for names in side.frames]
                return replace(side, frames=moved)
    return side


def _frame_found(evaluation: Evaluation) -> bool:
    sides = [side for outcome in evaluation.directions.values() for side in (outcome.query, outcome.gallery)]
    return any(Path(names[0]).is_file() for side in sides for names in side.frames[:1] if names)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error}); remove it") from error


def _read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of ``log.csv``; a last row that a stopped run left unfinished is passed over, other broken rows are an error."""
    if not path.is_file():
        return {}
    try:
        rows = list(csv.reader(_read_text(path).splitlines()))
        if len(rows) < 2:
            return {}
        names, body = rows[0], rows[1:]
        if len(body[-1]) != len(names):
            body.pop()
        table = np.array([[float(value) for value in row] for row in body], dtype=np.float64).reshape(len(body), len(names))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} has a row that does not fit its header ({error}); remove it, or the file") from error
    return {name: table[:, i] for i, name in enumerate(names)}


def _read_silhouettes(path: Path) -> Silhouettes | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            maps = {name: stored[name].astype(np.float32) for name in MAPS if name in stored}
            read = Silhouettes(stored["frames"], stored["modality"], [str(name) for name in stored["names"]], maps)
        lengths = {len(array) for array in (read.frames, read.modality, read.names, *maps.values())}
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, OSError, EOFError) as error:  # TypeError: one number
        raise DataError(f"{path} is broken or no file of silhouettes; evaluate again") from error
    if len(lengths) != 1 or read.frames.ndim != 5:
        raise DataError(f"{path} is broken: its arrays are of different lengths ({sorted(lengths)}); evaluate again")
    return read
