"""Embeddings on disk: whatever else lies in the file is one clear error, with asserts and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinogrl import checkpoints
from dinogrl.embedding.archive import KIND, load_embeddings, save_embeddings
from dinogrl.errors import CheckpointError
from dinogrl.records import Embeddings

ROWS = 3
SAVED = Embeddings(
    parts=np.random.default_rng(0).normal(size=(ROWS, 2, 4)).astype(np.float32),
    tracklet_ids=["a", "b", "c"],
    identities=np.arange(ROWS),
    cameras=np.arange(ROWS),
    modalities=np.array([0, 1, 0]),
    fingerprint="f" * 16,
    frames=[["1.jpg"], ["2.jpg"], []],
)


def names(content: Any) -> torch.Tensor:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


IDS = {"tracklet_ids": SAVED.tracklet_ids, "frames": SAVED.frames}
VECTORS = torch.from_numpy(SAVED.parts)
BROKEN = {
    "names are a list": {"names": names([])},
    "names are missing": {"names": names({})},
    "names are a number": {"names": names({"tracklet_ids": 5, "frames": 5})},
    "names are numbers": {"names": names({**IDS, "tracklet_ids": [1, 2, 3]})},
    "names are too few": {"names": names({**IDS, "tracklet_ids": ["a"]})},
    "names are nested too deeply": {"names": names(b"[" * 100_000)},
    "frames are too few": {"names": names({**IDS, "frames": [[]]})},
    "frames are numbers": {"names": names({**IDS, "frames": [[1], [2], [3]]})},
    "frames are letters": {"names": names({**IDS, "frames": ["x", "y", "z"]})},
    "flat vectors": {"parts": VECTORS.flatten(1)},
    "one number": {"parts": torch.tensor(1.0)},
    "too few vectors": {"parts": VECTORS[:2]},
    "vectors of whole numbers": {"parts": VECTORS.long()},
    "complex vectors": {"parts": VECTORS.to(torch.complex64)},
    "broken identities": {"identities": torch.tensor([0.0, 0.5, 1.0])},
    "too few identities": {"identities": torch.tensor([0])},
    "a column of cameras": {"cameras": torch.zeros(ROWS, 1, dtype=torch.int64)},
    "one name of two people": {"names": names({**IDS, "tracklet_ids": ["a", "b", "a"], "frames": []})},
    "one name of other frames": {
        "names": names({"tracklet_ids": ["a", "b", "a"], "frames": [["1.jpg"], [], ["2.jpg"]]}),
        **{label: torch.zeros(ROWS, dtype=torch.int64) for label in ("identities", "cameras", "modalities")},
    },
    "an unknown modality": {"modalities": torch.tensor([0, 1, 7])},
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("fault", BROKEN)
def test_what_was_never_written_is_one_clear_error(fault: str, mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    tensors, facts = checkpoints.load(path, KIND)
    checkpoints.save(path, {**tensors, **BROKEN[fault]}, KIND, facts)
    with pytest.raises(CheckpointError, match=r"query\.safetensors.*embed again") as caught:
        load_embeddings(path, mapped=mapped)
    assert "\n" not in str(caught.value)


def test_mapped_vectors_are_the_same_and_stay_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    loaded, mapped = load_embeddings(str(path)), load_embeddings(str(path), mapped=True)
    assert isinstance(mapped.parts, np.memmap) and not mapped.parts.flags.writeable
    for found in (loaded, mapped):
        np.testing.assert_array_equal(found.parts, SAVED.parts)
        assert (found.tracklet_ids, found.frames, found.fingerprint) == (SAVED.tracklet_ids, SAVED.frames, SAVED.fingerprint)


def test_vectors_in_half_precision_are_read_in_full(tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    tensors, facts = checkpoints.load(path, KIND)
    checkpoints.save(path, {**tensors, "parts": VECTORS.half()}, KIND, facts)
    parts = load_embeddings(path).parts
    assert parts.dtype == np.float32
    np.testing.assert_array_equal(parts, SAVED.parts.astype(np.float16))
    with pytest.raises(CheckpointError, match="are F16, expected F32; embed again"):
        load_embeddings(path, mapped=True)


@pytest.mark.parametrize(("mapped", "said"), [(True, "holds no part vectors; embed again"), (False, "1 missing: parts")])
def test_a_file_without_vectors_is_told(mapped: bool, said: str, tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    tensors, facts = checkpoints.load(path, KIND)
    checkpoints.save(path, {name: tensor for name, tensor in tensors.items() if name != "parts"}, KIND, facts)
    with pytest.raises(CheckpointError, match=said):
        load_embeddings(path, mapped=mapped)


@pytest.mark.parametrize("facts", [{}, {"fingerprint": 3}])
def test_vectors_of_no_model_are_refused(facts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    tensors, _ = checkpoints.load(path, KIND)
    checkpoints.save(path, tensors, KIND, facts)
    with pytest.raises(CheckpointError, match="which model made it"):
        load_embeddings(path)


def test_frames_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, SAVED)
    tensors, facts = checkpoints.load(path, KIND)
    checkpoints.save(path, {**tensors, "names": names({**IDS, "frames": []})}, KIND, facts)
    assert load_embeddings(path).frames == []


def test_a_tracklet_may_stand_twice(tmp_path: Path) -> None:
    """As in the halves of a temporal re-ranking, where a query is in the gallery too."""
    twice = SAVED.take(np.array([0, 1, 0]))
    save_embeddings(tmp_path / "half.safetensors", twice)
    assert load_embeddings(tmp_path / "half.safetensors").tracklet_ids == ["a", "b", "a"]
