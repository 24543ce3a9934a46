"""``metrics.json``: the result of one evaluation on disk, written whole or not at all, checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dinogrl.checkpoints import write_atomically
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import Evaluation, Outcome
from dinogrl.runtime import versions

Rate = Annotated[float, Field(ge=0, le=1)]
Option = str | int | float | bool
WORDS: dict[str, Callable[[str, Option], str]] = {
    "flip": lambda name, value: "flip",
    "clips": lambda name, value: "all frames" if value == "all" else f"{value} clips",
    "broken_frames": lambda name, value: "broken frames replaced" if value == "neighbour" else "no broken frames",
    "rerank": lambda name, value: f"{str(value).removesuffix('_k_reciprocal').replace('_', '-')} re-ranking",
}
"""Options in a few words; the numbers of a re-ranking stay in the file."""


class DirectionMetrics(BaseModel):
    """Scores of one direction, rates in 0..1, and how many tracklets stood on each side."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    rank1: Rate
    rank5: Rate
    rank10: Rate
    rank20: Rate
    mAP: Rate
    mINP: Rate
    queries: int = Field(ge=0)
    """Queries with at least one match; the rates are means over these."""
    gallery: int = Field(ge=0)
    skipped: int = Field(0, ge=0)
    """Queries without a match in the gallery."""
    identities: int = Field(0, ge=0)
    """People among the queries of this direction."""
    confidence: dict[str, tuple[Rate, Rate]] = {}
    """95 % intervals of rank1, mAP and mINP over redrawn query identities."""


class Metrics(BaseModel):
    """One evaluation: what was scored, on what, under which protocol, and the scores."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    dataset: str
    protocol: str
    model: str
    """Name of the recipe."""
    directions: dict[str, DirectionMetrics] = Field(min_length=1)
    frames_per_clip: int = Field(ge=1)
    people: int = Field(0, ge=0)
    """People in the whole test: where each asks by one modality only, more than ask in either direction. 0: not counted."""
    versions: dict[str, str] = {}
    distance: str = "mean_part"
    selection: str | dict[str, Any] = "last"
    """How the weights were chosen (last epoch, or held-out training identities; never the test set), or more such facts."""
    fingerprint: str = ""
    """Of the model's weights."""
    options: dict[str, Option] = {}
    """What was done at test time beyond the protocol (re-ranking, flips ...)."""

    @property
    def title(self) -> str:
        """The recipe's name and, so that no number goes without it, what was done beyond the protocol."""
        done = {name: value for name, value in self.options.items() if value is not False and not name.startswith("rerank_")}
        names = [*(name for name in WORDS if name in done), *(name for name in done if name not in WORDS)]
        return " + ".join([self.model, *(WORDS.get(name, "{}={}".format)(name, done[name]) for name in names)])


def write_metrics(
    path: Path,
    evaluation: Evaluation,
    *,
    dataset: str,
    model: str,
    frames_per_clip: int,
    selection: str | dict[str, Any] = "last",
    options: dict[str, Option] | None = None,
) -> Metrics:
    """Write ``metrics.json`` in one piece, and return what was written.

    ``model``: the recipe's name. ``selection``: how the weights were chosen. ``options``: what was done at test time
    beyond what the evaluation knows of itself (re-ranking).
    """
    metrics = Metrics(
        dataset=dataset,
        protocol=evaluation.protocol.name,
        model=model,
        directions={name: _direction(outcome) for name, outcome in evaluation.directions.items()},
        frames_per_clip=frames_per_clip,
        people=len(evaluation.people),
        versions=versions(),
        distance=evaluation.distance,
        selection=selection,
        fingerprint=next(iter(evaluation.directions.values())).query.fingerprint,
        options={**evaluation.options, **(options or {})},
    )
    write_atomically(path, (json.dumps(metrics.model_dump(mode="json"), indent=2) + "\n").encode())
    return metrics


def read_metrics(path: str | Path) -> Metrics:
    """Read ``metrics.json``. Raises :class:`DataError`, one line, for a missing, broken or incomplete file."""
    path = Path(path)
    try:
        return Metrics.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(_lacking(path.parent, path.name)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; give a folder that holds the result of an evaluation") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:4])
        raise DataError(f"{path} is not the result of an evaluation: {problems}") from error
    except (ValueError, RecursionError) as error:  # Python's own too: of 5000 digits, of 10,000 brackets
        raise DataError(f"{path} is not valid JSON ({error}); evaluate again") from error


def _lacking(folder: Path, name: str) -> str:
    """Why there are no scores in a folder, and the command that makes them."""
    if not folder.is_dir():
        return f"there is no run folder {folder}; give the folder that `dinogrl train` or `dinogrl evaluate` wrote"
    if (folder / "model.safetensors").is_file():
        return f"the run {folder} was never evaluated (no {name} in it); first: dinogrl evaluate {folder} --data DIR"
    if (folder / "recipe.yaml").is_file():
        return f"the run {folder} is not trained to its end; first: dinogrl train ... --out {folder} --resume; then evaluate it"
    return f"no {name} in {folder}, so it is no run that was evaluated; make one by: dinogrl evaluate CHECKPOINT --out {folder}"


def _direction(outcome: Outcome) -> DirectionMetrics:
    return DirectionMetrics(
        **outcome.scores.as_dict(),
        identities=len(set(outcome.query.identities.tolist())),
        confidence={name: (interval.low, interval.high) for name, interval in outcome.intervals.items()},
    )
