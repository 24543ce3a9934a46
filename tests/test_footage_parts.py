"""The parts along the line: boxes, detectors, tracks, movement, modality, crops, and the notes beside a tracklet."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

from dinogrl.data.frames import read_frame
from dinogrl.data.sightings import SeenFrame, Sighting, read_sighting, write_sighting
from dinogrl.errors import DinogrlError
from dinogrl.footage.boxes import Boxes, alone, merged, nesting, overlap
from dinogrl.footage.clothes import WINDOW, clothes, newcomer
from dinogrl.footage.crops import TALLEST, crop, inside_share, sharpness
from dinogrl.footage.detect import HogDetector, load_detector
from dinogrl.footage.ledger import BoxJournal
from dinogrl.footage.modality import COLOURED, GREY, colourfulness, with_modality
from dinogrl.footage.movement import MovementGate
from dinogrl.footage.track import Tracker
from dinogrl.footage.video import Thinning, open_source
from dinogrl.records import Modality
from tiny_films import TWO, background, draw

BOX = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30))


def area_of(box: tuple[int, int, int, int]) -> np.ndarray:
    """A box as the pixels that it covers."""
    pixels = np.zeros((80, 80), bool)
    pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
    return pixels


@given(a=BOX, b=BOX)
def test_overlap_and_nesting_count_pixels(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    first, second = area_of(a), area_of(b)
    both = (first & second).sum()
    assert overlap(np.array(a, float), np.array([b], float))[0] == pytest.approx(both / (first | second).sum())
    assert nesting(np.array(a, float), np.array([b], float))[0] == pytest.approx(both / min(first.sum(), second.sum()))


@given(found=st.lists(st.tuples(BOX, st.integers(1, 100)), max_size=12), seed=st.integers(0, 99))
def test_merging_does_not_depend_on_the_order(found: list[tuple[tuple[int, int, int, int], int]], seed: int) -> None:
    """OpenCV's threads deliver boxes in any order."""
    boxes = Boxes(np.array([box for box, _ in found], float).reshape(-1, 4), np.array([score / 100 for _, score in found]))
    order = np.random.default_rng(seed).permutation(len(found))
    one = alone(merged(boxes, 0.4))
    other = alone(merged(Boxes(boxes.boxes[order], boxes.scores[order]), 0.4))
    assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
    for index in range(len(one)):
        rest = np.delete(one.boxes, index, axis=0)
        assert not np.any(nesting(one.boxes[index], rest) > 0.7)


def test_a_cluster_becomes_its_mean_weighted_by_score() -> None:
    found = merged(Boxes(np.array([[0, 0, 20, 40], [4, 8, 24, 44], [90, 0, 20, 40]], float), np.array([0.9, 0.3, 0.5])), 0.3)
    assert found.boxes.tolist() == [pytest.approx([1, 2, 21, 41]), [90, 0, 20, 40]] and found.scores.tolist() == [0.9, 0.5]


# -- detectors ----------------------------------------------------------------------------------------------------------------


def test_hog_finds_the_three_walkers_of_a_real_street(shared: Path) -> None:
    with open_source(shared / "data" / "vtest" / "vtest.avi") as source:
        picture = next(iter(source.pictures(Thinning())))
    assert picture is not None
    found = HogDetector()(picture.image)
    walkers = [(265, 262), (514, 195), (663, 280)]  # their middles, read off the picture by eye
    for x, y in walkers:
        inside = [
            score for (left, top, width, height), score in zip(found.boxes, found.scores)
            if left < x < left + width and top < y < top + height and 60 < height < 140
        ]  # fmt: skip
        assert len(inside) == 1 and inside[0] > 0.6
    assert len(found) <= 8, "a few false ones stand still and are told by that"


def test_hog_gives_nothing_for_nothing_and_takes_tiny_pictures() -> None:
    assert len(HogDetector()(np.full((240, 320, 3), 127, np.uint8))) == 0
    assert len(HogDetector()(np.zeros((8, 8, 3), np.uint8))) == 0


@pytest.fixture(scope="module")
def tiny_detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOS of one layer, as transformers writes it, that knows persons and cars and sees persons everywhere."""
    folder = tmp_path_factory.mktemp("detector")
    labels = {0: "person", 1: "car"}
    torch.manual_seed(1)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 64],
        num_detection_tokens=5,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
        use_mid_position_embeddings=False,
    )
    network = YolosForObjectDetection(config)
    with torch.no_grad():
        network.class_labels_classifier.layers[-1].bias.copy_(torch.tensor([6.0, 0.0, 0.0]))
    network.save_pretrained(folder)
    YolosImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_a_detector_of_transformers_gives_boxes_in_pixels(tiny_detr: Path, capfd: pytest.CaptureFixture[str]) -> None:
    detector = load_detector(str(tiny_detr), "cpu")
    assert capfd.readouterr() == ("", ""), "the command has a bar of its own"
    image = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    found = detector(image)
    assert len(found) >= 1 and np.all(found.scores > 0.9) and detector.sees_still
    middles = found.boxes[:, :2] + found.boxes[:, 2:] / 2
    assert np.all((middles > 0) & (middles < [80, 48]))
    assert np.array_equal(found.boxes, detector(image).boxes)


def test_a_detector_in_half_precision_is_read_in_full(tiny_detr: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_detr, tmp_path / "half")
    YolosForObjectDetection.from_pretrained(tiny_detr).half().save_pretrained(folder)
    image = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    half, full = (load_detector(str(place), "cpu")(image) for place in (folder, tiny_detr))
    assert np.allclose(half.boxes, full.boxes, atol=0.5)


def test_a_detector_in_pickles_without_persons_or_broken_is_refused(tiny_detr: Path, tmp_path: Path) -> None:
    def variant(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in tiny_detr.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    pickled, cars, broken = variant("pickled"), variant("cars"), variant("broken")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    config = (cars / "config.json").read_text()
    (cars / "config.json").write_text(config.replace("person", "bicycle"))
    (broken / "model.safetensors").write_bytes((tiny_detr / "model.safetensors").read_bytes()[:500])
    for folder, hint in (
        (pickled, "model.safetensors"),
        (cars, "knows no person, only: bicycle, car"),
        (broken, "cannot read weights"),
    ):
        with pytest.raises(DinogrlError, match=hint):
            load_detector(str(folder), "cpu")
    with pytest.raises(DinogrlError, match="no detector 'hogg'"):
        load_detector("hogg")


# -- tracks and movement ------------------------------------------------------------------------------------------------------


def test_tracks_keep_their_people_through_gaps_and_number_from_one() -> None:
    for _ in range(2):  # a second tracker numbers from one again, whatever the first has done
        tracker = Tracker(rate=10)
        owner: dict[int, set[int]] = {}
        for frame in range(60):
            boxes = {number: walker.box(frame) for number, walker in enumerate(TWO)}
            if 30 <= frame < 36:
                boxes.pop(0)  # hidden for six pictures
            seen = [box for box in boxes.values() if box is not None]
            found = Boxes(np.array(seen, float).reshape(-1, 4), np.full(len(seen), 0.9))
            for person in tracker.update(found):
                who = min(range(2), key=lambda n: abs((TWO[n].box(frame) or (1e9,))[0] - person.box[0]))
                owner.setdefault(person.track, set()).add(who)
        assert owner == {1: {0}, 2: {1}}


def test_a_weak_box_goes_on_with_a_track_but_begins_none() -> None:
    tracker, weak = Tracker(rate=10), Tracker(rate=10)
    box = np.array([[10.0, 10, 20, 50]])
    for frame in range(12):
        score = 0.9 if frame < 6 else 0.3
        persons = tracker.update(Boxes(box + np.array([frame, 0, 0, 0]), np.array([score])))
        assert not weak.update(Boxes(box + np.array([frame, 0, 0, 0]), np.array([0.3])))
    assert [person.track for person in persons] == [1]
    assert tracker.update(Boxes.none()) == []


def test_only_what_moves_passes_the_gate() -> None:
    gate = MovementGate(rate=10)
    post = (150.0, 80.0, 24.0, 60.0)  # nothing is there but the background
    passed = []
    for frame in range(40):
        walker = TWO[0].box(frame)
        found = gate(draw(TWO[:1], frame), Boxes(np.array([walker, post]), np.array([0.9, 0.9])))
        passed.append([tuple(box) for box in found.boxes])
    assert all(post not in boxes for boxes in passed)
    assert sum(len(boxes) for boxes in passed[15:]) >= 23, "the walker, once he has left where he stood"


def test_large_pictures_are_looked_at_smaller_with_their_boxes() -> None:
    """720 rows: the background is kept in 288."""
    gate, passed = MovementGate(rate=10), []
    for frame in range(30):
        picture = cv2.resize(draw(TWO[:1], frame), (1200, 720), interpolation=cv2.INTER_NEAREST)
        box = 5 * np.array(TWO[0].box(frame))
        passed.append(len(gate(picture, Boxes(box[None], np.array([0.9])))))
    assert sum(passed[15:]) >= 13


# -- modality -----------------------------------------------------------------------------------------------------------------


def compressed(image: np.ndarray, codec: str, **options: str) -> np.ndarray:
    """A picture that went through a video codec."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = image.shape[0], image.shape[1], "yuvj420p" if codec == "mjpeg" else "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize(("codec", "options"), [("mpeg4", {"qmin": "20", "qmax": "31"}), ("libx264", {"crf": "40"}), ("mjpeg", {})])
def test_grey_is_told_from_colour_through_codecs_noise_and_tint(codec: str, options: dict[str, str]) -> None:
    if codec not in av.codecs_available:
        pytest.fail(f"PyAV comes without {codec}")
    random = np.random.default_rng(1)
    scene = cv2.resize(draw(TWO, 20), (480, 288))
    grey = np.repeat(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    noisy = grey + random.normal(0, 15, grey.shape)  # colour noise of a sensor that sees no colour
    purple = grey * [1.0, 0.85, 0.95] + [8, -8, 10]
    faded = grey + 0.4 * (scene - grey.astype(float))
    for name, picture in {"grey": grey, "noisy": noisy, "purple": purple}.items():
        assert colourfulness(compressed(np.clip(picture, 0, 255).astype(np.uint8), codec, **options)) < GREY, name
    for name, picture in {"colour": scene, "faded": faded}.items():
        assert colourfulness(compressed(np.clip(picture, 0, 255).astype(np.uint8), codec, **options)) > COLOURED, name


def test_real_thermal_frames_are_grey_and_a_real_street_is_not(shared: Path) -> None:
    for path in sorted((shared / "data" / "tno_fel").glob("*/thermal/*.png"))[::10]:
        assert colourfulness(read_frame(path)) < GREY
    with open_source(shared / "data" / "vtest" / "vtest.avi") as source:
        pictures = [picture for picture in source.pictures(Thinning(every=200)) if picture is not None]
    assert all(colourfulness(picture.image) > 2 * COLOURED for picture in pictures)


@given(switch=st.integers(9, 50), length=st.integers(60, 80), flashes=st.sets(st.integers(0, 79), max_size=3))
def test_a_switch_is_found_at_its_picture_and_flashes_are_not(switch: int, length: int, flashes: set[int]) -> None:
    lonely = {f for f in flashes if abs(f - switch) > 12 and 8 < f < length - 8}
    lonely = {f for f in lonely if all(abs(f - other) > 9 for other in lonely - {f})}
    values = [(0.5 if frame >= switch else 30.0) for frame in range(length)]
    for flash in lonely:
        values[flash] = 30.5 - values[flash]
    told = list(with_modality(enumerate(values)))
    assert [thing for thing, _ in told] == list(range(length))
    assert [modality for _, modality in told] == [Modality.INFRARED if f >= switch else Modality.VISIBLE for f in range(length)]


def test_between_the_bounds_it_stays_what_it_was() -> None:
    middle = (GREY + COLOURED) / 2
    for begin, modality in ((30.0, Modality.VISIBLE), (0.0, Modality.INFRARED)):
        told = [m for _, m in with_modality((i, begin if i < 20 else middle) for i in range(60))]
        assert set(told) == {modality}
    assert list(with_modality([])) == []


# -- crops, notes, journal ----------------------------------------------------------------------------------------------------


@given(left=st.floats(-30, 250), top=st.floats(-30, 150), width=st.floats(1, 150), height=st.floats(1, 200))
def test_a_crop_is_padded_never_stretched(left: float, top: float, width: float, height: float) -> None:
    image = background()
    assume(inside_share(image, (left, top, width, height)) > 0.2)
    cut = crop(image, (left, top, width, height))
    assert abs(cut.shape[0] - 2 * cut.shape[1]) <= 2
    assert cut.shape[0] >= min(height, TALLEST) - 1 and cut.shape[1] >= min(width, TALLEST / 2) - 1


def test_a_crop_holds_the_pixels_of_the_picture() -> None:
    image = background()
    cut = crop(image, (100, 20, 30, 80))  # 88 rows and 44 columns about the middle (115, 60)
    assert np.array_equal(cut, image[16:104, 93:137])
    assert np.array_equal(crop(image, (-20, 20, 30, 80))[:, :5], np.repeat(image[16:104, :1], 5, axis=1)), "the edge is repeated"
    assert inside_share(image, (-20, 20, 40, 80)) == pytest.approx(0.5)


def test_sharpness_falls_with_blur_and_heeds_neither_light_nor_contrast() -> None:
    person = crop(draw(TWO, 20), TWO[0].box(20))
    values = [sharpness(cv2.GaussianBlur(person, (0, 0), sigma) if sigma else person) for sigma in (0, 0.5, 1.5)]
    assert values[0] > 0.2 > values[1] > 0.07 > values[2]
    dim = (person * 0.4 + 60).astype(np.uint8)
    assert sharpness(dim) == pytest.approx(values[0], rel=0.1)


@given(moment=st.integers(0, 2 * WINDOW), step=st.floats(0, 120), seed=st.integers(0, 99))
def test_a_newcomer_is_told_by_his_clothes(moment: int, step: float, seed: int) -> None:
    """Clothes of noise, with a jump at a known moment: it is found there when it is large, and never invented."""
    random = np.random.default_rng(seed)
    seen = 100 + random.normal(0, 2, (2 * WINDOW, 6)).astype(np.float32)
    seen[moment:, 4] += step  # of the legs
    count = newcomer(list(seen), 45.0)
    assert newcomer(list(seen[:-1]), 45.0) == 0, "too few to say"
    if step < 40 or moment in (0, 2 * WINDOW):
        assert count == 0
    if step > 50 and abs(moment - WINDOW) <= 3:
        assert count == 2 * WINDOW - moment


def test_clothes_are_those_of_the_walker() -> None:
    red, blue = (clothes(crop(draw(TWO, 20), walker.box(20))) for walker in TWO)
    assert np.abs(red[:3] - blue[:3]).max() > 45 > np.abs(red[3:] - blue[3:]).max(), "other coats, the same trousers"


SIGHTING = Sighting(
    "street.mp4", "00c0ffee", "gate", Modality.INFRARED, 7, "hog", datetime.fromisoformat("2026-11-21T18:30:00+01:00"),
    (SeenFrame("0001.jpg", 12, 1.2, (1.0, 2.0, 3.5, 9.0), 0.9), SeenFrame("0002.jpg", 14, 1.4, (1.5, 2.0, 3.5, 9.0), 0.8)),
)  # fmt: skip


def test_notes_come_back_as_they_were_written(tmp_path: Path) -> None:
    for sighting in (SIGHTING, replace(SIGHTING, started=None)):
        write_sighting(tmp_path, sighting)
        assert read_sighting(tmp_path) == sighting
    assert SIGHTING.ended_at == datetime.fromisoformat("2026-11-21T18:30:01.400+01:00") and sighting.ended_at is None
    assert read_sighting(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"frames": []}', '{"frames": [{"box": [1]}]}', "nonsense", "null"])
def test_broken_notes_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "tracklet.json").write_text(content)
    with pytest.raises(DinogrlError, match=r"tracklet\.json"):
        read_sighting(tmp_path)


def test_the_journal_gives_back_what_was_found_and_asks_for_the_rest(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    found = [Boxes(random.random((n, 4)) * 100, random.random(n)) for n in (2, 0, 3, 1)]
    first = BoxJournal(tmp_path / "boxes.jsonl")
    given_out = [first.boxes(index * 3, lambda boxes=boxes: boxes) for index, boxes in enumerate(found[:3])]
    first.close()
    content = (tmp_path / "boxes.jsonl").read_bytes()
    (tmp_path / "boxes.jsonl").write_bytes(content + b"[9, [")
    second = BoxJournal(tmp_path / "boxes.jsonl")
    asked: list[int] = []
    again = [second.boxes(i * 3, lambda i=i: asked.append(i) or found[i]) for i in range(4)]  # type: ignore[misc]
    second.close()
    assert asked == [3]
    for one, other in zip(given_out, again):
        assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
    assert (tmp_path / "boxes.jsonl").read_bytes().startswith(content)
