"""Embeddings on disk: one safetensors file, nothing pickled; the part vectors can stay there and be read as they are needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError
from dinogrl.records import Embeddings, Modality

KIND = "embeddings"
LABELS = ("identities", "cameras", "modalities")
NAMES = "names"  # tensor of bytes, JSON: a header would not hold the names of a very large gallery


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write all of it to one file, in one piece."""
    names = json.dumps({"tracklet_ids": embeddings.tracklet_ids, "frames": embeddings.frames}).encode()
    arrays = {
        "parts": np.ascontiguousarray(embeddings.parts, dtype=np.float32),
        "identities": embeddings.identities.astype(np.int64),
        "cameras": embeddings.cameras.astype(np.int64),
        "modalities": embeddings.modalities.astype(np.int64),
        NAMES: np.frombuffer(names, dtype=np.uint8).copy(),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    checkpoints.save(path, tensors, KIND, {"fingerprint": embeddings.fingerprint})


def load_embeddings(path: str | Path, *, mapped: bool = False) -> Embeddings:
    """Read what :func:`save_embeddings` wrote. ``mapped``: ``parts`` stays on disk, as a read-only ``numpy.memmap``.

    Raises :class:`CheckpointError` for a file that is missing, truncated or holds something else, and for one that gives different
    tracklets the same name.
    """
    path = Path(path)
    tensors, facts = checkpoints.load(path, KIND, leave=("parts",) if mapped else ())
    expected = (*LABELS, NAMES)
    checkpoints.expect_keys(tensors, expected if mapped else ("parts", *expected), str(path))
    tracklet_ids, frames = _names(path, tensors[NAMES])
    if not mapped and not tensors["parts"].is_floating_point():
        raise CheckpointError(f"the part vectors in {path} are {tensors['parts'].dtype}, expected real numbers; embed again")
    parts = _map_parts(path) if mapped else tensors["parts"].float().numpy()
    if parts.ndim != 3 or len(parts) != len(tracklet_ids):
        shape, rows = tuple(parts.shape), len(tracklet_ids)
        raise CheckpointError(f"the part vectors in {path} are {shape}, expected (N,P,D) of {rows} tracklets; embed again")
    for name in LABELS:
        label = tensors[name]
        if label.shape != (len(parts),) or label.dtype != torch.int64:
            found, rows = f"{tuple(label.shape)} of {label.dtype}", len(parts)
            raise CheckpointError(f"the {name} in {path} are {found}, expected ({rows},) of int64; embed again")
    labels = {name: tensors[name].numpy() for name in LABELS}
    if not np.isin(labels["modalities"], list(Modality)).all():
        raise CheckpointError(f"{path} holds modalities other than 0 (visible) and 1 (infrared); embed again")
    if not isinstance(facts.get("fingerprint"), str):
        raise CheckpointError(f"{path} does not say which model made it: its header is broken; embed again")
    embeddings = Embeddings(parts=parts, tracklet_ids=tracklet_ids, **labels, fingerprint=facts["fingerprint"], frames=frames)
    _expect_one_tracklet_a_name(path, embeddings)
    return embeddings


def _expect_one_tracklet_a_name(path: Path, embeddings: Embeddings) -> None:
    """Rows of one name are one tracklet, for whoever looks for it by name; files that were joined may hold another of that name."""
    if len(set(embeddings.tracklet_ids)) == len(embeddings):
        return
    facts = zip(*(getattr(embeddings, name).tolist() for name in LABELS), embeddings.frames or [[]] * len(embeddings), strict=True)
    first: dict[str, tuple[object, ...]] = {}
    other = [id for id, row in zip(embeddings.tracklet_ids, facts, strict=True) if first.setdefault(id, row) != row]
    if other:
        more = f", and {len(set(other)) - 1} more names so" if len(set(other)) > 1 else ""
        raise CheckpointError(f"{path} gives the name {other[0]!r} to different tracklets{more}; rename them, or embed again")


def _names(path: Path, content: torch.Tensor) -> tuple[list[str], list[list[str]]]:
    """Ids of the tracklets and their frames, which may be left out."""
    try:
        stored = json.loads(content.numpy().tobytes())
        tracklet_ids, frames = stored["tracklet_ids"], stored["frames"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the tracklets' names in it are broken; embed again") from error
    whole = _texts(tracklet_ids) and isinstance(frames, list) and all(_texts(names) for names in frames)
    if not whole or len(frames) not in {0, len(tracklet_ids)}:
        raise CheckpointError(f"{path}: the tracklets' names in it are broken; embed again")
    return tracklet_ids, frames


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _map_parts(path: Path) -> np.ndarray:
    """A safetensors file is eight bytes of length, a JSON header of that length, then the tensors' bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length)).get("parts")
    if entry is None:
        raise CheckpointError(f"{path} holds no part vectors; embed again")
    if entry["dtype"] != "F32":
        raise CheckpointError(f"the part vectors in {path} are {entry['dtype']}, expected F32; embed again")
    return np.memmap(path, dtype=np.float32, mode="r", offset=8 + length + entry["data_offsets"][0], shape=tuple(entry["shape"]))
