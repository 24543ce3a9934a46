"""Is a dataset on disk whole and fit for use? Everything that is wrong is named; nothing that lies there can stop the check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dinogrl.data.datasets import DATASETS, read_dataset
from dinogrl.data.datasets.layout import Choices, Counts
from dinogrl.data.frames import fault
from dinogrl.data.problems import Problems
from dinogrl.data.sightings import UNKNOWN
from dinogrl.errors import DataError
from dinogrl.records import Dataset, Modality, Tracklet
from dinogrl.runtime import threads


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    ``splits``: ``"train visible"``, ``"query infrared"`` ... -> identities, tracklets, images that would be used. ``published`` is
    one sentence that compares them with the authors' counts, empty where there are none. ``left_out``: what the reader dropped on
    purpose. ``training`` and ``evaluation``: could they run, with unreadable frames stopping them? ``simulated``: a simulation
    wrote it. ``search_only``: nobody in it has a name yet (:data:`dinogrl.data.sightings.UNKNOWN`), but all frames are whole.
    """

    root: Path
    layout: str
    splits: dict[str, Counts]
    problems: Problems
    training: bool
    evaluation: bool
    published: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    frames_checked: int = 0
    full: bool = False
    simulated: bool = False
    search_only: bool = False

    @property
    def usable(self) -> bool:
        """Could both training and evaluation run? Where nobody has a name they cannot; there it is enough to embed and search."""
        return self.search_only or (self.training and self.evaluation)

    @property
    def counts(self) -> dict[str, int]:
        """The same numbers by one name each: ``"train visible tracklets"`` -> 5460."""
        titles = ("identities", "tracklets", "images")
        return {f"{split} {title}": getattr(counts, title) for split, counts in self.splits.items() for title in titles}

    def tally(self) -> dict[str, int]:
        """Number of errors, warnings and notes."""
        found = Counter(problem.severity for problem in self.problems)
        return {"error": found["error"], "warning": found["warning"], "note": found["note"]}


def check_dataset(
    root: str | Path,
    layout: str = "auto",
    *,
    full: bool = False,
    min_frames: int = 12,
    discard_train: str | Path | None = None,
    discard_test: str | Path | None = None,
    trial: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check index and frames of a dataset.

    Every frame is looked at by size, first and last bytes; with ``full`` every one is decoded. ``progress`` is called with the
    numbers of frames done and to do. Raises only :class:`dinogrl.errors.UnknownNameError`, for a layout that there is not.
    """
    root = Path(root)
    problems = Problems()
    try:
        discards = [None if path is None else Path(path) for path in (discard_train, discard_test)]
        dataset = read_dataset(root, layout, Choices(min_frames, discards[0], discards[1], trial), problems)
    except (DataError, OSError) as error:
        if isinstance(error, DataError) and layout != "auto" and layout not in DATASETS:
            raise
        problems.error(root, str(error))
        return CheckReport(root, "unknown" if layout == "auto" else layout, {}, problems, training=False, evaluation=False)
    index_errors = problems.errors()
    if index_errors and not any(_splits(dataset).values()):  # nothing could be read: all else would only follow from that
        return CheckReport(root, dataset.name, {}, problems, training=False, evaluation=False)
    nameless = _nobody_has_a_name(dataset, problems)
    training = not nameless and _check_training(dataset, problems)
    evaluation = not nameless and _check_evaluation(dataset, problems)
    if not nameless:
        _check_shared_identities(dataset, problems)
    _check_repeated_frames(dataset, problems)
    counts = _count(dataset)
    published = _compare(counts, DATASETS[dataset.name].published, dataset.simulated, problems)
    broken, checked = _check_frames(dataset, full, progress, problems)
    return CheckReport(
        root=root,
        layout=dataset.name,
        splits=counts,
        problems=problems,
        training=training and not index_errors and "train" not in broken,
        evaluation=evaluation and not index_errors and "test" not in broken,
        published=published,
        left_out=dataset.left_out,
        frames_checked=checked,
        full=full,
        simulated=dataset.simulated,
        search_only=nameless and not index_errors and not broken,
    )


def _splits(dataset: Dataset) -> dict[str, Sequence[Tracklet]]:
    return {"train": dataset.train, "auxiliary": dataset.auxiliary, "query": dataset.query, "gallery": dataset.gallery}


def _count(dataset: Dataset) -> dict[str, Counts]:
    counts = {}
    for split, tracklets in _splits(dataset).items():
        for modality in Modality:
            chosen = [tracklet for tracklet in tracklets if tracklet.modality is modality]
            if chosen:
                identities = len({tracklet.identity for tracklet in chosen})
                images = sum(len(tracklet.frames) for tracklet in chosen)
                counts[f"{split} {modality.name.lower()}"] = Counts(identities, len(chosen), images)
    return counts


def _compare(counts: dict[str, Counts], published: dict[str, Counts], simulated: bool, problems: Problems) -> str:
    """One sentence. A simulated set, or one with less than half the published training identities, is not compared."""
    reference = published.get("train visible")
    if reference is None or reference.identities is None:
        return ""
    if simulated:
        return "published counts: not compared (a simulated world)"
    found = counts.get("train visible", Counts(0, 0, 0))
    if (found.identities or 0) * 2 < reference.identities:
        size = f"{found.identities} training identities, the published set has {reference.identities:,}"
        return f"published counts: not compared ({size})"
    differences = []
    for split, expected in published.items():
        have = counts.get(split, Counts(0, 0, 0))
        for title in ("identities", "tracklets", "images"):
            wanted, given = getattr(expected, title), getattr(have, title)
            if wanted is not None and wanted != given:
                differences.append(f"{split} {title} {given:,} (published {wanted:,})")
    if not differences:
        return "published counts: match"
    sentence = "published counts: differ: " + ", ".join(differences)
    problems.warning("dataset", sentence)
    return sentence


def _nobody_has_a_name(dataset: Dataset, problems: Problems) -> bool:
    """Is this footage as it was cut, each track under a name that says that it is unknown?"""
    nameless = bool(dataset.identity_names) and all(name.startswith(UNKNOWN) for name in dataset.identity_names.values())
    if nameless:
        tracks = len(dataset.identity_names)
        problems.note(
            "identities", f"{tracks} tracks and no names: fit to embed and search; to train or evaluate, name their folders"
        )
    return nameless


def _check_training(dataset: Dataset, problems: Problems) -> bool:
    """Training needs two identities that both modalities have seen."""
    seen = [{t.identity for t in dataset.train if t.modality is modality} for modality in Modality]
    both = seen[0] & seen[1]
    if one := len(seen[0] ^ seen[1]):
        problems.note("training tracklets", f"{one} identities were seen by one modality only and are never drawn")
    if len(both) < 2:
        problems.error("training tracklets", f"{len(both)} identities were seen by both modalities; training needs at least 2")
    return len(both) >= 2


def _check_evaluation(dataset: Dataset, problems: Problems) -> bool:
    """Evaluation needs a query with a gallery tracklet of the same identity in the other modality."""
    gallery = {(t.identity, t.modality) for t in dataset.gallery}
    lonely = [t.id for t in dataset.query if (t.identity, Modality(1 - t.modality)) not in gallery]
    if len(lonely) == len(dataset.query):
        problems.error(
            "test tracklets", f"none of {len(lonely)} queries has a gallery tracklet of the other modality; evaluation cannot run"
        )
        return False
    if lonely:
        problems.note(
            "test tracklets", f"{len(lonely)} queries have no gallery tracklet of the other modality, the first is {lonely[0]}"
        )
    return True


def _check_shared_identities(dataset: Dataset, problems: Problems) -> None:
    test = [*dataset.query, *dataset.gallery]
    train_ids = {(t.root, t.id) for t in dataset.train}
    if train_ids and train_ids <= {(t.root, t.id) for t in test}:
        problems.note("dataset", "no train/test split: the same tracklets serve both, so scores will flatter the model")
        return
    people = {t.identity for t in (*dataset.train, *dataset.auxiliary)} & {t.identity for t in test}
    for identity in sorted(people):
        problems.warning(f"identity {dataset.identity_names[identity]}", "is in both the training and the test tracklets")


def _check_repeated_frames(dataset: Dataset, problems: Problems) -> None:
    """No frame may be in two tracklets, or in one twice."""
    for tracklets in ((*dataset.train, *dataset.auxiliary), (*dataset.query, *dataset.gallery)):
        owner: dict[str, str] = {}
        for tracklet in tracklets:
            for frame in tracklet.frames:
                first = owner.setdefault(f"{tracklet.root}/{frame}", tracklet.id)
                if first != tracklet.id:
                    problems.warning(tracklet.id, f"frame {frame} is in tracklet {first} too")
            if len(set(tracklet.frames)) < len(tracklet.frames):
                repeated = sorted(frame for frame, times in Counter(tracklet.frames).items() if times > 1)
                problems.warning(tracklet.id, f"the same frame twice: {', '.join(repeated)}")


def _check_frames(
    dataset: Dataset, full: bool, progress: Callable[[int, int], None] | None, problems: Problems
) -> tuple[set[str], int]:
    """Look at every file once. Returns which of ``train`` and ``test`` hold a bad one, and how many files there are."""
    uses: dict[str, set[str]] = {}
    for split, tracklets in _splits(dataset).items():
        use = "train" if split in ("train", "auxiliary") else "test"
        for tracklet in tracklets:
            for frame in tracklet.frames:
                uses.setdefault(f"{tracklet.root}/{frame}", set()).add(use)
    broken: set[str] = set()
    for number, (path, wrong) in enumerate(_faults(list(uses), full), start=1):
        if wrong is not None:
            problems.error(path, wrong)
            broken |= uses[path]
        if progress is not None and (number % 1000 == 0 or number == len(uses)):
            progress(number, len(uses))
    return broken, len(uses)


def _faults(paths: list[str], full: bool) -> Iterator[tuple[str, str | None]]:
    """(path, what is wrong) in order. Threads help: the work is waiting for the disk, or decoding, which frees the interpreter."""
    chunks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
    with ThreadPoolExecutor(max_workers=max(2, threads())) as pool:
        for chunk, faults in zip(chunks, pool.map(lambda chunk: [fault(path, full) for path in chunk], chunks)):
            yield from zip(chunk, faults)
