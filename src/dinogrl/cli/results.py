"""Commands that use a trained model: score it, embed a dataset by it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dinogrl.cli.screen import progress_bar, say, score_table

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A model.safetensors that dinogrl train or dinogrl convert wrote.")
]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the dataset.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(evaluate)
    app.command()(embed)


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    protocol: Annotated[str, typer.Option(help="Named protocol; auto takes the dataset's own.")] = "auto",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="File for the scores (metrics.json).")] = None,
    device: Device = "auto",
) -> None:
    """Score a model in both directions: rank-k, mAP and mINP.

    Example: dinogrl evaluate runs/dinogrl/model.safetensors --data /data/HITSZ-VCM --json scores.json
    """
    from dinogrl.training.evaluation_run import evaluate_checkpoint

    with progress_bar("evaluating") as advance:
        metrics = evaluate_checkpoint(checkpoint, data, protocol, json=json, device=device, on_progress=advance)
    say(score_table(metrics))


def embed(
    checkpoint: Checkpoint,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (.safetensors).")],
    device: Device = "auto",
) -> None:
    """Write one row of part vectors for every test tracklet.

    Example: dinogrl embed runs/dinogrl/model.safetensors --data /data/HITSZ-VCM --out vcm.safetensors
    """
    from dinogrl.training.evaluation_run import embed_dataset

    with progress_bar("embedding") as advance:
        embeddings = embed_dataset(checkpoint, data, out, device=device, on_progress=advance)
    say(f"[green]{out}[/green]: {len(embeddings)} tracklets, model {embeddings.fingerprint}")
