"""What bfloat16 costs: loss curves of training in it and in float32, and scores of one model embedded in either.

    python benchmarks/precision.py --steps 200 --seeds 1 2 3 --folder /tmp/precision

The demo's small network is trained on a simulated world, for every seed in both precisions. The curves are means over windows of
steps; the bar for "equal" is how far two seeds of float32 lie apart. Then the models trained in float32 embed the test tracklets
of a larger world in both precisions. The last line is the result, as JSON.

    python benchmarks/precision.py --models runs/demo/dinogrl/model.safetensors --folder /tmp/precision

embeds that world by models that are there, and trains nothing. "query float32" is a float32 query in a gallery of bfloat16.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinogrl import runtime
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.extract import extract
from dinogrl.evaluation.evaluate import Evaluation, evaluate
from dinogrl.models.archive import load_model
from dinogrl.recipes import load_recipe
from dinogrl.records import Embeddings, Tracklet
from dinogrl.reproduce.demo import DEMO_WORLD
from dinogrl.simulation.simulate import simulate
from dinogrl.training.run import train

PRECISIONS = ("float32", "bfloat16")
WINDOW = 20
CPU = torch.device("cpu")


def curve(folder: Path, world: Path, seed: int, precision: str, steps: int) -> np.ndarray:
    """Train, or read what was trained before: the total loss, a mean a window of steps."""
    out = folder / f"seed{seed}_{precision}"
    changes = [f"seed={seed}", f"training.precision={precision}", "training.epochs=1", f"training.steps_per_epoch={steps}"]
    train(load_recipe("demo_dinogrl", changes), world, out, resume=(out / "recipe.yaml").is_file())
    with (out / "log.csv").open(encoding="utf-8") as file:
        totals = np.array([float(row["total"]) for row in csv.DictReader(file)])
    return totals[: len(totals) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)


def scores(model: Path, world: Path) -> dict[str, dict[str, float]]:
    """rank-1 and mAP of both directions, in per cent, where query and gallery are embedded in either precision, and in one each."""
    trained, dataset = load_model(model), open_dataset(world)

    def embed(tracklets: Iterable[Tracklet], precision: str) -> Embeddings:
        loader = evaluation_loader(list(tracklets), trained.recipe.data, sampling="segments", batch=32)
        bfloat16 = precision == "bfloat16"
        return extract(trained.network, loader, CPU, bfloat16=bfloat16, fingerprint=trained.fingerprint)

    queries, galleries = ({p: embed(side, p) for p in PRECISIONS} for side in (dataset.query, dataset.gallery))
    pairs = {"float32": ("float32", "float32"), "bfloat16": ("bfloat16", "bfloat16"), "query float32": ("float32", "bfloat16")}
    found = {
        name: evaluate(queries[query], galleries[gallery], "hitsz-vcm", confidence=False)
        for name, (query, gallery) in pairs.items()
    }
    return {name: _in_per_cent(evaluation) for name, evaluation in found.items()}


def _in_per_cent(evaluation: Evaluation) -> dict[str, float]:
    named = ((name, direction.scores) for name, direction in evaluation.directions.items())
    return {f"{name} {key}": 100 * value for name, s in named for key, value in (("rank1", s.rank(1)), ("mAP", s.mAP))}


def score_models(models: Mapping[str, Path], world: Path) -> dict[str, Any]:
    """Scores of every model in both precisions and mixed, and how far from float32 these are at most."""
    found = {name: scores(model, world) for name, model in models.items()}
    kinds = next(iter(found.values()))
    largest = {
        kind: max(abs(of["float32"][key] - value) for of in found.values() for key, value in of[kind].items())
        for kind in kinds
        if kind != "float32"
    }
    return {"scores": found, "largest difference of a score from float32, points": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--test-identities", type=int, default=200)
    parser.add_argument("--folder", type=Path, required=True, help="everything lies here; what is there already is not done again")
    parser.add_argument("--models", type=Path, nargs="+", help="score these in both precisions, and train nothing")
    given = parser.parse_args()

    world, test = given.folder / "world", given.folder / "test"
    larger = replace(DEMO_WORLD, identities=given.test_identities + 20, test_identities=given.test_identities, seed=99)
    if not test.is_dir():
        simulate(test, larger)
    sizes = [len(open_dataset(test).query), len(open_dataset(test).gallery)]
    facts = {"machine": runtime.device_name(CPU), "date": datetime.now(UTC).date().isoformat(), "queries and gallery": sizes}
    if given.models:
        print(json.dumps({**score_models({str(model): model for model in given.models}, test), **facts}))
        return
    if not world.is_dir():
        simulate(world, DEMO_WORLD)
    curves = {p: np.stack([curve(given.folder, world, seed, p, given.steps) for seed in given.seeds]) for p in PRECISIONS}
    exact, short = (curves[p] for p in PRECISIONS)
    result = {
        "steps": given.steps,
        "seeds": given.seeds,
        "mean loss a window, float32": exact.mean(0).round(4).tolist(),
        "mean loss a window, bfloat16": short.mean(0).round(4).tolist(),
        "largest difference of one seed's two precisions": float(np.abs(exact - short).max()),
        "largest difference of two seeds of float32": float((exact.max(0) - exact.min(0)).max()),
        "largest difference of the means": float(np.abs(exact.mean(0) - short.mean(0)).max()),
    }
    models = {str(seed): given.folder / f"seed{seed}_float32" / "model.safetensors" for seed in given.seeds}
    print(json.dumps({**result, **score_models(models, test), **facts}))


if __name__ == "__main__":
    main()
