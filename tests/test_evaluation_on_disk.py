"""Every protocol against a literal one that reads the dataset's own files with a few lines of its own.

Query, gallery, what is struck out, which images are drawn: all of it done again by hand, from the same random vectors.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tiny_datasets
from dinogrl.data.datasets import open_dataset
from dinogrl.distances import mean_part_distance
from dinogrl.evaluation import evaluate, write_metrics
from dinogrl.records import Embeddings, Tracklet


@dataclass(frozen=True)
class Seen:
    """What the literal side knows of a tracklet: its first file, below the folder that holds the identities."""

    file: str
    person: int
    camera: str


def vector(file: str, person: int) -> np.ndarray:
    """(P,D) of a tracklet, near to its person's and by noise its own."""
    own = np.random.default_rng(person).standard_normal((3, 4))
    return (own + 1.2 * np.random.default_rng(zlib.crc32(file.encode())).standard_normal((3, 4))).astype(np.float32)


def embed(tracklets: Sequence[Tracklet], names: dict[int, str]) -> Embeddings:
    return Embeddings(
        parts=np.stack([vector(t.frames[0], int(names[t.identity])) for t in tracklets]),
        tracklet_ids=[t.id for t in tracklets],
        identities=np.array([t.identity for t in tracklets]),
        cameras=np.array([t.camera for t in tracklets]),
        modalities=np.array([int(t.modality) for t in tracklets]),
        fingerprint="f",
    )


Strike = Callable[[Seen, Seen], bool]


def same_person_and_camera(query: Seen, other: Seen) -> bool:
    return query.person == other.person and query.camera == other.camera


def nothing(query: Seen, other: Seen) -> bool:
    return False


def score(queries: list[Seen], gallery: list[Seen], strike: Strike, unique: bool = False) -> dict[str, float]:
    """Rank-1, rank-5, mAP and counts, query by query."""
    matrix = mean_part_distance(*(np.stack([vector(s.file, s.person) for s in side]) for side in (queries, gallery)))
    firsts, precisions = [], []
    for row, query in enumerate(queries):
        order = [gallery[column] for column in np.argsort(matrix[row], kind="stable")]
        kept = [other.person for other in order if not strike(query, other)]
        places = [place for place, person in enumerate(kept) if person == query.person]
        if not places:
            continue
        precisions.append(float(np.mean([(i + 1) / (place + 1) for i, place in enumerate(places)])))
        people = list(dict.fromkeys(kept)) if unique else kept
        firsts.append(people.index(query.person))
    rates = {"rank1": np.mean(np.array(firsts) < 1), "rank5": np.mean(np.array(firsts) < 5), "mAP": np.mean(precisions)}
    return {**{k: float(v) for k, v in rates.items()}, "queries": len(firsts), "gallery": len(gallery)}


def mean(trials: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([trial[name] for trial in trials])) for name in trials[0]}


def agrees(root: Path, protocol: str, expected: dict[str, dict[str, float]]) -> None:
    dataset = open_dataset(root)
    result = evaluate(*(embed(side, dataset.identity_names) for side in (dataset.query, dataset.gallery)), protocol)
    found = {name: outcome.scores.as_dict() for name, outcome in result.directions.items()}
    assert set(found) == set(expected)
    for name, scores in expected.items():
        assert {key: found[name][key] for key in scores} == pytest.approx(scores), name
        assert result.directions[name].scores.protocol == protocol
    assert any(0 < scores["mAP"] < 1 for scores in expected.values()), "the vectors make it neither trivial nor hopeless"


def test_hitsz_vcm(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=1, test=5, cameras=(1, 2, 3))
    names = (root / "info/test_name.txt").read_text().split()
    query_rows = {int(word) - 1 for word in (root / "info/query_IDX.txt").read_text().split()}
    infrared, visible = [], []
    for row, line in enumerate((root / "info/track_test_info.txt").read_text().splitlines()):
        modality, start, _, person, camera = line.split()
        name = names[int(start) - 1]
        file = f"{person}/{'ir' if modality == '1' else 'rgb'}/D{camera}/{name.split('F')[1]}"
        (infrared if row in query_rows else visible).append(Seen(file, int(person), camera))
    expected = {
        "infrared_to_visible": score(infrared, visible, same_person_and_camera),
        "visible_to_infrared": score(visible, infrared, same_person_and_camera),
    }
    agrees(root, "hitsz-vcm", expected)


def bupt_lists(root: Path) -> dict[tuple[str, str], list[Seen]]:
    lists: dict[tuple[str, str], list[Seen]] = {}
    for name in ("query", "gallery"):
        for line in (root / f"{name}.txt").read_text().splitlines():
            person, modality, camera, tracklet = line.split()
            file = f"{person}/{modality}/{camera}/{person}_{modality}_{camera}_{tracklet}_1.jpg"
            lists.setdefault((name, modality), []).append(Seen(file, int(person), camera))
    return lists


@pytest.fixture(scope="module")
def campus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 test people, 100 of them visible queries, of which whole batches of 64 keep 64 (batches of 32 would keep 96)."""
    root = tiny_datasets.buptcampus(tmp_path_factory.mktemp("campus"), train=1, auxiliary=1, test=200, length=1)
    lines = (root / "gallery.txt").read_text().splitlines()
    more = [f"{line.split()[0]} RGB G25 1" for line in lines[::6]]  # another modality from the query's own camera
    more = [line for line in more if f"{line.split()[0]} IR G25 1" in (root / "query.txt").read_text()]
    (root / "gallery.txt").write_text("\n".join(lines[: -2 * len(more)] + more) + "\n")
    return root


@pytest.mark.parametrize("protocol", ["buptcampus-legacy", "buptcampus-full", "buptcampus-camera"])
def test_buptcampus(campus: Path, protocol: str) -> None:
    lists = bupt_lists(campus)
    if protocol == "buptcampus-legacy":  # the authors' sampler drops the last incomplete batch of RGB
        for name in ("query", "gallery"):
            rgb = lists[name, "RGB"]
            lists[name, "RGB"] = [seen for start in range(0, len(rgb) - 63, 64) for seen in rgb[start : start + 64]]
            assert 0 < len(lists[name, "RGB"]) < len(rgb)
    strike = same_person_and_camera if protocol == "buptcampus-camera" else nothing
    expected = {
        "infrared_to_visible": score(lists["query", "IR"], lists["gallery", "RGB"], strike),
        "visible_to_infrared": score(lists["query", "RGB"], lists["gallery", "IR"], strike),
    }
    agrees(campus, protocol, expected)
    if protocol == "buptcampus-camera":
        plain = score(lists["query", "IR"], lists["gallery", "RGB"], nothing)
        assert plain != expected["infrared_to_visible"], "striking out the own camera makes a difference here"


def test_people_of_a_test_who_ask_by_one_modality_only_all_count(campus: Path, tmp_path: Path) -> None:
    dataset = open_dataset(campus)
    result = evaluate(*(embed(side, dataset.identity_names) for side in (dataset.query, dataset.gallery)), "buptcampus-full")
    written = write_metrics(tmp_path / "metrics.json", result, dataset="buptcampus", model="any", frames_per_clip=1)
    assert written.people == len({seen.person for side in bupt_lists(campus).values() for seen in side}) == 200
    assert max(direction.identities for direction in written.directions.values()) == 100


def folder_images(root: Path, camera: str, person: int) -> list[Seen]:
    folder = root / camera / f"{person:04d}"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [Seen(f"{camera}/{person:04d}/{name}", person, camera[-1]) for name in names]


@pytest.mark.parametrize(
    ("protocol", "cameras", "shots"),
    [
        ("sysu-mm01", "1245", 1),
        ("sysu-mm01-multi", "1245", 10),
        ("sysu-mm01-indoor", "12", 1),
        ("sysu-mm01-indoor-multi", "12", 10),
    ],
)
def test_sysu_mm01(tmp_path: Path, protocol: str, cameras: str, shots: int) -> None:
    root = tiny_datasets.sysu_mm01(tmp_path, train=1, val=1, test=5, images=12)
    for path in (root / "cam2/0004").iterdir():
        if int(path.stem) > 7:
            path.unlink()  # fewer than ten shots
    people = [int(word) for word in (root / "exp/test_id.txt").read_text().split(",")]
    queries = [seen for person in people for camera in "36" for seen in folder_images(root, f"cam{camera}", person)]
    trials = []
    for trial in range(10):
        random.seed(trial)
        gallery = []
        for person in sorted(people):
            for camera in cameras:
                there = folder_images(root, f"cam{camera}", person)
                gallery += [random.choice(there)] if shots == 1 else random.sample(there, min(shots, len(there)))
        trials.append(score(queries, gallery, lambda q, g: (q.camera, g.camera) == ("3", "2"), unique=True))
    agrees(root, protocol, {"infrared_to_visible": mean(trials)})


def test_llcm(tmp_path: Path) -> None:
    root = tiny_datasets.llcm(tmp_path, train=2, test=6, images=4)
    people = [int(word) for word in (root / "idx/test_id.txt").read_text().split(",")]

    def side(word: str) -> list[list[Seen]]:
        """A cell for every person and camera."""
        cells = [folder_images(root, f"test_{word}/cam{camera}", person) for person in people for camera in range(1, 10)]
        return [cell for cell in cells if cell]

    expected = {}
    for name, asking, searched in (("infrared_to_visible", "nir", "vis"), ("visible_to_infrared", "vis", "nir")):
        queries = [seen for cell in side(asking) for seen in cell]
        trials = []
        for trial in range(10):
            random.seed(trial)
            gallery = [random.choice(cell) for cell in side(searched)]
            trials.append(score(queries, gallery, same_person_and_camera, unique=True))
        expected[name] = mean(trials)
    agrees(root, "llcm", expected)


def test_regdb(tmp_path: Path) -> None:
    root = tiny_datasets.regdb(tmp_path, train=2, test=8, images=3, trials=1)
    sides = {}
    for word in ("visible", "thermal"):
        files = [line.split()[0] for line in (root / f"idx/test_{word}_1.txt").read_text().splitlines()]
        sides[word] = [Seen(file, int(file.split("/")[1]), word) for file in files]
    expected = {
        "infrared_to_visible": score(sides["thermal"], sides["visible"], nothing),
        "visible_to_infrared": score(sides["visible"], sides["thermal"], nothing),
    }
    agrees(root, "regdb", expected)


def test_folder(tmp_path: Path) -> None:
    """Without lists of queries all test tracklets of one modality search all of the other, in other cameras than their own."""
    root = tiny_datasets.folder(tmp_path, people=5, length=1)
    sides: dict[str, list[Seen]] = {"visible": [], "infrared": []}
    for folder in list((root / "test").iterdir()):
        folder.rename(root / "test" / folder.name.removeprefix("person"))  # as numbers
    for path in sorted((root / "test").glob("*/*/*/*/*.jpg")):
        person, camera, modality, *_ = path.parts[-5:]
        sides[modality].append(Seen("/".join(path.parts[-5:]), int(person), camera))
    expected = {
        "infrared_to_visible": score(sides["infrared"], sides["visible"], same_person_and_camera),
        "visible_to_infrared": score(sides["visible"], sides["infrared"], same_person_and_camera),
    }
    agrees(root, "folder", expected)
