"""Whatever form a tracklet's frames have, the same pixels give the same embedding; any other form is refused in words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from dinogrl.data.frames import write_image
from dinogrl.embedding.embedder import Embedder, modality_of
from dinogrl.errors import DataError
from dinogrl.models.archive import load_model, save_model
from dinogrl.records import Modality
from tiny_exports import PICTURES, SETTINGS
from tiny_models import tiny_model, tiny_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(PICTURES):
        write_image(found / f"{number}.png", picture)
    return found


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, tiny_model("baseline", *SETTINGS), tiny_recipe("baseline", *SETTINGS), 5, {})
    return Embedder(load_model(path), "cpu")


FORMS: dict[str, Callable[[Path], Any]] = {
    "paths": lambda folder: sorted(folder.glob("*.png")),
    "a generator": lambda folder: (str(path) for path in sorted(folder.glob("*.png"))),
    "one array": lambda _: np.stack(PICTURES),
    "one tensor": lambda _: torch.from_numpy(np.stack(PICTURES)),
    "tensors": lambda _: [torch.from_numpy(picture) for picture in PICTURES],
    "images of Pillow": lambda folder: [Pillow.open(path) for path in sorted(folder.glob("*.png"))],
    "transparent ones": lambda folder: [Pillow.open(path).convert("RGBA") for path in sorted(folder.glob("*.png"))],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_pixels_gives_the_same_embedding(embedder: Embedder, folder: Path, form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(embedder.embed(FORMS[form](folder), 1), embedder.embed(PICTURES, "infrared"))


def test_grey_pictures_are_read_as_grey_files_are(embedder: Embedder) -> None:
    grey = [picture[..., 0] for picture in PICTURES]
    wanted = embedder.embed([np.dstack([picture] * 3) for picture in grey], "infrared")
    matrices = [picture.view(np.matrix) for picture in grey]
    for form in (grey, matrices, [picture[..., None] for picture in grey], [Pillow.fromarray(picture) for picture in grey]):
        np.testing.assert_array_equal(embedder.embed(form, "infrared"), wanted)


def test_an_image_of_pillow_whose_file_is_cut_short_is_told(embedder: Embedder, folder: Path) -> None:
    content = io.BytesIO()
    Pillow.fromarray(PICTURES[0]).save(content, "JPEG")
    cut = Pillow.open(io.BytesIO(content.getvalue()[:-100]))
    closed = Pillow.open(folder / "0.png")
    closed.close()
    for broken in (cut, closed):
        with pytest.raises(DataError, match=r"given an image of Pillow that cannot be read \(.+\); restore its file"):
            embedder.embed([broken], "visible")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ("night/0001", "expected the frames of one tracklet, a list: sorted"),
        (None, "given a NoneType, expected the frames of one tracklet in order"),
        ({"1.jpg", "2.jpg"}, "given a set, expected .* in order"),
        ({"1.jpg": 1}, "given a dict"),
        ((), "without frames"),
        (iter(()), "without frames"),
        (PICTURES[0], r"given one array \(64, 32, 3\), expected .* a list of them"),
        ([None], "given a NoneType for a frame"),
        ([Pillow.Image], "given a type for a frame"),
        ([PICTURES[0] / 255], r"\(64, 32, 3\) of float64; give the picture's own numbers, 0 to 255"),
        (torch.zeros(2, 3, 64, 32, dtype=torch.uint8), r"\(3, 64, 32\) of uint8; the colours come last: .*permute\(1, 2, 0\)"),
        ([np.zeros((64, 32, 4), np.uint8)], r"given \(64, 32, 4\)"),
        ([np.zeros((0, 32, 3), np.uint8)], r"given \(0, 32, 3\)"),
        ([torch.zeros(64, 32, 3, dtype=torch.bfloat16)], r"given a tensor \(64, 32, 3\) of torch.bfloat16"),
        ([torch.zeros(64, 32, dtype=torch.uint8).to_sparse()], r"given a tensor \(64, 32\) .*[Ss]parse"),
        ([Pillow.fromarray(np.full((64, 32), 9000, np.uint16))], "of mode I;16, expected 8 bits a pixel; scale"),
        ([Pillow.fromarray(np.full((64, 32), 0.5, np.float32))], "of mode F, expected 8 bits"),
    ],
)
def test_other_forms_are_refused_in_words(embedder: Embedder, frames: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        embedder.embed(frames, "visible")


def test_a_modality_is_a_word_or_its_number() -> None:
    assert modality_of("Infrared") is modality_of(np.int64(1)) is modality_of(Modality.INFRARED) is Modality.INFRARED
    for wrong in ("ir", 2, None, 0.5):
        with pytest.raises(DataError, match="use visible or infrared"):
            modality_of(wrong)  # type: ignore[arg-type]


def test_a_distance_is_between_two_embeddings(embedder: Embedder) -> None:
    one = embedder.embed(PICTURES, "visible")
    assert embedder.distance(one, torch.from_numpy(one)) == 0  # type: ignore[arg-type]
    for wrong in (one[None], one[:, :3], one.ravel()):
        with pytest.raises(DataError, match=r"expected two embeddings \(P,D\)"):
            embedder.distance(wrong, one)


def test_an_embedder_says_what_it_is(embedder: Embedder) -> None:
    assert repr(embedder) == f"Embedder('baseline', fingerprint {embedder.fingerprint[:12]}, on cpu)"


def test_a_vector_that_is_not_finite_is_no_embedding(tmp_path: Path) -> None:
    network = tiny_model("baseline", *SETTINGS)
    network.appearance_parts.weight.data[0] = torch.nan
    save_model(tmp_path / "m.safetensors", network, tiny_recipe("baseline", *SETTINGS), 5, {})
    with pytest.raises(DataError, match="vector that is not finite for these frames"):
        Embedder.load(tmp_path / "m.safetensors", "cpu").embed(PICTURES, "visible")
