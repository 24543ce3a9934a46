"""A run folder, read back: scores, log, recipe, embeddings and silhouettes, as far as they are there."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dinogrl.embedding.archive import load_embeddings
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import Evaluation, evaluate
from dinogrl.evaluation.rerank import named_reranker
from dinogrl.evaluation.results import Metrics, read_metrics

MAPS = ("silhouette", "gait_prior", "appearance_prior", "enriched")


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
    """One run. Only ``metrics`` must be there; of the rest, what the folder does not hold is empty or None."""

    folder: Path
    metrics: Metrics
    recipe: str = ""
    log: dict[str, np.ndarray] = field(default_factory=dict)
    silhouettes: Silhouettes | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.metrics.model

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Rankings and distances, made anew from the embeddings in the folder; None where it holds none.

        k-reciprocal re-ranking is made anew too, temporal re-ranking is not (its halves are not kept).
        """
        paths = [self.folder / f"{side}.safetensors" for side in ("query", "gallery")]
        if not all(path.is_file() for path in paths):
            return None
        query, gallery = (load_embeddings(path) for path in paths)
        return evaluate(query, gallery, self.metrics.protocol, self.metrics.distance, rerank=named_reranker(self.metrics.options))


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises :class:`DataError`, one line, where ``metrics.json`` is missing or a file in it is broken."""
    if not folder.is_dir():
        raise DataError(f"there is no run folder {folder}; give the folder that `dinogrl train` or `dinogrl evaluate` wrote")
    recipe = folder / "recipe.yaml"
    return Run(
        folder,
        read_metrics(folder / "metrics.json"),
        recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        _read_log(folder / "log.csv"),
        _read_silhouettes(folder / "silhouettes.npz"),
    )


def _read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of ``log.csv``; a last row that a stopped run left unfinished is passed over, other broken rows are an error."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        return {}
    names, body = rows[0], rows[1:]
    if len(body[-1]) != len(names):
        body.pop()
    try:
        table = np.array([[float(value) for value in row] for row in body], dtype=np.float64).reshape(len(body), len(names))
    except ValueError as error:
        raise DataError(f"{path} has a row that does not fit its header ({error}); remove it, or the file") from error
    return {name: table[:, i] for i, name in enumerate(names)}


def _read_silhouettes(path: Path) -> Silhouettes | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            maps = {name: stored[name].astype(np.float32) for name in MAPS if name in stored}
            return Silhouettes(stored["frames"], stored["modality"], [str(name) for name in stored["names"]], maps)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{path} is broken or no file of silhouettes ({error}); evaluate again") from error
