"""Run a trained network over a loader and collect one row a tracklet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from dinogrl import checkpoints
from dinogrl.data.loaders import dead_workers_named
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.errors import DataError
from dinogrl.records import ClipBatch, Embeddings, ModelOutput, Tracklet

SHOWN_FRAMES = 6


def extract(
    network: nn.Module,
    batches: Iterable[ClipBatch],
    device: torch.device | str,
    *,
    tracklets: Sequence[Tracklet] = (),
    fingerprint: str | None = None,
    bfloat16: bool = False,
    feature_cache: FeatureCache | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Embeddings:
    """Embed every clip: parts (N,P,D) float32 in the loader's order.

    ``network`` is put in evaluation mode and left there. ``tracklets``, in the same order, give the frames that pictures show.
    ``bfloat16`` runs the network under autocast. ``feature_cache`` spares it frozen features that were computed before.
    ``on_progress`` is told the number of clips done. Raises :class:`DataError` where a vector is not finite, naming its tracklet.
    """
    network.eval().to(device)
    kind = torch.device(device).type
    rows: list[np.ndarray] = []
    names: list[str] = []
    labels: list[torch.Tensor] = []  # (3,B): identity, camera, modality
    serving = nullcontext() if feature_cache is None else feature_cache.serving(network)
    # no_grad and not inference_mode: what a module keeps from here (a position table) may serve training afterwards.
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=bfloat16), serving, dead_workers_named():
        for batch in batches:
            moved = batch.to(device)
            output: ModelOutput = network(*moved.inputs)
            vectors = output.embedding.float().cpu().numpy()
            broken = ~np.isfinite(vectors).all(axis=(1, 2))
            if broken.any():
                which = ", ".join(batch.tracklet_ids[i] for i in np.flatnonzero(broken))
                raise DataError(f"the network gives vectors that are not finite for tracklets {which}")
            rows.append(vectors)
            names += batch.tracklet_ids
            labels.append(torch.stack([batch.identity, batch.camera, batch.modality]))
            if on_progress is not None:
                on_progress(len(names))
    if not rows:
        raise DataError("there are no tracklets to embed; see `dinogrl check`")
    identities, cameras, modalities = torch.cat(labels, dim=1).numpy()
    return Embeddings(
        parts=np.concatenate(rows),
        tracklet_ids=names,
        identities=identities,
        cameras=cameras,
        modalities=modalities,
        fingerprint=fingerprint or checkpoints.fingerprint(network.state_dict()),
        frames=[shown_frames(tracklet) for tracklet in tracklets],
    )


def shown_frames(tracklet: Tracklet, count: int = SHOWN_FRAMES) -> list[str]:
    """Paths of up to ``count`` frames, evenly over the tracklet."""
    chosen = np.linspace(0, len(tracklet.frames), min(count, len(tracklet.frames)), endpoint=False).astype(int)
    return [str(tracklet.path(int(index))) for index in chosen]
