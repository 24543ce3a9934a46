"""Exported files beside the model they were made of: every format, any number of clips and frames, any size of picture."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from dinogrl.cli.main import main
from dinogrl.data.frames import read_frame, resize
from dinogrl.embedding import export_onnx, export_torch
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.export import FORMATS, Clips, check_clips, compare, export_model, reference
from dinogrl.embedding.export_graph import ExportGraph, resize_like_uint8, stripes_by_rows
from dinogrl.embedding.exported import HEADER, ExportedModel
from dinogrl.errors import CheckpointError, DinogrlError, ExportError, UnknownNameError
from dinogrl.models.archive import TrainedModel, load_model, save_model
from dinogrl.models.enhancement import ENHANCEMENTS
from dinogrl.models.pooling import horizontal_stripes
from dinogrl.recipes.schema import Enhancement
from tiny_models import tiny_model, tiny_recipe

SIZE = (64, 32)
ONE_STREAM = (
    "model.pooling.stripes=[1,2]",
    "data.height=64",
    "data.width=32",
    "data.frames=3",
    "model.appearance.depths=[1,1,1,1]",
)
PRIOR = ("model.gait.prior.shape={width: 16, depth: 2, heads: 2, positions: 6}", "model.gait.prior.blocks=[0,1]")
BOTH = (*ONE_STREAM, *PRIOR)
PAIRED = (*BOTH, "model.enhancement.granularities=[2]")
RECIPES = {"baseline": ONE_STREAM, "dinogrl_sasgl": BOTH, "dinogrl_pbmge": PAIRED, "dinogrl": PAIRED, "dinogrl-released": PAIRED}


def trained(name: str, folder: Path) -> TrainedModel:
    path = folder / f"{name}.safetensors"
    save_model(path, tiny_model(name, *RECIPES[name]), tiny_recipe(name, *RECIPES[name]), 5, {"dataset": "none"})
    return load_model(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def model(folder: Path) -> TrainedModel:
    return trained("dinogrl", folder)


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[NDArray[np.uint8]]:
    """Real people, by day and in thermal infrared."""
    files = sorted(path for path in (shared / "data" / "tno_fel").rglob("*") if path.suffix in {".png", ".bmp", ".jpg"})
    assert files, "the folder of real pictures is empty"
    return [resize(read_frame(path), (120, 70)) for path in files[:12]]


@pytest.fixture(scope="module")
def files(folder: Path, model: TrainedModel, pictures: list[NDArray[np.uint8]]) -> dict[str, Path]:
    """The model in every format, float32, in folders that are made for them."""
    made = {name: folder / name / f"model{form.suffix}" for name, form in FORMATS.items()}
    for name, path in made.items():
        checks = export_model(model, path, format=name, frames=pictures)
        assert max(check.share for check in checks) < 1e-4
        assert {(check.clips, check.frames) for check in checks} >= {(1, 1), (2, 3), (3, 2)}
    return made


def some_clips(pictures: list[NDArray[np.uint8]], clips: int, times: int, size: tuple[int, int]) -> Clips:
    pixels = np.stack([resize(pictures[i % len(pictures)], size) for i in range(clips * times)])
    return pixels.reshape(clips, times, *size, 3), (np.arange(clips) + 1) % 2


CASES = [(1, 1, SIZE), (1, 5, (120, 70)), (4, 2, (33, 90)), (5, 1, (200, 101))]


def close(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def run_onnx(path: Path) -> Callable[..., NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames, modality: session.run(["embedding"], {"frames": frames, "modality": modality})[0]


def run_openvino(path: Path) -> Callable[..., NDArray[np.float32]]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frames, modality: compiled({"frames": frames, "modality": modality})["embedding"]


def run_torch(path: Path) -> Callable[..., NDArray[np.float32]]:
    module = torch.export.load(path).module()
    return lambda frames, modality: module(torch.from_numpy(frames), torch.from_numpy(modality)).detach().numpy()


PLAIN = {"onnx": run_onnx, "openvino": run_openvino, "torch": run_torch}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_opened_by_its_own_runtime_gives_the_models_embeddings(
    name: str, files: dict[str, Path], model: TrainedModel, pictures: list[NDArray[np.uint8]]
) -> None:
    run = PLAIN[name](files[name])
    for case in CASES:
        frames, modality = some_clips(pictures, *case)
        close(run(frames, modality), reference(model, frames, modality))


@pytest.mark.parametrize("name", FORMATS)
def test_the_embedder_takes_any_file(name: str, files: dict[str, Path], folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    ours, theirs = Embedder.load(folder / "dinogrl.safetensors", "cpu"), Embedder.load(files[name])
    assert theirs.fingerprint == ours.fingerprint and theirs.trained.recipe == ours.trained.recipe
    for frames, modality in ((pictures[:1], "visible"), (pictures, "infrared")):
        close(theirs.embed(frames, modality), ours.embed(frames, modality))
    a, b = ours.embed(pictures[:4], "visible"), theirs.embed(pictures[4:], "infrared")
    assert theirs.distance(a, b) == pytest.approx(ours.distance(a, b))


def test_what_the_files_say_of_themselves(files: dict[str, Path], model: TrainedModel) -> None:
    import onnx
    import openvino

    props = {entry.key: entry.value for entry in onnx.load(files["onnx"]).metadata_props}
    intermediate = openvino.Core().read_model(files["openvino"]).get_rt_info([HEADER]).astype(str)
    extra = {f"{HEADER}.json": ""}
    torch.export.load(files["torch"], extra_files=extra)
    for text in (props[HEADER], intermediate, extra[f"{HEADER}.json"]):
        values = json.loads(text)
        assert values["fingerprint"] == model.fingerprint and values["recipe"] == model.recipe.model_dump(mode="json")
        assert (values["frames"], values["height"], values["width"], values["precision"]) == (3, 64, 32, "float32")
        assert (values["identities"], values["facts"]) == (5, {"dataset": "none"})
        assert values["gait_parts"] == len(model.network.embedded) // 2 > 0


def test_no_file_tells_where_the_program_lay(files: dict[str, Path]) -> None:
    place = str(Path(export_onnx.__file__).parents[2]).encode()
    for path in (*files.values(), files["openvino"].with_suffix(".bin")):
        assert place not in path.read_bytes()


def test_one_modality_alone_is_its_row_of_the_mixture(files: dict[str, Path], pictures: list[NDArray[np.uint8]]) -> None:
    run = run_onnx(files["onnx"])
    frames, _ = some_clips(pictures, 2, 2, SIZE)
    mixed = run(frames, np.array([0, 1]))
    close(mixed[:1], run(frames[:1], np.array([0])))
    close(mixed[1:], run(frames[1:], np.array([1])))
    assert np.abs(mixed[0] - run(frames[:1], np.array([1]))[0]).max() > 1e-2, "the stems differ"


@pytest.mark.parametrize("name", RECIPES)
def test_the_graph_of_every_recipe_is_the_model(name: str, folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    own = trained(name, folder)
    graph = ExportGraph(own.network, SIZE).eval()
    for case in CASES:
        frames, modality = some_clips(pictures, *case)
        close(graph(torch.from_numpy(frames), torch.from_numpy(modality)).numpy(), reference(own, frames, modality))


@pytest.mark.parametrize("name", ["dinogrl-released", "dinogrl_pbmge"])
def test_further_recipes_can_be_traced(name: str, folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """... for sizes that they were not traced with."""
    own = trained(name, folder)
    path = folder / f"{name}.pt2"
    export_torch.write(ExportGraph(own.network, SIZE).eval(), path, "{}", "float32", [])
    run = export_torch.run_own(path)
    for case in CASES:
        frames, modality = some_clips(pictures, *case)
        close(run(frames, modality), reference(own, frames, modality))


class EveryAlternative(nn.Module):
    """All enhancements of table 9 at once: so one graph, which takes seconds to trace, holds them all."""

    def __init__(self, stripes: tuple[int, ...], granularities: tuple[int, ...], width: int) -> None:
        super().__init__()
        named = {name: Enhancement(name=name, granularities=granularities) for name in ENHANCEMENTS if name != "local_to_global"}
        self.each = nn.ModuleList(ENHANCEMENTS[name](section, stripes, width) for name, section in named.items())

    def forward(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        first, second = zip(*(enhance(gait, appearance) for enhance in self.each), strict=True)
        return torch.cat(first, dim=1), torch.cat(second, dim=1)


def test_every_enhancement_and_an_adapted_dinov3_for_any_number_of_clips(folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """... and AGW's non-local blocks, in ONNX, from one trace."""
    prior = "model.gait.prior={shape: {family: dinov3, width: 16, depth: 2, heads: 2, registers: 2}, height: 64, width: 32}"
    recipe = ("dinogrl_lora", *PAIRED, prior, "model.gait.prior.blocks=[0,1]", "model.appearance.non_local=[0,1,0,0]")
    path = folder / "everything.safetensors"
    save_model(path, tiny_model(*recipe), tiny_recipe(*recipe), 5, {"dataset": "none"})
    own = load_model(path)
    torch.manual_seed(3)
    own.network.enhancement = EveryAlternative((1, 2), (2,), 12).eval()
    with torch.no_grad():
        for name, weights in own.network.named_parameters():
            if name.endswith("lora_up") or name.startswith("enhancement."):
                weights += 0.3 * torch.randn_like(weights)
    shown = torch.zeros(1, 1, 3, *SIZE), torch.zeros(1, dtype=torch.long)
    own.network.embedded = torch.arange(own.network(*shown).parts.shape[1])
    made = folder / "everything.onnx"
    export_onnx.write(ExportGraph(own.network, SIZE).eval(), made, "{}", "float32", [])
    run = run_onnx(made)
    for case in CASES:
        frames, modality = some_clips(pictures, *case)
        close(run(frames, modality), reference(own, frames, modality))


def test_a_failing_check_leaves_no_file(
    tmp_path: Path, folder: Path, pictures: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of other weights than the model's is written, and found out."""
    other = tiny_model("baseline", *RECIPES["baseline"], seed=9).eval()
    monkeypatch.setattr("dinogrl.embedding.export.ExportGraph", lambda network, size, in_bfloat16: ExportGraph(other, size))
    with pytest.raises(ExportError, match="not kept"):
        export_model(trained("baseline", folder), tmp_path / "new" / "wrong.pt2", format="torch", frames=pictures)
    assert not list(tmp_path.iterdir()), "nor a folder for it"


def test_what_cannot_be_exported_is_said_before_anything_is_written(tmp_path: Path, model: TrainedModel) -> None:
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    for changes, expected in (
        ({"format": "onnx", "precision": "bfloat16"}, "onnx has no bfloat16; it has float32, int8"),
        ({"format": "openvino"}, "should end with .xml"),
        ({"format": "onnx", "frames": []}, "give one at least"),
    ):
        with pytest.raises(ExportError, match=expected):
            export_model(model, tmp_path / "model.onnx", **{"frames": pictures, **changes})  # type: ignore[arg-type]
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    for out, expected in (("folder.onnx", "is a folder"), ("file/model.onnx", "file is a file; give a folder")):
        with pytest.raises(DinogrlError, match=expected):
            export_model(model, tmp_path / out, format="onnx", frames=pictures, on_stage=lambda stage: pytest.fail("began to work"))
    (tmp_path / "folder.onnx").rmdir()
    (tmp_path / "file").unlink()
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export_model(model, tmp_path / "model.onnx", format="onx", frames=pictures)
    assert not list(tmp_path.iterdir())


def test_a_prior_in_bfloat16_is_no_float32_file(folder: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    own = trained("dinogrl_sasgl", folder)
    rounded = tiny_recipe("dinogrl_sasgl", *BOTH, "model.gait.prior.precision=bfloat16")
    with pytest.raises(ExportError, match="computes its prior in bfloat16"):
        export_model(replace(own, recipe=rounded), tmp_path / "m.onnx", format="onnx", frames=pictures)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_what_one_onnx_file_cannot_hold_is_refused(
    name: str, tmp_path: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinogrl.embedding.export_onnx.LARGEST", 1000)
    with pytest.raises(ExportError, match="use torch"):
        export_model(model, tmp_path / f"m{FORMATS[name].suffix}", format=name, frames=[np.zeros((8, 8, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


def test_a_network_that_no_exporter_follows_is_refused(folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    class Asking(nn.Module):
        def forward(self, stripes: Tensor) -> Tensor:
            return stripes if stripes.sum() > 0 else -stripes

    own = trained("baseline", folder)
    own.network.appearance_parts = Asking()  # type: ignore[assignment]
    with pytest.raises(ExportError, match="cannot be written as torch, float32"):
        export_model(own, folder / "asking.pt2", format="torch", frames=pictures)
    assert not list(folder.glob("*asking*"))


def test_a_pair_of_openvino_files_belongs_together(tmp_path: Path, files: dict[str, Path]) -> None:
    """One byte of a .bin changed, as if it were another model's; and half of a .bin."""
    mixed = tmp_path / "mixed.xml"
    mixed.write_bytes(files["openvino"].read_bytes())
    weights = bytearray(files["openvino"].with_suffix(".bin").read_bytes())
    mixed.with_suffix(".bin").write_bytes(weights)
    assert Embedder.load(mixed).fingerprint
    weights[1000] ^= 1
    mixed.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"mixed.bin is not what was written with mixed.xml; copy both"):
        Embedder.load(mixed)
    mixed.with_suffix(".bin").write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match=r"mixed.xml: .*its .bin, is broken"):
        Embedder.load(mixed)


def test_a_header_that_asks_for_too_much_is_one_line(tmp_path: Path, files: dict[str, Path]) -> None:
    greedy = tmp_path / "greedy.pt2"
    with zipfile.ZipFile(files["torch"]) as good, zipfile.ZipFile(greedy, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith(export_torch.EXTRA):
                content = json.dumps({**json.loads(content), "identities": 10**15}).encode()
            bad.writestr(name, content)
    with pytest.raises(CheckpointError, match="cannot be made"):
        Embedder.load(greedy)


def test_a_model_that_takes_other_inputs_fails_in_one_line(files: dict[str, Path]) -> None:
    """As a file from elsewhere may, that has a good header."""
    for name in ("onnx", "openvino"):
        run = FORMATS[name].read(files[name]).network.run
        with pytest.raises(CheckpointError, match="fails on 1 clips"):
            run(np.zeros((1, 1, 8, 8), np.uint8), np.zeros(1, np.int64))


def test_the_command_says_what_it_cannot_take(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "m.onnx"
    exported.write_bytes(b"")
    trained("baseline", folder)
    weights = str(folder / "baseline.safetensors")
    for arguments, expected in (
        ([str(exported), "--out", "n.onnx"], "is exported already"),
        ([weights, "--out", "n.onnx", "--check", "nowhere"], "no folder nowhere"),
        ([weights, "--out", str(tmp_path)], "is a folder; give the name of a file in it"),
    ):
        assert main(["export", *arguments, "--format", "onnx"]) == 2
        assert expected in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_compare_measures_by_hand(model: TrainedModel, pictures: list[NDArray[np.uint8]]) -> None:
    (batch,) = check_clips(pictures, SIZE, 3)[1:2]
    wanted = reference(model, *batch)
    (check,) = compare(lambda frames, modality: wanted + np.float32(0.25), model, [batch])
    assert check.difference == pytest.approx(0.25, rel=1e-3) and check.scale == np.abs(wanted).max((0, 2)).min()
    with pytest.raises(ExportError, match="gives embeddings"):
        compare(lambda frames, modality: wanted[:, :1], model, [batch])


def test_a_wrong_part_does_not_hide_behind_a_large_one(model: TrainedModel, pictures: list[NDArray[np.uint8]]) -> None:
    (batch,) = check_clips(pictures, SIZE, 3)[1:2]
    wanted = reference(model, *batch)
    sizes = np.abs(wanted).max((0, 2))
    small, large = sizes.argmin(), sizes.argmax()
    wrong = wanted.copy()
    wrong[:, small] += 5e-4 * max(1, sizes[small])
    wrong[:, large] += 5e-6 * max(1, sizes[large])
    (check,) = compare(lambda frames, modality: wrong, model, [batch])
    assert check.share == pytest.approx(5e-4, rel=1e-2) and check.scale == sizes[small]


@settings(max_examples=40)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_resize_gives_the_very_pixels(height: int, width: int, to_height: int, to_width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wanted = resize(image, (to_height, to_width))
    found = resize_like_uint8(torch.from_numpy(image).permute(2, 0, 1).float(), (to_height, to_width))
    off = np.abs(found.permute(1, 2, 0).numpy() - wanted)
    assert off.max() <= 1 and (off > 0).mean() <= 2e-3


@pytest.mark.parametrize("size", [(1080, 400), (2160, 1000), (576, 768)])
def test_large_pictures_give_the_very_pixels(size: tuple[int, int]) -> None:
    """Sums over many pixels, beyond what float32 counts exactly."""
    images = np.random.default_rng(1).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    found = resize_like_uint8(torch.from_numpy(images).permute(0, 3, 1, 2).float(), (256, 128))
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), [resize(image, (256, 128)) for image in images])


@given(st.integers(1, 17), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_stripes_by_rows_are_the_stripes(height: int, stripes: list[int]) -> None:
    maps = torch.randn(2, 3, height, 4)
    torch.testing.assert_close(stripes_by_rows(maps, stripes), horizontal_stripes(maps, stripes))


def test_an_exported_model_is_no_trained_one(files: dict[str, Path]) -> None:
    assert isinstance(Embedder.load(files["torch"]).trained, ExportedModel)
