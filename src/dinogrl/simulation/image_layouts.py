"""Layouts of datasets of single images: the frames of every walk lie there as images of their own."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from dinogrl.errors import DinogrlError
from dinogrl.records import Modality
from dinogrl.runtime import derived_seed
from dinogrl.simulation.casting import BOTH, Sighting, cast_apart, cast_by_camera
from dinogrl.simulation.plans import Plan, Take, lines
from dinogrl.simulation.settings import Settings

SYSU_CAMERAS = {
    1: Modality.VISIBLE,
    6: Modality.INFRARED,
    2: Modality.VISIBLE,
    3: Modality.INFRARED,
    4: Modality.VISIBLE,
    5: Modality.VISIBLE,
}
"""In the order in which a world with fewer cameras has them."""


def plan_sysu_mm01(settings: Settings) -> Plan:
    """``cam<1..6>/<pid4>/<image4>.jpg`` and lists of identities in ``exp/``; a quarter of the training people are in val_id.txt."""
    _limit(settings, "SYSU-MM01", len(SYSU_CAMERAS))
    cameras = {number - 1: modality for number, modality in list(SYSU_CAMERAS.items())[: settings.cameras]}
    whole = Plan()
    images: dict[str, int] = defaultdict(int)
    for split, people, first in (("train", settings.train, 1), ("test", settings.test, settings.train + 1)):
        for sighting in cast_by_camera(settings, split, people, cameras):
            folder = f"cam{sighting.camera + 1}/{first + sighting.person:04d}"
            start = images[folder]
            images[folder] += settings.frames
            files = tuple(f"{folder}/{number:04d}.jpg" for number in range(start + 1, start + settings.frames + 1))
            whole.takes.append(Take(sighting, {sighting.modalities[0]: files}))
    val = max(1, settings.train // 4) if settings.train > 1 else 0
    ends = {"train": settings.train - val, "val": settings.train, "test": settings.identities}
    start = 0
    for name, end in ends.items():
        if end > start:
            whole.texts[f"exp/{name}_id.txt"] = _numbers(range(start + 1, end + 1))
        start = end
    whole.texts["exp/available_id.txt"] = _numbers(range(1, settings.identities + 1))
    return whole


REGDB_TRIALS = 10


def plan_regdb(settings: Settings) -> Plan:
    """``{Visible,Thermal}/<pid>/<image>.jpg``, both modalities at once by one camera, and the lists of ten splits in ``idx/``.

    The first split is that of the settings, the others part the same people at random.
    """
    whole = Plan()
    rows: dict[tuple[int, Modality], list[str]] = {}
    folders = {Modality.VISIBLE: ("visible", "v"), Modality.INFRARED: ("thermal", "t")}
    for split, people, first in (("train", settings.train, 1), ("test", settings.test, settings.train + 1)):
        for person in range(people):
            pid = first + person
            for walk in range(settings.tracklets):
                files = {}
                for modality, (word, letter) in folders.items():
                    numbers = range(walk * settings.frames + 1, (walk + 1) * settings.frames + 1)
                    files[modality] = tuple(f"{word.capitalize()}/{pid}/walk_{letter}_{n:05d}_{pid}.jpg" for n in numbers)
                    rows.setdefault((pid, modality), []).extend(files[modality])
                whole.takes.append(Take(Sighting(split, person, 0, walk, BOTH), files))
    everybody = np.arange(1, settings.identities + 1)
    for trial in range(1, REGDB_TRIALS + 1):
        random = np.random.default_rng(derived_seed(settings.seed, "trial", trial))
        order = everybody if trial == 1 else random.permutation(everybody)
        for split, pids in (("train", order[: settings.train]), ("test", order[settings.train :])):
            for modality, (word, _) in folders.items():
                listed = [f"{name} {label}" for label, pid in enumerate(pids.tolist()) for name in rows[pid, modality]]
                whole.texts[f"idx/{split}_{word}_{trial}.txt"] = lines(listed)
    return whole


LLCM_CAMERAS = 9


def plan_llcm(settings: Settings) -> Plan:
    """``{vis,nir}/<pid4>/<image>.jpg`` and two lists for training, ``test_{vis,nir}/cam<n>/<pid4>/`` and a list of people."""
    _limit(settings, "LLCM", LLCM_CAMERAS)
    whole = Plan()
    words = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
    listed: dict[str, list[str]] = {word: [] for word in words.values()}
    for split, people, first in (("train", settings.train, 1), ("test", settings.test, settings.train + 1)):
        for sighting in cast_apart(settings, split, people):
            modality = sighting.modalities[0]
            word, pid, camera = words[modality], first + sighting.person, sighting.camera + 1
            folder = f"{word}/{pid:04d}" if split == "train" else f"test_{word}/cam{camera}/{pid:04d}"
            names = [f"{pid:04d}_c{camera:02d}_s{sighting.walk}_f{n}_{word}.jpg" for n in range(1, settings.frames + 1)]
            files = tuple(f"{folder}/{name}" for name in names)
            whole.takes.append(Take(sighting, {modality: files}))
            if split == "train":
                listed[word] += [f"{name} {sighting.person}" for name in files]
    for word, rows in listed.items():
        whole.texts[f"idx/train_{word}.txt"] = lines(rows)
    whole.texts["idx/test_id.txt"] = _numbers(range(settings.train + 1, settings.identities + 1))
    return whole


def _limit(settings: Settings, name: str, cameras: int) -> None:
    if settings.cameras > cameras:
        raise DinogrlError(f"cameras is {settings.cameras}; {name} has {cameras}: give {cameras} or fewer")
    if settings.identities > 9999:
        raise DinogrlError(f"identities is {settings.identities}; {name}'s folders have four digits: give 9999 or fewer")


def _numbers(identities: range) -> str:
    return ",".join(map(str, identities)) + "\n"
