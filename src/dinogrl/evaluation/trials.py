"""One result from several: a dataset whose numbers are means over models of its own splits (RegDB's ten trials)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dinogrl.errors import DataError
from dinogrl.evaluation.results import DirectionMetrics, Metrics, Option

RATES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
COUNTS = ("queries", "gallery", "skipped", "identities")
_SAME = ("dataset", "protocol", "model", "frames_per_clip", "distance")


def mean_metrics(runs: Mapping[str, Metrics]) -> Metrics:
    """Mean rates, and counts of one trial, of runs by name; ``options["trials"]`` says over how many.

    Raises :class:`DataError` where there are not two runs, where they differ in more than their trial, and where two have the same.
    """
    if len(runs) < 2:
        raise DataError(f"a mean needs two runs at least, {len(runs)} given; give one run a trial")
    (first_name, first), *others = runs.items()
    for name, run in others:
        for field in _SAME:
            ours, theirs = getattr(first, field), getattr(run, field)
            if ours != theirs:
                raise DataError(
                    f"{field} is {ours!r} in {first_name}, {theirs!r} in {name}; give runs that differ in their trial only"
                )
        if _but_trial(run.options) != _but_trial(first.options):
            raise DataError(f"{first_name} and {name} were not scored with the same options; evaluate them alike")
    owner: dict[Option, str] = {}
    for name, run in runs.items():
        if "trial" not in run.options:
            raise DataError(f"{name} names no trial: {run.dataset} has one split; give runs of a dataset that has several")
        other = owner.setdefault(run.options["trial"], name)
        if other != name:
            raise DataError(f"{other} and {name} are both of trial {run.options['trial']}; train each with its own data.trial")
    return first.model_copy(
        update={
            "directions": {name: _mean([run.directions[name] for run in runs.values()]) for name in first.directions},
            "fingerprint": "",
            "options": {**_but_trial(first.options), "trials": len(runs)},
        }
    )


def _but_trial(options: Mapping[str, Option]) -> dict[str, Option]:
    return {name: value for name, value in options.items() if name != "trial"}


def _mean(directions: Sequence[DirectionMetrics]) -> DirectionMetrics:
    rates = {name: float(np.mean([getattr(direction, name) for direction in directions])) for name in RATES}
    counts = {name: round(float(np.mean([getattr(direction, name) for direction in directions]))) for name in COUNTS}
    return DirectionMetrics.model_validate({**rates, **counts})
