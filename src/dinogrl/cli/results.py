"""Commands that use a trained model: score it, embed a dataset by it, average scores over a dataset's splits."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dinogrl.cli.feature_cache import CacheFolder, CacheSize, open_cache, tell_cache
from dinogrl.cli.screen import progress, say, score_table
from dinogrl.recipes.schema import BrokenFrames

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A model.safetensors of dinogrl train or dinogrl convert, or the run's folder."),
]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the dataset.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Broken = Annotated[
    BrokenFrames | None,
    typer.Option(
        "--broken-frames", help="An unreadable frame: stop, or take its neighbour; as the model's recipe says where not given."
    ),
]


class ComputedIn(StrEnum):
    """Precision of the network's arithmetic."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"


Compute = Annotated[
    ComputedIn,
    typer.Option(help="What the network computes in; bfloat16 takes half the time where the device has it, auto sees to that."),
]


class Split(StrEnum):
    """Part of a dataset."""

    test = "test"
    train = "train"


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(evaluate)
    app.command()(embed)
    app.command()(average)


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    protocol: Annotated[str, typer.Option(help="Named protocol; auto takes the recipe's, or the dataset's own.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the results; the checkpoint's own where not given.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores to this file too.")] = None,
    layout: Annotated[str, typer.Option(help="auto, hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm or folder.")] = "auto",
    flip: Annotated[bool, typer.Option("--flip", help="Average each clip with its mirror image.")] = False,
    clips: Annotated[str, typer.Option(help="Clips of each tracklet to average: a number, or all for every frame.")] = "1",
    rerank: Annotated[str, typer.Option(help="none, k_reciprocal or temporal.")] = "none",
    broken_frames: Broken = None,
    compute: Annotated[
        ComputedIn | None, typer.Option(help="What the network computes in; as the model's recipe says where not given.")
    ] = None,
    feature_cache: CacheFolder = None,
    feature_cache_size: CacheSize = None,
    device: Device = "auto",
) -> None:
    """Score a model in both directions: rank-k, mAP and mINP.

    Writes metrics.json, query.safetensors, gallery.safetensors, silhouettes.npz where there is a gait stream, and the two halves'
    embeddings where re-ranking is temporal. What is done otherwise than by protocol and recipe (--flip, --clips, --rerank,
    --broken-frames, --compute) is named in metrics.json.

    Example: dinogrl evaluate runs/dinogrl/model.safetensors --data /data/HITSZ-VCM --json scores.json
    """
    from dinogrl.checkpoints import expect_writable_file, write_atomically
    from dinogrl.embedding.opening import model_file
    from dinogrl.embedding.test_time import Looks
    from dinogrl.training.evaluation_run import evaluate_checkpoint

    folder = out or model_file(checkpoint).parent
    if json is not None:
        expect_writable_file(json, "--json")
    cache = open_cache(feature_cache, feature_cache_size)
    with progress() as tell:
        metrics = evaluate_checkpoint(
            checkpoint,
            data,
            protocol=protocol,
            out=folder,
            layout=layout,
            device=device,
            looks=Looks.of(flip, clips),
            rerank=rerank,
            broken_frames=broken_frames,
            precision=None if compute is None else compute.value,
            feature_cache=cache,
            on_progress=lambda done, total: tell("evaluate", done, total, "tracklets"),
        )
    tell_cache(cache)
    say(score_table(metrics))
    if json is not None:
        write_atomically(json, (folder / "metrics.json").read_bytes())
    say(escape(f"next: dinogrl report {folder}"))


def embed(
    checkpoint: Checkpoint,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (.safetensors).")],
    split: Annotated[Split, typer.Option(help="Which tracklets: the test lists, or the training part.")] = Split.test,
    layout: Annotated[str, typer.Option(help="auto, hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm or folder.")] = "auto",
    broken_frames: Broken = None,
    compute: Compute = ComputedIn.float32,
    feature_cache: CacheFolder = None,
    feature_cache_size: CacheSize = None,
    device: Device = "auto",
) -> None:
    """Write one row of part vectors for every tracklet.

    Example: dinogrl embed runs/dinogrl/model.safetensors --data /data/HITSZ-VCM --out vcm.safetensors
    """
    from dinogrl.embedding.dataset import embed_dataset

    cache = open_cache(feature_cache, feature_cache_size)
    with progress() as tell:
        embeddings = embed_dataset(
            checkpoint,
            data,
            out,
            split=split.value,
            layout=layout,
            device=device,
            broken_frames=broken_frames,
            precision=compute.value,
            feature_cache=cache,
            on_progress=lambda done, total: tell("embed", done, total, "clips"),
        )
    tell_cache(cache)
    rows, parts, width = embeddings.parts.shape
    say(f"[green]{escape(str(out))}[/green]: {rows} tracklets, {parts} parts of {width}, model {embeddings.fingerprint}")


def average(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, one a trial, each with its metrics.json.")],
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the mean scores to this file too.")] = None,
) -> None:
    """Average scores over the trials of a dataset that has several (RegDB: ten models, one a split).

    Example: dinogrl average runs/regdb-1 runs/regdb-2 runs/regdb-3 --json regdb.json
    """
    from dinogrl.checkpoints import write_atomically
    from dinogrl.errors import DinogrlError
    from dinogrl.evaluation.results import read_metrics
    from dinogrl.evaluation.trials import mean_metrics

    for run in runs:
        if runs.count(run) > 1:
            raise DinogrlError(f"{run} is given {runs.count(run)} times; give the run of each trial once")
    metrics = mean_metrics({str(run): read_metrics(run / "metrics.json") for run in runs})
    say(score_table(metrics))
    if json is not None:
        write_atomically(json, (metrics.model_dump_json(indent=2) + "\n").encode())
