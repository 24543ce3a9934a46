"""The sheet of silhouettes before any training: a look at whether DINOv2 sees the people."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dinogrl.cli import main as cli
from dinogrl.data.frames import read_frame


@pytest.fixture(scope="module")
def people(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real pictures in a folder."""
    folder = tmp_path_factory.mktemp("people")
    found = sorted(path for path in (shared / "data").rglob("*") if path.suffix in {".jpg", ".png"} and path.stat().st_size < 2**20)
    for number, path in enumerate(found[:3], 9):  # 9, 10, 11: not the order of text
        shutil.copy(path, folder / f"{number}{path.suffix}")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_stands_for_its_pictures(people: Path, shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights" / "dinov2_vits14.pth"
    names = sorted((path for path in people.iterdir() if path.suffix != ".txt"), key=lambda path: int(path.stem))
    for out, given in (("new/folder.png", [people]), ("files.png", names)):
        assert cli.main(["silhouettes", *map(str, given), "--dinov2", str(weights), "--out", str(tmp_path / out)]) == 0
    sheet, of_files = (read_frame(tmp_path / name) for name in ("new/folder.png", "files.png"))
    assert np.array_equal(sheet, of_files)
    below = sheet[sheet.shape[0] // 2 :]
    assert below.min() < 64 and below.max() > 192, "some of the pictures is person, some is not"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["one.jpg"], "given one.jpg, expected two or more pictures of people, or a folder of them"),
        (["one.jpg", "one.jpg", "--out", "sheet.txt"], "given --out sheet.txt; give it a name that ends in .png or .jpg"),
        (["empty"], "given empty, expected two or more"),
        (["absent"], "absent is missing; give pictures of people, or a folder of them"),
        (["one.jpg", "absent.jpg"], "absent.jpg is missing"),
        (["one.jpg", "text.jpg"], "text.jpg"),
    ],
)
def test_what_is_no_picture_is_said_before_the_network_is_made(
    given: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    repository: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("no picture")
    shutil.copy(next(repository.joinpath("docs", "pictures").glob("*.jpg")), tmp_path / "one.jpg")
    assert cli.main(["silhouettes", *given]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "silhouettes.png").exists()
