"""The authors' three files: to one of ours and back, every kind of bad file, and what the converted model can do."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dinogrl import checkpoints
from dinogrl.cli import main as cli
from dinogrl.errors import CheckpointError, DinogrlError
from dinogrl.evaluation.results import read_metrics
from dinogrl.models.archive import load_model, save_model
from dinogrl.models.released_files import convert_released, write_released
from dinogrl.models.weights import FILES, HARD_CODED_CLASSES, load_released, released_identities, to_released
from dinogrl.simulation.simulate import Settings, simulate
from tiny_models import clips, tiny_model, tiny_recipe
from tiny_released import Files, small_files, small_model, small_released_recipe


def written(files: Files, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        torch.save(tensors, folder / f"{name}.pth")
    return [folder / f"{name}.pth" for name in FILES]


def converted(paths: list[Path], out: Path) -> list[str]:
    return convert_released(*paths, out, recipe=small_released_recipe())


# ---- there and back


@pytest.mark.parametrize("identities", [5, 1074])
def test_there_and_back_and_there_again(tmp_path: Path, identities: int) -> None:
    files = small_files(identities, seed=3)
    converted(written(files, tmp_path / "theirs"), tmp_path / "one.safetensors")
    model = load_model(tmp_path / "one.safetensors")
    assert model.identities == identities and model.facts["selection"] == "published"
    back = to_released(model.network)
    for file, tensors in files.items():
        assert set(back[file]) == set(tensors)
        for name, tensor in tensors.items():
            unused = any(part in name for part in ("GAP.p", ".gcn_", "ing_Branch.bn_t", "Mask_Branch.bn_t"))
            assert back[file][name].shape == tensor.shape and (unused or torch.equal(back[file][name], tensor)), name
    (tmp_path / "ours").mkdir()
    checkpoints.save_state_dicts({tmp_path / "ours" / f"{file}.pth": tensors for file, tensors in back.items()})
    converted([tmp_path / "ours" / f"{file}.pth" for file in FILES], tmp_path / "two.safetensors")
    assert load_model(tmp_path / "two.safetensors").fingerprint == model.fingerprint


def test_what_is_written_for_the_authors_code_is_plain(tmp_path: Path) -> None:
    checkpoints.save_state_dicts(
        {tmp_path / f"{file}.pth": tensors for file, tensors in to_released(small_model(small_files())).items()}
    )
    for file in FILES:
        content = torch.load(tmp_path / f"{file}.pth", weights_only=True)
        assert type(content) is dict and all(type(t) is Tensor and t.is_contiguous() for t in content.values())
        bytes_of_tensors = sum(t.numel() * t.element_size() for t in content.values())
        assert (tmp_path / f"{file}.pth").stat().st_size < bytes_of_tensors + 1000 * (len(content) + 1), (
            "views drag their base along"
        )


def test_files_for_the_authors_code_have_its_sizes_and_replace_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"authors' code cannot load a network of this size: best_model\.pth"):
        write_released(small_model(small_files()), 5, tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "best_model2.pth").write_bytes(b"theirs")
    with pytest.raises(CheckpointError, match=r"best_model2\.pth exist already"):
        write_released(small_model(small_files()), 5, tmp_path)
    assert (tmp_path / "best_model2.pth").read_bytes() == b"theirs" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["dinogrl", "baseline", "dinogrl_pbmge", "dinogrl_sasgl"])
def test_other_recipes_have_no_published_form(name: str) -> None:
    with pytest.raises(CheckpointError, match="use the recipe dinogrl-released"):
        to_released(tiny_model(name))


def test_a_network_that_lacks_a_published_part_has_no_published_form() -> None:
    with pytest.raises(CheckpointError, match=r"gait\.priors\.appearance"):
        to_released(tiny_model("dinogrl-released", "model.gait.priors=[gait]"))


# ---- what is in the files


def test_unused_tensors_are_named_and_others_are_refused() -> None:
    files = small_files()
    model = small_model(files)
    dropped = load_released(model, *files.values())
    assert dropped[0] == "best_model: share_encoder.GAP.p" and len(dropped) == 1 + 6 + 1 + 2 * 8
    best_model, best_model2, best_shape = (dict(files[name]) for name in FILES)
    assert load_released(model, *(to_released(model)[file] for file in FILES)) == dropped
    with pytest.raises(CheckpointError, match=r"best_model2 does not fit.*1 unexpected: enhance_more"):
        load_released(model, best_model, {**best_model2, "enhance_more": torch.ones(1)}, best_shape)
    theta = best_model2.pop("enhance_app_net_3.theta.weight")
    with pytest.raises(CheckpointError, match=r"1 missing: enhance_app_net_3\.theta\.weight"):
        load_released(model, best_model, best_model2, best_shape)
    with pytest.raises(CheckpointError, match=r"theta\.weight is \(2, 1, 1\), expected \(6, 1, 1\)"):
        load_released(model, best_model, {**best_model2, "enhance_app_net_3.theta.weight": theta[:2]}, best_shape)


def test_an_error_leaves_the_network_as_it_was() -> None:
    files = small_files()
    model = small_model(files)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = small_files(seed=9)
    del other["best_shape"]["dinov2.gait_net.FCs.fc_bin"]
    with pytest.raises(CheckpointError, match=r"1 missing: dinov2\.gait_net\.FCs\.fc_bin"):
        load_released(model, *other.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_identities_are_read_from_the_file() -> None:
    files = small_files(identities=9)
    assert released_identities(files["best_shape"]) == 9
    with pytest.raises(CheckpointError, match=r"BNNecks\.fc_bin is .*9\), expected .*5\)"):
        load_released(small_model(small_files(identities=5)), *files.values())
    with pytest.raises(CheckpointError, match="right order"):
        released_identities(files["best_model2"])


@pytest.mark.parametrize("identities", [7, 1074])
def test_the_hard_coded_classifier_follows_the_other_stream(tmp_path: Path, identities: int) -> None:
    """The published source gives the appearance stream 500 classes whatever the dataset; embeddings do not depend on it."""
    files, alike = small_files(identities), small_files(identities)
    files["best_model"]["BNNecks.fc_bin"] = small_files(HARD_CODED_CLASSES)["best_model"]["BNNecks.fc_bin"]
    converted(written(files, tmp_path / "theirs"), tmp_path / "one.safetensors")
    model = load_model(tmp_path / "one.safetensors")
    assert model.identities == identities
    with torch.no_grad():
        have, want = (network.eval()(*clips(2, height=256, width=128)).parts for network in (model.network, small_model(alike)))
    assert torch.equal(have, want)
    columns = to_released(model.network)["best_model"]["BNNecks.fc_bin"]
    both = min(identities, HARD_CODED_CLASSES)
    assert torch.equal(columns[:, :, :both], files["best_model"]["BNNecks.fc_bin"][:, :, :both])
    files["best_model"]["BNNecks.fc_bin"] = columns[:, :, : identities - 1]
    with pytest.raises(CheckpointError, match=rf"BNNecks\.fc_bin is .*{identities - 1}\), expected .*{identities}\)"):
        converted(written(files, tmp_path / "theirs"), tmp_path / "two.safetensors")


def _wrapped(key: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda tensors: {key: tensors, "epoch": 3, "accuracy": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        _wrapped("state_dict"),
        _wrapped("model"),
        lambda tensors: {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()},
        lambda tensors: {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in tensors.items()},
    ],
    ids=["parallel", "state_dict", "model", "both", "float64", "parameters"],
)
def test_other_ways_to_save_the_same(tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Any]]) -> None:
    files = small_files()
    changed = {file: change(tensors) for file, tensors in files.items()}
    converted(written(files, tmp_path), tmp_path / "plain.safetensors")
    converted(written(changed, tmp_path), tmp_path / "changed.safetensors")
    plain, other = (load_model(tmp_path / f"{name}.safetensors") for name in ("plain", "changed"))
    assert plain.fingerprint == other.fingerprint and plain.facts == other.facts


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    files = {
        file: {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        for file, tensors in small_files().items()
    }
    converted(written(files, tmp_path), tmp_path / "one.safetensors")
    back = to_released(load_model(tmp_path / "one.safetensors").network)
    stem = "image_encoder1.resnet_conv.0.weight"
    assert back["best_model"][stem].dtype == torch.float32
    assert torch.equal(back["best_model"][stem], files["best_model"][stem].float())


# ---- bad files: one line, nothing run, nothing written


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w').write('ran')",))


def refused(paths: list[Path], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that ``dinogrl convert`` answers; nothing has been written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli.main(["convert", *map(str, paths), "--out", str(folder / "new" / "out.safetensors")]) == 2
    streams = capsys.readouterr()
    lines = streams.err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in streams.err and not streams.out, streams
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, "something was written"
    return lines[0]


@pytest.mark.parametrize("way", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("at", range(3))
def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str, at: int) -> None:
    paths, mark = written(small_files(), tmp_path), tmp_path / "mark"
    if way == "pickle":
        paths[at].write_bytes(pickle.dumps({"more": Payload(mark)}))
    else:
        torch.save({**small_files()[FILES[at]], "more": Payload(mark)}, paths[at], _use_new_zipfile_serialization=way == "zip")
    assert "nothing in it was run" in refused(paths, tmp_path, capsys) and not mark.exists()
    if way == "pickle":  # the payload is a live one
        subprocess.run(
            [sys.executable, "-c", "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))", str(paths[at])], check=False
        )
        assert mark.exists()


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = written(small_files(), tmp_path)
    good = paths[1].read_bytes()
    for content in (b"", good[:-100], good[: len(good) // 2], b"<html>404</html>", good[100:]):
        paths[1].write_bytes(content)
        line = refused(paths, tmp_path, capsys)
        assert "best_model2.pth" in line and "truncated, no torch file" in line
    assert "is a folder, expected a file" in refused([paths[0], tmp_path, paths[2]], tmp_path, capsys)
    assert "no weights at" in refused([paths[0], tmp_path / "absent.pth", paths[2]], tmp_path, capsys)


def test_other_models_and_other_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = written(small_files(), tmp_path)
    assert "best_model2.pth is a best_model2.pth, expected a best_model.pth here" in refused([two, one, three], tmp_path, capsys)
    assert "best_shape.pth is a best_shape.pth, expected a best_model2.pth here" in refused([one, three, two], tmp_path, capsys)
    assert "expected a best_shape.pth here" in refused([one, two, one], tmp_path, capsys)
    torch.save({"conv1.weight": torch.ones(1), "fc.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    line = refused([tmp_path / "resnet.pth", two, three], tmp_path, capsys)
    assert "none of the authors' three files: it holds conv1.weight, fc.weight" in line
    ours = tmp_path / "ours.safetensors"
    save_model(ours, tiny_model("baseline"), tiny_recipe("baseline"), 5, {})
    assert "none of the authors' three files" in refused([ours, two, three], tmp_path, capsys)
    for content, hint in (({}, "no tensors"), ({"a": 1}, r"more than tensors (a)"), ([torch.ones(1)], "holds a list")):
        torch.save(content, tmp_path / "odd.pth")
        assert hint in refused([one, two, tmp_path / "odd.pth"], tmp_path, capsys)


def test_networks_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(written(small_files(), tmp_path), tmp_path, capsys)
    assert "best_model does not fit this model" in line and "missing" in line and len(line) < 1200


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    paths = written(small_files(), tmp_path)
    before = paths[2].read_bytes()
    with pytest.raises(CheckpointError, match="is one of the files to convert"):
        converted(paths, tmp_path / "x" / ".." / "best_shape.pth")
    assert paths[2].read_bytes() == before


def test_a_place_that_takes_no_file_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = written(small_files(), tmp_path)
    monkeypatch.setattr("dinogrl.models.released_files.build_model", lambda *_, **__: pytest.fail("began to work"))
    with pytest.raises(DinogrlError, match="is a folder; give the name of a file in it"):
        converted(paths, tmp_path)
    with pytest.raises(DinogrlError, match=r"best_model\.pth is a file; give a folder"):
        converted(paths, paths[0] / "model.safetensors")


# ---- what the released code cannot do


def test_buptcampus_is_tested_through_the_enhancement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(
        layout="buptcampus", identities=6, cameras=2, tracklets=1, frames=13, height=64, width=32, silhouettes=False
    )
    world = simulate(tmp_path / "world", settings, workers=1).root
    paths = written(small_files(identities=1074), tmp_path / "theirs")
    recipe = small_released_recipe("data.frames=10", "data.layout=auto")
    convert_released(*paths, tmp_path / "run" / "model.safetensors", recipe=recipe)
    assert (
        cli.main(["evaluate", str(tmp_path / "run" / "model.safetensors"), "--data", str(world), "--protocol", "buptcampus-full"])
        == 0
    )
    assert "protocol buptcampus-full" in capsys.readouterr().out
    metrics = read_metrics(tmp_path / "run" / "metrics.json")
    assert metrics.protocol == "buptcampus-full" and metrics.model == "dinogrl-released" and metrics.frames_per_clip == 10
    assert all(direction.queries > 0 for direction in metrics.directions.values())
