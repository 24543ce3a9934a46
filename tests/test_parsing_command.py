"""``dinogrl parse``: masks beside a dataset, written once, that training then reads."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import tiny_datasets
from dinogrl.cli import main as cli
from dinogrl.cli.parse import ParserName, ValueRange
from dinogrl.data.datasets import open_dataset
from dinogrl.data.frames import Image
from dinogrl.data.masks import mask_path
from dinogrl.errors import DataError, DinogrlError
from dinogrl.parsing import PARSERS, MaskReport, ParserSettings, Parsing, write_masks
from dinogrl.parsing.masks import frames_of
from dinogrl.parsing.onnx_file import VALUES, OnnxInput
from dinogrl.parsing.schp_network import SchpNetwork
from dinogrl.simulation.simulate import Settings, simulate
from tiny_recipe import TINY


class Brightness:
    """A parser for tests: bright is a person. Counts the pictures it saw."""

    def __init__(self, identity: str = "brightness", patience: int | None = None) -> None:
        self.identity, self.seen, self.patience = identity, 0, patience

    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        if self.patience is not None and self.seen >= self.patience:
            raise KeyboardInterrupt
        self.seen += len(pictures)
        levels = [picture.mean(axis=2) / 255 for picture in pictures]
        return [Parsing((level > 0.5).astype(np.int64), level > 0.5, level.astype(np.float32)) for level in levels]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(identities=4, cameras=3, tracklets=1, frames=12, height=32, width=16, silhouettes=False)
    return simulate(tmp_path_factory.mktemp("worlds") / "parsed", settings, workers=1).root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "pascal.pth"
    torch.save({"state_dict": SchpNetwork(7, width=4, depths=(1, 1, 1, 1)).state_dict()}, path)
    return path


def masks_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_every_frame_gets_its_mask_and_training_reads_them(world: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    assert cli.main(["parse", str(world), "--parser", "schp", "--weights", str(weights), "--out", str(out), "--device", "cpu"]) == 0
    dataset = open_dataset(world)
    assert len(masks_in(out)) == len(frames_of(dataset)) > 0
    for tracklet in (*dataset.train, *dataset.query, *dataset.gallery):
        mask = cv2.imread(str(mask_path(tracklet, 5, str(out))), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (32, 16) and mask.dtype == np.uint8
    run = ["train", "dinogrl", *TINY, f"data.masks={out}", "model.gait.silhouette=masks", "--data", str(world), "--out"]
    assert cli.main([*run, str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("given", ["nested", "./nested/../nested/", "link", "campus", "campus/DATA"])
@pytest.mark.parametrize("absolute", [False, True])
def test_masks_are_found_however_the_dataset_is_called(
    given: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_datasets.hitsz_vcm(tmp_path / "nested", train=1, test=1, lengths=(2, 1), level="nested")
    tiny_datasets.buptcampus(tmp_path / "campus", train=1, auxiliary=1, test=1, length=2)
    (tmp_path / "link").symlink_to("nested")
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(tmp_path / given if absolute else given, min_frames=1)
    report = write_masks(dataset, dataset.root / "masks" / "bright", Brightness())
    assert report.written == len(frames_of(dataset)) > 0
    for tracklet in (*dataset.train, *dataset.auxiliary, *dataset.query, *dataset.gallery):
        for index in range(len(tracklet.frames)):
            assert mask_path(tracklet, index, "masks/bright").is_file()


def test_the_next_step_can_be_pasted(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_datasets.buptcampus(tmp_path / "my [old] campus", train=1, auxiliary=1, test=1, length=2)
    monkeypatch.chdir(root.parent)
    words = ["parse", "my [old] campus/DATA", "--parser", "schp", "--weights", str(weights), "--device", "cpu"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"{root}/masks/schp: " in said
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    assert shlex.split(line.removeprefix("next: "))[2:] == [
        "dinogrl", "--data", "my [old] campus/DATA", "--out", "runs/schp", "data.masks=masks/schp", "model.gait.silhouette=masks"
    ]  # fmt: skip


def test_every_option_reaches_the_parser(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, ParserSettings]] = []
    written: list[dict] = []
    monkeypatch.setattr("dinogrl.parsing.load_parser", lambda *parser: given.append(parser))
    monkeypatch.setattr("dinogrl.parsing.write_masks", lambda *_, **how: (written.append(how), MaskReport(0, 0))[1])
    start = ["parse", str(world), "--out", str(tmp_path / "masks"), "--weights", "w", "--device", "cpu"]
    onnx = "--parser onnx --size 64x32 --values symmetric --bgr --background 3 --hard --batch 5"
    assert (
        cli.main([*start, *onnx.split()]) == 0
        and cli.main([*start, *["--parser", "grapy-ml", "--labels", "atr", "--scales", "1,0.5"]]) == 0
    )
    first = ParserSettings("w", "cpu", background=3, onnx=OnnxInput((64, 32), "symmetric", True, 3))
    second = ParserSettings("w", "cpu", labels="atr", scales=(1.0, 0.5))
    assert given == [("onnx", first), ("grapy-ml", second)]
    assert [(how["hard"], how["batch"]) for how in written] == [(True, 5), (False, 8)]


def test_masks_hold_what_the_parser_said(world: Path, tmp_path: Path) -> None:
    dataset = open_dataset(world)
    frame = frames_of(dataset)[0]
    level = cv2.imread(str(frame)).mean(axis=2)
    for hard, wanted in ((False, np.rint(level)), (True, np.where(level > 127.5, 255, 0))):
        out = tmp_path / str(hard)
        write_masks(dataset, out, Brightness(), hard=hard)
        mask = cv2.imread(str(out / frame.relative_to(world).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
        assert np.abs(mask.astype(float) - wanted).max() <= 2 or (mask == wanted).mean() > 0.98  # another JPEG decoder


def test_what_is_there_is_not_parsed_again(world: Path, tmp_path: Path) -> None:
    dataset, out = open_dataset(world), tmp_path / "masks"
    count = len(frames_of(dataset))
    with pytest.raises(KeyboardInterrupt):
        write_masks(dataset, out, Brightness(patience=16), batch=8)
    begun = masks_in(out)
    assert len(begun) == 16
    parser, told = Brightness(), []
    report = write_masks(dataset, out, parser, on_progress=lambda done, total: told.append((done, total)))
    assert (report.written, report.found, parser.seen) == (count - 16, 16, count - 16)
    assert told[-1] == (count, count) and begun.items() <= masks_in(out).items()
    assert write_masks(dataset, out, parser).written == 0
    write_masks(dataset, tmp_path / "whole", Brightness())
    assert masks_in(out) == masks_in(tmp_path / "whole")


def test_a_killed_run_leaves_whole_masks_only(world: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    words = [
        "parse",
        str(world),
        "--parser",
        "schp",
        "--weights",
        str(weights),
        "--out",
        str(out),
        "--batch",
        "1",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-m", "dinogrl", *words], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.png"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None for path in out.rglob("[!.]*.png"))
    assert cli.main(words) == 0
    assert len(masks_in(out)) == len(frames_of(open_dataset(world)))


def test_broken_frames_are_named_and_the_others_parsed(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(identities=3, cameras=3, tracklets=1, frames=12, height=32, width=16, silhouettes=False)
    root = simulate(tmp_path / "broken", settings, workers=1).root
    frames = frames_of(open_dataset(root))
    frames[3].write_bytes(frames[3].read_bytes()[:300])
    assert cli.main(["parse", str(root), "--parser", "schp", "--weights", str(weights), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.count(str(frames[3])) == 1 and "1 frames have no mask" in said
    assert len(masks_in(root / "masks" / "schp")) == len(frames) - 1


def test_masks_of_two_parsers_do_not_mix(world: Path, tmp_path: Path) -> None:
    dataset, out = open_dataset(world), tmp_path / "masks"
    write_masks(dataset, out, Brightness())
    with pytest.raises(DataError, match="of another parser or form"):
        write_masks(dataset, out, Brightness("other weights"))
    with pytest.raises(DataError, match="of another parser or form"):
        write_masks(dataset, out, Brightness(), hard=True)
    assert json.loads((out / "parser.json").read_text()) == {"parser": "brightness", "hard": False}
    (out / "parser.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        write_masks(dataset, out, Brightness())
    (out / "parser.json").unlink()
    with pytest.raises(DataError, match="no masks that this command wrote"):
        write_masks(dataset, out, Brightness())
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / ".parser.json.1.part").write_text("{")
    assert write_masks(dataset, killed, Brightness()).written, "what a killed run left does not lock the folder"
    (tmp_path / "file").write_text("x")
    with pytest.raises(DinogrlError, match="is a file"):
        write_masks(dataset, tmp_path / "file", Brightness())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--parser", "schp", "--weights", "nowhere.pth"), "no weights at nowhere.pth"),
        (("--parser", "scph", "--weights", "x"), "scph"),
        (("--parser", "onnx", "--weights", "nowhere.onnx"), "no ONNX file"),
        (("--parser", "grapy-ml", "--weights", "x", "--scales", "1,two"), "no list of numbers"),
        (("--parser", "grapy-ml", "--weights", "x", "--scales", "0"), "must lie in"),
        (("--parser", "onnx", "--weights", "x", "--size", "0x64"), "height x width"),
        (("--parser", "schp"), "--weights"),
        (("--parser", "schp", "--weights", "x", "--labels", "atr"), "--labels is an option of grapy-ml"),
        (("--parser", "grapy-ml", "--weights", "x", "--background", "0"), "an option of transformers and onnx"),
        (("--parser", "transformers", "--weights", "x", "--bgr"), "--bgr is an option of onnx"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], said: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parse", str(world), *words, "--out", str(tmp_path / "masks")]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1 and not (tmp_path / "masks").exists()


def test_the_command_offers_every_parser_and_range_there_is() -> None:
    assert {parser.value for parser in ParserName} == set(PARSERS)
    assert {values.value for values in ValueRange} == set(VALUES)
