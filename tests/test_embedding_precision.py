"""What the network computes in is the user's choice, wherever vectors are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dinogrl import runtime
from dinogrl.cli import main as cli
from dinogrl.embedding.archive import load_embeddings
from dinogrl.embedding.embedder import Embedder
from dinogrl.errors import CheckpointError, UnknownNameError
from dinogrl.gallery import Gallery
from dinogrl.models.archive import load_model, save_model
from tiny_exports import PICTURES, SETTINGS, tiny_export
from tiny_models import tiny_model, tiny_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, tiny_model("baseline", *SETTINGS), tiny_recipe("baseline", *SETTINGS), 5, {})
    return path


def near_but_rounded(rounded: np.ndarray, exact: np.ndarray) -> bool:
    """Differences of bfloat16's size: more than float32's, less than a twentieth of the vectors."""
    error = float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))
    return 1e-5 < error < 5e-2


def test_an_embedder_computes_as_it_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Embedder.load(model, "cpu").embed(PICTURES, "infrared")
    assert np.array_equal(Embedder.load(model, "cpu", "float32").embed(PICTURES, "infrared"), exact)
    embedder = Embedder.load(model, "cpu", "bfloat16")
    rounded = embedder.embed(PICTURES, "infrared")
    assert rounded.dtype == np.float32 and near_but_rounded(rounded, exact) and "bfloat16" in repr(embedder)
    for fast in (False, True):
        monkeypatch.setattr(runtime, "fast_bfloat16", lambda where, fast=fast: fast)
        automatic = Embedder(load_model(model), "cpu", "auto").embed(PICTURES, "infrared")
        assert np.array_equal(automatic, rounded if fast else exact)


def test_a_word_that_is_no_precision_and_a_file_that_has_its_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'bfloat'; did you mean 'bfloat16'"):
        Embedder.load(model, "cpu", "bfloat")
    exported = tiny_export(tmp_path, "torch")
    monkeypatch.setattr(runtime, "fast_bfloat16", lambda where: False)
    with pytest.raises(CheckpointError, match="computes in what it was exported in"):
        Embedder.load(exported, "cpu", "bfloat16")
    automatic, expected = (Embedder.load(path, "cpu", "auto").embed(PICTURES, 0) for path in (exported, model))
    np.testing.assert_allclose(automatic, expected, atol=1e-4)


def test_the_commands_compute_as_they_are_told(model: Path, tiny_world: Path, tmp_path: Path) -> None:
    words = [str(model), "--data", str(tiny_world), "--device", "cpu"]
    rows = {}
    for compute in ("float32", "bfloat16"):
        file, gallery = tmp_path / f"{compute}.safetensors", tmp_path / f"{compute}.gallery"
        assert cli.main(["embed", *words, "--out", str(file), "--compute", compute]) == 0
        assert cli.main(["gallery", "add", str(gallery), *words, "--precision", "float32", "--compute", compute]) == 0
        found = load_embeddings(file)
        with Gallery(str(gallery)) as opened:
            kept = opened.parts(found.tracklet_ids)
        rows[compute] = found.parts, kept
    for rounded, exact in zip(rows["bfloat16"], rows["float32"], strict=True):
        assert near_but_rounded(rounded, exact)
