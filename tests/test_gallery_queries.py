"""A known tracklet is found by its name, wherever it lies and however many others lie there."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import numpy as np
import pytest

import tiny_datasets
from dinogrl.cli.main import main
from dinogrl.data.datasets import open_dataset
from dinogrl.data.frames import decode
from dinogrl.gallery import Hit
from dinogrl.gallery.queries import _missing
from dinogrl.gallery.strips import draw_sheet
from dinogrl.models.archive import save_model
from dinogrl.records import Modality
from tiny_models import tiny_model, tiny_recipe

SMALL = ("data.workers=0", "data.frames=1", "data.height=64", "data.width=32")


def test_a_dataset_is_read_as_its_layout_and_the_models_trial_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RegDB with the lists of its second split alone, and a model of that split."""
    data, model = tiny_datasets.regdb(tmp_path / "regdb", train=2, test=1, images=1), str(tmp_path / "model.safetensors")
    for path in (data / "idx").glob("*_1.txt"):
        path.unlink()
    save_model(Path(model), tiny_model("baseline"), tiny_recipe("baseline", *SMALL, "data.trial=2"), 5, {})
    assert main(["gallery", "add", str(tmp_path / "g"), model, "--data", str(data)]) == 0
    name = open_dataset(data, trial=2).query[0].id
    line = ["search", str(tmp_path / "g"), model, "--tracklet", name, "--json", "-", "--out", str(tmp_path / "s.png")]
    capsys.readouterr()
    assert main([*line, "--from", str(data), "--layout", "regdb"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["query"] == f"{name}, infrared" and len(answer["hits"]) == 6
    for words, said in (
        (["--from", str(data), "--layout", "folder"], "is laid out as regdb, not as folder"),
        (["--from", str(data), "--layout", "regbd"], "did you mean 'regdb'?"),
        (["--from", model, "--layout", "regdb"], "give its root folder by --from DIR"),
        (["--layout", "regdb"], "give its root folder by --from DIR"),
    ):
        assert main([*line, *words]) == 2 and said in capsys.readouterr().err


def test_of_very_many_names_the_nearest_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by comparing the spelling of all, of which only some are compared: all of a hundred thousand took seconds."""
    random = np.random.default_rng(0)
    names = [f"person{random.integers(500)}/cam{random.integers(12)}/infrared/walk{i}" for i in range(2000)]
    slips = [name[:place] + name[place + 1 :] for name, place in zip(names[::250], range(1, 24, 3))] + ["prson/cma3/walk17"]
    assert {*names}.isdisjoint(slips)
    compare, compared = difflib.get_close_matches, []
    truth = [compare(slip, names, n=3, cutoff=0.55) for slip in slips]
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda word, known, **how: compared.append(len(known)) or compare(word, known, **how)
    )
    for slip, near in zip(slips, truth):
        assert str(_missing(slip, "it", names)).endswith(f"did you mean {' or '.join(map(repr, near))}?")
    assert max(compared) < len(names)


@pytest.mark.parametrize("id", ["unknown-monday-d6f479c2-0016/gate/visible/01", "W" * 150, "i" * 150])
def test_what_is_written_beside_an_answer_ends_before_the_pictures_edge(id: str) -> None:
    """The names that footage gives are whole; longer ones keep their ends."""
    strip = np.zeros((96, 288, 3), np.uint8)
    hit = Hit(id, 8.541, 0.93, "camera " * 20, Modality.VISIBLE, None, None, "march")
    picture = decode(draw_sheet(strip, "query " * 40, [hit], [strip]))
    assert (picture[:, -12:] > 250).all(), "something is cut off at the right"
    lines = (picture[132:228, 310:, 0] < 200).any(1)
    assert np.diff(lines.astype(int)).tolist().count(1) >= 3, "camera, distance and name each have a line"


def test_a_search_by_time_in_footage_without_a_clock_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = tiny_datasets.folder(tmp_path / "footage", levels=(), people=2, length=2), str(tmp_path / "model.safetensors")
    save_model(Path(model), tiny_model("baseline"), tiny_recipe("baseline", *SMALL), 5, {})
    assert main(["gallery", "add", str(tmp_path / "g"), model, "--data", str(data)]) == 0
    frames = next(data.rglob("*.jpg")).parent
    line = ["search", str(tmp_path / "g"), model, "--image-folder", str(frames), "--out", str(tmp_path / "s.png")]
    for when in ("--after", "--before"):
        capsys.readouterr()
        assert main([*line, when, "2026-03-01"]) == 0
        assert "no tracklet says when it was seen" in " ".join(capsys.readouterr().err.split())
    assert main([*line, "--camera", "nowhere"]) == 0
    assert "when it was seen" not in capsys.readouterr().err
