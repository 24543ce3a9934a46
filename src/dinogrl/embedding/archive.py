"""Embeddings on disk: one safetensors file, nothing pickled; the part vectors can stay there and be read as they are needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError
from dinogrl.records import Embeddings

KIND = "embeddings"
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


def load_embeddings(path: Path, *, mapped: bool = False) -> Embeddings:
    """Read what :func:`save_embeddings` wrote. ``mapped``: ``parts`` stays on disk, as a read-only ``numpy.memmap``.

    Raises :class:`CheckpointError` for a file that is missing, truncated or holds something else.
    """
    tensors, facts = checkpoints.load(path, KIND, leave=("parts",) if mapped else ())
    expected = ("identities", "cameras", "modalities", NAMES)
    checkpoints.expect_keys(tensors, expected if mapped else ("parts", *expected), str(path))
    try:
        names = json.loads(tensors[NAMES].numpy().tobytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: the tracklets' names in it are broken; embed again") from error
    return Embeddings(
        parts=_map_parts(path) if mapped else tensors["parts"].float().numpy(),
        tracklet_ids=names["tracklet_ids"],
        identities=tensors["identities"].numpy(),
        cameras=tensors["cameras"].numpy(),
        modalities=tensors["modalities"].numpy(),
        fingerprint=facts["fingerprint"],
        frames=names["frames"],
    )


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
