"""A backup is one file that restores to the same answers, or says what is wrong with it."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dinogrl.embedding.calibration import CROSS, WITHIN, Calibration, Curve
from dinogrl.embedding.search_aids import SearchAids
from dinogrl.errors import GalleryError
from dinogrl.gallery import Gallery, back_up, restore
from dinogrl.gallery.founding import write
from tiny_galleries import MODEL, embeddings, entries

PARTS, ENTRIES = embeddings(), entries(100)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with gaps (removed and replaced tracklets), and its backup beside it."""
    folder = tmp_path_factory.mktemp("backup")
    with Gallery(folder / "g", writable=True) as gallery:
        gallery.add(ENTRIES[:80], PARTS[:80], fingerprint=MODEL, strips=[b"picture %d" % i if i % 3 else None for i in range(80)])
        gallery.remove([f"t{i}" for i in range(10, 30)])
        gallery.add(ENTRIES[3:5], PARTS[90:92], replace=True)
        gallery.add(ENTRIES[80:], PARTS[80:])
        assert gallery.settings is not None and gallery.aids is not None
        calibration = Calibration({CROSS: Curve(1.0, 0.2), WITHIN: Curve(2.0, 0.3)}, "made up")
        write(gallery.backend, gallery.settings, SearchAids(gallery.aids.projection, calibration))
    with Gallery(folder / "g") as gallery:
        assert back_up(gallery, folder / "g.zip") == len(gallery) == 80
    return folder


@pytest.mark.parametrize("at_once", [500, 30])
def test_restored_answers_are_equal_to_the_last_bit(
    saved: Path, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinogrl.gallery.backup._AT_ONCE", at_once)
    assert restore(saved / "g.zip", tmp_path / "deep" / "again") == 80
    with Gallery(saved / "g") as old, Gallery(tmp_path / "deep" / "again", writable=True) as new:
        for query in PARTS[::7]:
            hits = old.search(query, top=30)
            assert hits == new.search(query, top=30) and hits[0].probability is not None
        ids = sorted(old.ids())
        assert ids == sorted(new.ids()) and old.entries(ids) == new.entries(ids)
        np.testing.assert_array_equal(old.parts(ids), new.parts(ids))
        assert [old.strip(id) for id in ids] == [new.strip(id) for id in ids]
        assert new.add(ENTRIES[80:], PARTS[80:], fingerprint=MODEL).unchanged == 20
        assert new.add(ENTRIES[10:12], PARTS[10:12], fingerprint=MODEL).added == 2


def test_whoever_may_read_galleries_may_read_a_restored_one(saved: Path, tmp_path: Path) -> None:
    restore(saved / "g.zip", tmp_path / "again")
    assert (tmp_path / "again").stat().st_mode == (saved / "g").stat().st_mode


def test_a_restore_that_fails_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise GalleryError("the disk is full")

    monkeypatch.setattr("dinogrl.gallery.backup._fill", fail)
    with pytest.raises(GalleryError, match="full"):
        restore(saved / "g.zip", tmp_path / "again")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(saved: Path, tmp_path: Path) -> None:
    before = (saved / "g.zip").read_bytes()
    with Gallery(saved / "g") as gallery, pytest.raises(GalleryError, match="overwrites nothing"):
        back_up(gallery, saved / "g.zip")
    assert (saved / "g.zip").read_bytes() == before
    for target in (saved / "g", saved / "g.zip", tmp_path):
        with pytest.raises(GalleryError, match="overwrites nothing"):
            restore(saved / "g.zip", target)
    with Gallery(saved / "g") as gallery:
        assert len(gallery) == 80


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_truncated_backups_are_refused(saved: Path, tmp_path: Path, share: float) -> None:
    content = (saved / "g.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GalleryError, match="no backup of a gallery"):
        restore(tmp_path / "cut.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_wrong_byte_is_found(saved: Path, tmp_path: Path) -> None:
    """Also where the ZIP's own checksum was made to agree."""
    for name in ("parts.bin", "entries.jsonl", "settings.json"):
        with zipfile.ZipFile(saved / "g.zip") as old, zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as new:
            for member in old.namelist():
                content = bytearray(old.read(member))
                if member == name:
                    content[len(content) // 2] ^= 1
                new.writestr(member, bytes(content))
        with pytest.raises(GalleryError, match=f"damaged: {name} is not what was written"):
            restore(tmp_path / f"{name}.zip", tmp_path / "new")
    raw = bytearray((saved / "g.zip").read_bytes())
    raw[len(raw) // 2] ^= 0x10
    (tmp_path / "raw.zip").write_bytes(raw)
    with pytest.raises(GalleryError, match="damaged"):
        restore(tmp_path / "raw.zip", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_one_wrong_bit_in_the_list_of_members_is_found(saved: Path, tmp_path: Path) -> None:
    """It may make a member look compressed, or lie somewhere else."""
    raw, damaged = (saved / "g.zip").read_bytes(), tmp_path / "other.zip"
    entries = [found.start() for found in re.finditer(b"PK\x01\x02", raw)]
    wounds = [(entry + at, bit) for entry in entries for at, bit in ((10, 3), (42, 2), (44, 5), (45, 7))]
    for at, bit in [*wounds, (len(raw) - 3, 5), (len(raw) - 6, 1), (len(raw) - 4, 7)]:
        content = bytearray(raw)
        content[at] ^= 1 << bit
        damaged.write_bytes(content)
        with pytest.raises(GalleryError, match=r"is damaged|is no backup of a gallery, or it is truncated"):
            restore(damaged, tmp_path / "new")
    assert len(entries) > 5 and not (tmp_path / "new").exists()


def test_a_backup_of_another_version_is_not_guessed_at(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved / "g.zip") as old, zipfile.ZipFile(tmp_path / "later.zip", "w") as later:
        for member in old.namelist():
            content = old.read(member)
            if member == "manifest.json":
                content = json.dumps({**json.loads(content), "dinogrl_gallery": 2}).encode()
            later.writestr(member, content)
    with pytest.raises(GalleryError, match="written by another version"):
        restore(tmp_path / "later.zip", tmp_path / "new")


def test_other_files_are_no_backups(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK nonsense")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as other:
        other.writestr("manifest.json", "[]")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as other:
        other.writestr("holiday.jpg", "x")
    for name in ("a.zip", "b.zip", "c.zip"):
        with pytest.raises(GalleryError, match="no backup of a gallery"):
            restore(tmp_path / name, tmp_path / "new")
    with pytest.raises(GalleryError, match="no backup at"):
        restore(tmp_path / "d.zip", tmp_path / "new")


def test_to_a_server_and_back(saved: Path, tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path / "data"))
    address = f"http://127.0.0.1:{port}"
    try:
        assert restore(saved / "g.zip", address, name="moved") == 80
        with pytest.raises(GalleryError, match="there is a gallery 'moved'"):
            restore(saved / "g.zip", address, name="moved")
        with Gallery(saved / "g") as old, Gallery(address, name="moved") as new:
            assert old.search(PARTS[50], top=10) == new.search(PARTS[50], top=10)
            back_up(new, tmp_path / "back.zip")
    finally:
        running.stop(grace=1)
        database.close()
    members = {}
    for path in (saved / "g.zip", tmp_path / "back.zip"):
        with zipfile.ZipFile(path) as archive:
            members[path] = {name: archive.read(name) for name in archive.namelist()}
    here, there = members.values()
    assert sorted(here.keys() ^ there.keys()) == []
    assert [name for name in here if here[name] != there[name]] == []


def test_an_empty_gallery_has_no_backup(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", writable=True) as gallery, pytest.raises(GalleryError, match="nothing to back up"):
        back_up(gallery, tmp_path / "g.zip")
