"""From a dataset on disk to answers, as a person does it: the model's file, a folder of tracklets, the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dinogrl.cli.main import main
from dinogrl.data.frames import read_frame, write_image
from dinogrl.data.sightings import SeenFrame, Sighting, write_sighting
from dinogrl.embedding.calibration import CROSS, WITHIN, Calibration, Curve
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.search_aids import SearchAids, aids_of, store_aids
from dinogrl.errors import DataError, GalleryError
from dinogrl.gallery import Added, Entry, Filters, Gallery, Hit, age_of, enrol_folder
from dinogrl.gallery.strips import draw_sheet, make_strip, strip_image
from dinogrl.models.archive import load_model, save_model
from dinogrl.records import Modality
from tiny_datasets import buptcampus, folder, hitsz_vcm
from tiny_models import tiny_model, tiny_recipe

SMALL = ("data.workers=0", "data.frames=2", "data.height=64", "data.width=32")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a dataset in the folder layout, and a gallery of it made by the command line."""
    home = tmp_path_factory.mktemp("journey")
    save_model(home / "model.safetensors", tiny_model("baseline"), tiny_recipe("baseline", *SMALL), 5, {})
    data = folder(home / "footage", levels=(), people=3, length=5)
    random = np.random.default_rng(0)
    for path in sorted(data.rglob("*.jpg")):
        write_image(path, random.integers(0, 255, (32, 16, 3)).astype(np.uint8))
    seen = SeenFrame("1.jpg", 0, 2.5, (0, 0, 10, 20), 0.9)
    start = datetime(2026, 3, 1, 22, tzinfo=UTC)
    later = SeenFrame("2.jpg", 1, 4.0, (0, 0, 10, 20), 0.9)
    sighting = Sighting("night.mp4", "f", "gate", Modality.INFRARED, 1, "hog", start, (seen, later))
    write_sighting(data / "person8" / "gate" / "infrared" / "walk1", sighting)
    assert main(["gallery", "learn", str(home / "model.safetensors"), "--data", str(data)]) == 0
    assert main(["gallery", "add", str(home / "g"), str(home / "model.safetensors"), "--data", str(data)]) == 0
    return home


@pytest.fixture(scope="module")
def embedder(home: Path) -> Embedder:
    return Embedder.load(home / "model.safetensors", "cpu")


def test_what_was_enrolled(home: Path, embedder: Embedder) -> None:
    with Gallery(home / "g", embedder, writable=True) as gallery:
        info = gallery.info()
        assert (
            info.tracklets == 12 and info.by_camera == {"gate": 6, "yard": 6} and info.by_modality == {"visible": 6, "infrared": 6}
        )
        assert info.projection == "stored with the model"
        entry = gallery.entries(["person8/gate/infrared/walk1"])[0]
        assert entry.start == datetime(2026, 3, 1, 22, 0, 2, 500_000, tzinfo=UTC) and entry.modality is Modality.INFRARED
        assert entry.end == datetime(2026, 3, 1, 22, 0, 4, tzinfo=UTC)
        assert len(entry.frames) == 5 and all(Path(frame).is_file() for frame in entry.frames)
        np.testing.assert_allclose(
            gallery.parts([entry.id])[0], embedder.embed(list(entry.frames), "infrared"), rtol=2e-3, atol=2e-3
        )
        assert gallery.strip(entry.id) == make_strip(list(entry.frames))
        assert enrol_folder(gallery, home / "footage") == Added(unchanged=12)


def test_a_calibration_learned_later_reaches_the_gallery(home: Path, tmp_path: Path) -> None:
    """Nobody should have to embed everything again to see probabilities, or to be rid of wrong ones."""
    shutil.copytree(home / "g", tmp_path / "g")
    model = shutil.copy(home / "model.safetensors", tmp_path / "model.safetensors")
    carried = aids_of(load_model(model))
    assert carried is not None
    for calibration in (Calibration({WITHIN: Curve(1.0, 0.5, 40)}, "40 people"), None):
        store_aids(model, SearchAids(carried.projection, calibration))
        embedder = Embedder.load(model, "cpu")
        for writable in (False, True):  # who may only read sees it too
            with Gallery(tmp_path / "g", embedder, writable=writable) as gallery:
                one = gallery.parts(gallery.ids()[:1])[0]
                hit = gallery.search(one, top=1, modality=gallery.entries(gallery.ids()[:1])[0].modality)[0]
                assert (hit.probability is None) == (calibration is None)
        with Gallery(tmp_path / "g") as gallery:  # written down, for those who open it without the model
            assert gallery.info().calibration == ("none" if calibration is None else "40 people")


def test_what_is_all_but_sure_is_not_said_to_be(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(home / "g", tmp_path / "g")
    model = shutil.copy(home / "model.safetensors", tmp_path / "model.safetensors")
    carried = aids_of(load_model(model))
    assert carried is not None
    store_aids(model, SearchAids(carried.projection, Calibration({WITHIN: Curve(50.0, 0.0), CROSS: Curve(-50.0, 0.0)}, "all")))
    query = home / "footage" / "person8" / "gate" / "visible" / "walk1"
    line = ["search", str(tmp_path / "g"), str(model), "--image-folder", str(query), "--out", str(tmp_path / "s.png")]
    assert main([*line, "--modality", "visible"]) == 0
    said = capsys.readouterr().out
    assert said.count("over 99 %") == said.count("under 1 %") == 6 and "100" not in said


def test_unchanged_tracklets_are_not_embedded_again(home: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.gallery.enrol.extract", lambda *_, **__: pytest.fail("embedded again"))
    with Gallery(home / "g", embedder, writable=True) as gallery:
        assert enrol_folder(gallery, home / "footage") == Added(unchanged=12)


def test_progress_is_told_and_pictures_can_be_left_out(
    home: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinogrl.gallery.enrol.AT_ONCE", 5)
    told: list[tuple[int, int]] = []
    with Gallery(tmp_path / "g", embedder, writable=True) as gallery:
        enrol_folder(gallery, home / "footage", strips=False, on_progress=lambda done, total: told.append((done, total)))
        assert told == [(5, 12), (10, 12), (12, 12)] and [gallery.strip(id) for id in gallery.ids()] == [None] * 12


@pytest.mark.parametrize(("layout", "count"), [(partial(hitsz_vcm, lengths=(13, 3)), 56), (buptcampus, 29)])
def test_short_and_auxiliary_tracklets_can_be_found_too(
    layout: Callable[[Path], Path], count: int, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training or a protocol leaves out may be just whom somebody looks for."""
    seen: list[str] = []

    def keep(gallery: Gallery, embedder: Embedder, data: object, new: list[tuple[Entry, object]], **_: bool) -> Added:
        seen.extend(entry.id for entry, _ in new)
        return Added(len(new))

    monkeypatch.setattr("dinogrl.gallery.enrol._embed_and_add", keep)
    with Gallery(tmp_path / "g", embedder, writable=True) as gallery:
        assert enrol_folder(gallery, layout(tmp_path / "data")) == Added(count) and len(set(seen)) == count


def test_other_pictures_under_the_same_names(home: Path, embedder: Embedder, tmp_path: Path) -> None:
    shutil.copytree(home / "g", tmp_path / "g")
    shutil.copytree(home / "footage", tmp_path / "footage")
    with Gallery(tmp_path / "g", embedder, writable=True) as gallery:
        with pytest.raises(GalleryError, match="in the gallery with other content"):
            enrol_folder(gallery, tmp_path / "footage")  # the frames lie elsewhere
        with pytest.raises(GalleryError, match="in the gallery with other content"):
            enrol_folder(gallery, home / "footage", collection="march")
        assert enrol_folder(gallery, tmp_path / "footage", prefix="copy/") == Added(added=12)
        path = tmp_path / "footage" / "person8" / "gate" / "visible" / "walk1" / "1.jpg"
        path.write_bytes((home / "footage" / "person9" / "gate" / "visible" / "walk1" / "2.jpg").read_bytes())
        assert enrol_folder(gallery, tmp_path / "footage", prefix="copy/", replace=True) == Added(unchanged=11, replaced=1)


def test_a_gallery_of_another_model(home: Path, embedder: Embedder, tmp_path: Path) -> None:
    save_model(tmp_path / "other.safetensors", tiny_model("baseline", seed=1), tiny_recipe("baseline", *SMALL), 5, {})
    other = Embedder.load(tmp_path / "other.safetensors", "cpu")
    for writable in (False, True):
        with pytest.raises(GalleryError, match=f"holds vectors of model {embedder.fingerprint}, given one of {other.fingerprint}"):
            Gallery(home / "g", other, writable=writable)
    with Gallery(home / "g") as gallery:  # and it was let go of
        with pytest.raises(GalleryError, match="opened with an embedder"):
            gallery.search_frames(["a.jpg"], "visible")
        with pytest.raises(GalleryError, match="opened with an embedder"):
            enrol_folder(gallery, home / "footage")


def test_searching_by_frames(home: Path, embedder: Embedder) -> None:
    frames = sorted((home / "footage" / "person9" / "yard" / "visible" / "walk1").glob("*.jpg"))
    with Gallery(home / "g", embedder) as gallery:
        first = gallery.search_frames(frames, "visible", top=3)
        assert first[0].id == "person9/yard/visible/walk1" and first[0].distance == pytest.approx(0, abs=0.01)
        arrays = gallery.search_frames([read_frame(frame) for frame in frames], Modality.VISIBLE, top=3)
        assert [hit.id for hit in arrays] == [hit.id for hit in first]
        infrared = gallery.search_frames(frames, "visible", filters=Filters(modalities=[Modality.INFRARED]))
        assert len(infrared) == 6 and {hit.modality for hit in infrared} == {Modality.INFRARED}


def test_a_probability_is_of_the_kind_of_pair_and_of_the_prior(home: Path, embedder: Embedder) -> None:
    frames = sorted((home / "footage" / "person9" / "yard" / "visible" / "walk1").glob("*.jpg"))
    with Gallery(home / "g", embedder) as gallery:
        assert gallery.aids is not None
        curves = {CROSS: Curve(1.0, 0.0), WITHIN: Curve(-1.0, 0.0)}  # the same at any distance
        gallery.aids = SearchAids(gallery.aids.projection, Calibration(curves, "made up"))
        for modality in Modality:
            hits = gallery.search_frames(frames, modality, top=12, prior=0.1)
            odds = np.array([np.exp(-1.0 if hit.modality is modality else 1.0) * 0.1 / 0.9 for hit in hits])
            np.testing.assert_allclose([hit.probability for hit in hits], odds / (1 + odds))


def test_every_condition_reaches_the_gallery(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Filters] = []

    def nothing(gallery: Gallery, *_: object, filters: Filters, **__: object) -> list[Hit]:
        given.append(filters)
        return []

    monkeypatch.setattr(Gallery, "search", nothing)
    monkeypatch.setattr(Gallery, "remove", lambda gallery, ids, filters: len(nothing(gallery, filters=filters)))
    model, query = str(home / "model.safetensors"), str(home / "footage" / "person9" / "yard" / "visible" / "walk1")
    conditions = ["--camera", "gate", "--camera", "yard", "--collection", "march"]
    conditions += ["--after", "2026-03-01T12:00:00", "--before", "2026-03-02"]
    out = ["--out", str(tmp_path / "s.png")]
    assert main(["search", str(home / "g"), model, "--image-folder", query, "--in", "infrared", *conditions, *out]) == 0
    assert main(["gallery", "remove", str(home / "g"), "--modality", "infrared", *conditions]) == 0
    times = datetime(2026, 3, 1, 12), datetime(2026, 3, 2)
    assert given == [Filters(("gate", "yard"), (Modality.INFRARED,), ("march",), *times)] * 2
    line = ["gallery", "add", str(tmp_path / "full"), model, "--data", str(home / "footage"), "--precision", "float32"]
    assert main([*line, "--collection", "march", "--prefix", "a/", "--no-strips"]) == 0
    with Gallery(tmp_path / "full") as gallery:
        info, ids = gallery.info(), gallery.ids()
        assert info.precision == "float32" and info.by_collection == {"march": 12}
        assert all(id.startswith("a/") and gallery.strip(id) is None for id in ids)


def test_strips_and_sheets_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.full((96, 48, 3), 20 * i, np.uint8) for i in range(12)]
    strip = strip_image(None, frames)
    assert strip[48, 24::48, 0].tolist() == pytest.approx([0, 40, 80, 120, 160, 200], abs=3), "evenly over the tracklet"
    hits = [Hit(f"t{i}", float(i), None, "gate", Modality.VISIBLE, None, None, "default") for i in range(3)]
    told: list[tuple[int, str]] = []
    monkeypatch.setattr("dinogrl.gallery.strips._labels", lambda rank, hit: (told.append((rank, hit.id)), ("", ""))[1])
    draw_sheet(strip, "query", hits, [strip] * 3)
    assert told == [(1, "t0"), (2, "t1"), (3, "t2")]


def test_search_on_the_command_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = home / "footage" / "person8" / "gate" / "infrared" / "walk1"
    line = [
        "search",
        str(home / "g"),
        str(home / "model.safetensors"),
        "--image-folder",
        str(query),
        "--out",
        str(tmp_path / "s.png"),
    ]
    assert main([*line, "--json", str(tmp_path / "s.json"), "--top", "4", "--camera", "gate"]) == 0
    assert "person8/gate/infrared/walk1" in capsys.readouterr().out
    answer = json.loads((tmp_path / "s.json").read_text())
    assert answer["query"] == "walk1, infrared"  # as tracklet.json says
    assert answer["hits"][0]["id"] == "person8/gate/infrared/walk1" and len(answer["hits"]) == 4
    assert {hit["camera"] for hit in answer["hits"]} == {"gate"}
    assert read_frame(tmp_path / "s.png").shape[0] > 5 * 96
    assert main(["gallery", *line, "--json", "-", "--in", "visible", "--modality", "visible"]) == 0
    assert {hit["modality"] for hit in json.loads(capsys.readouterr().out)["hits"]} == {"visible"}
    assert main([*line, "--camera", 'x" or camera != "']) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing in the gallery meets the conditions" in told and told.endswith("s.png: the query alone")
    assert main([*line, "--camera", "Gate", "--collection", "default"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no tracklet is of camera 'Gate'; there are gate, yard" in said and "collection" not in said


def test_searching_with_a_tracklet_by_its_name(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gallery's own is no answer to itself; one of a dataset or of a file is compared with all that the gallery holds."""
    name, model, file = "person8/gate/infrared/walk1", str(home / "model.safetensors"), str(tmp_path / "e.safetensors")
    line = ["search", str(home / "g"), model, "--tracklet", name, "--json", "-", "--out", str(tmp_path / "s.png")]
    assert main(["embed", model, "--data", str(home / "footage"), "--out", file]) == 0
    capsys.readouterr()
    found = {}
    for words in ((), ("--from", file), ("--from", str(home / "footage"))):
        assert main([*line, *words]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["query"] == f"{name}, infrared"
        found[words] = [(hit["id"], hit["distance"]) for hit in answer["hits"]]
        assert read_frame(tmp_path / "s.png")[30:100, 20:100].std() > 20, "the query's frames, and not a grey field"
    own, *others = found.values()
    assert len(own) == 11 and name not in dict(own)
    for other in others:
        assert other[0] == (name, pytest.approx(0, abs=0.02))
        assert dict(other[1:]) == pytest.approx(dict(own), abs=0.02)


def test_vectors_of_another_model_are_no_query(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "other.safetensors", tiny_model("baseline", seed=1), tiny_recipe("baseline", *SMALL), 5, {})
    file = str(tmp_path / "e.safetensors")
    assert main(["embed", str(tmp_path / "other.safetensors"), "--data", str(home / "footage"), "--out", file]) == 0
    line = ["search", str(home / "g"), str(home / "model.safetensors"), "--tracklet", "person8/gate/infrared/walk1"]
    assert main([*line, "--from", file, "--out", str(tmp_path / "s.png")]) == 2
    assert "these cannot be compared" in capsys.readouterr().err and not (tmp_path / "s.png").exists()


def test_pictures_outlive_the_files(home: Path, embedder: Embedder, tmp_path: Path) -> None:
    shutil.copytree(home / "footage", tmp_path / "footage")
    with Gallery(tmp_path / "g", embedder, writable=True) as gallery:
        enrol_folder(gallery, tmp_path / "footage")
    query = home / "footage" / "person8" / "gate" / "infrared" / "walk1"
    shutil.rmtree(tmp_path / "footage")
    line = [
        "search",
        str(tmp_path / "g"),
        str(home / "model.safetensors"),
        "--image-folder",
        str(query),
        "--out",
        str(tmp_path / "s.png"),
    ]
    assert main([*line, "--top", "1"]) == 0
    strip = read_frame(tmp_path / "s.png")[-105:-15, 20:100]
    assert strip.std() > 20, "the hit's frames, and not a grey field"


def test_managing_on_the_command_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, file, there = str(home / "g"), str(tmp_path / "g.zip"), str(tmp_path / "there")
    assert main(["gallery", "backup", here, file]) == 0 and main(["gallery", "restore", file, there]) == 0
    assert main(["gallery", "remove", there, "--camera", "yard"]) == 0
    assert "6 removed, 6 left" in capsys.readouterr().out
    assert main(["gallery", "remove", there, "person8/gate/visible/walk1"]) == 0
    assert main(["gallery", "expire", there, "--older-than", "30d"]) == 0
    assert "0 removed, 5 left" in capsys.readouterr().out
    assert main(["gallery", "info", there]) == 0
    told = capsys.readouterr().out
    assert "kB a tracklet" in told and "gate 5" in told
    assert main(["gallery", "info", there, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tracklets"] == 5
    assert main(["gallery", "remove", there, "--collection", "default"]) == 0 and main(["gallery", "info", there]) == 0
    assert "a tracklet" not in capsys.readouterr().out, "nobody is there to share"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gallery info nowhere", "no gallery at nowhere; make one by: dinogrl gallery add nowhere"),
        ("gallery inf x", "No such command 'inf'"),
        ("gallery restore a.zip b", "no backup at a.zip"),
        ("gallery expire g --older-than soon", "'soon' is no age"),
        ("gallery remove {home}/g", "say what to remove"),
        ("gallery remove nowhere --camera gate", "no gallery at nowhere, or nothing was ever added to it; nothing was removed"),
        ("gallery expire nowhere --older-than 3d", "no gallery at nowhere"),
        ("gallery remove {home}/g nobody", "no tracklet 'nobody' in the gallery; nothing was removed"),
        ("search {home}/g {home}/model.safetensors", "either --image-folder DIR or --video FILE"),
        ("search {home}/g {home}/model.safetensors --tracklet a --video b.mp4", "or --tracklet ID"),
        ("search {home}/g {home}/model.safetensors --image-folder a --from b", "--from says where a tracklet lies"),
        ("search {home}/g {home}/model.safetensors --tracklet a --modality visible", "leave --modality out"),
        ("search {home}/g {home}/model.safetensors --tracklet Gate/visible", "'person8/gate/visible/walk1' or 'person9/gate/visi"),
        ("search {home}/g {home}/model.safetensors --tracklet person8/gatte/visible/walk1", "mean 'person8/gate/visible/walk1'"),
        ("search {home}/g {home}/model.safetensors --tracklet x9 --from {home}/footage", "'x9' in {home}/footage; it has person"),
        ("search {home}/g {home}/model.safetensors --tracklet x9 --from {home}/model.safetensors", "a file of another kind"),
        ("search {home}/g {home}/model.safetensors --tracklet x9 --from nowhere", "no dataset at nowhere"),
        ("search {home}/g {home}/model.safetensors --image-folder nowhere --out {home}/footage", "footage is a folder"),
        ("search {home}/g {home}/model.safetensors --image-folder nowhere --out {home}/s.txt", "give it a name that ends in .png"),
        ("search {home}/g {home}/model.safetensors --image-folder nowhere", "no folder at nowhere"),
        ("search {home}/g {home}/model.safetensors --image-folder {home}", "no image in"),
        ("search {home}/g nothing.safetensors --image-folder {home}", "at nothing.safetensors"),
        ("gallery add {home}/footage {home}/model.safetensors --data {home}/footage", "is no gallery, and not empty"),
        ("gallery add new {home}/model.safetensors --data nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_line(home: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.format(home=home).split()) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and message.format(home=home) in said


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("30d", 720), (" 1.5 d ", 36), ("2w", 336), ("90m", 1.5), ("36525d", 876_600)]
)
def test_ages(text: str, hours: float) -> None:
    assert age_of(text).total_seconds() == hours * 3600


@pytest.mark.parametrize("text", ["", "d", "-3d", "3", "3y", "1e9d", "9999999d", "999999d", "5219w"])
def test_no_ages(text: str) -> None:
    with pytest.raises(GalleryError, match="is no age"):
        age_of(text)


def test_broken_frames_are_said(home: Path, embedder: Embedder, tmp_path: Path) -> None:
    shutil.copytree(home / "footage", tmp_path / "footage")
    (tmp_path / "footage" / "person9" / "gate" / "visible" / "walk1" / "1.jpg").write_bytes(b"")
    with (
        Gallery(tmp_path / "g", embedder, writable=True) as gallery,
        pytest.raises(DataError, match=r"person9/gate/visible/walk1/1\.jpg"),
    ):
        enrol_folder(gallery, tmp_path / "footage")


@pytest.mark.parametrize("page", ["README.md", "docs/gallery.md"])
def test_the_ten_lines_of_the_pages_run(
    home: Path, tmp_path: Path, repository: Path, page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for where the model and the pictures lie."""
    text = (repository / page).read_text(encoding="utf-8")
    program = next(
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "enrol_folder(" in block
    )
    shutil.copytree(home / "footage", tmp_path / "footage")
    for frame in ("1.jpg", "2.jpg"):
        shutil.copy(home / "footage" / "person9" / "gate" / "visible" / "walk1" / frame, tmp_path / frame)
    monkeypatch.chdir(tmp_path)
    exec(
        compile(program.replace("runs/vcm/model.safetensors", str(home / "model.safetensors")), page, "exec"), {"__name__": "page"}
    )
    assert "person" in capsys.readouterr().out
