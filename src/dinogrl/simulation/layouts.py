"""The real datasets' layouts on disk: where the frames of each walk go, and what the lists say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

from dinogrl.catalog import Catalog
from dinogrl.errors import DinogrlError
from dinogrl.records import Modality
from dinogrl.simulation.casting import BOTH, Sighting, cast_apart, cast_together
from dinogrl.simulation.image_layouts import plan_llcm, plan_regdb, plan_sysu_mm01
from dinogrl.simulation.plans import Plan, Take, lines
from dinogrl.simulation.settings import Settings


def plan(settings: Settings) -> Plan:
    """Lay out a dataset. Raises :class:`DinogrlError` for a layout that is unknown or too small for what is asked."""
    return LAYOUTS[settings.layout](settings)


# HITSZ-VCM: one camera folder holds all tracklets of a person; the info files say which frames belong together.
FRAME_STEP = 5
"""Frame numbers go up in fives, as sub-sampled video's do."""


def plan_hitsz_vcm(settings: Settings) -> Plan:
    """``{Train,Test}/<pid4>/<ir|rgb>/D<camera>/<frame>.jpg`` and the five files of ``info/``."""
    if settings.identities > 9999:
        raise DinogrlError(f"identities is {settings.identities}; HITSZ-VCM's file names hold four digits: give 9999 or fewer")
    whole = Plan()
    first_pid = 1
    for split, people in (("train", settings.train), ("test", settings.test)):
        names: list[str] = []
        tracks: list[str] = []
        queries: list[int] = []
        used: dict[tuple[int, Modality, int], int] = defaultdict(int)
        numbers: dict[int, int] = defaultdict(int)
        for sighting in sorted(cast_apart(settings, split, people), key=lambda s: (s.person, s.modalities, s.camera, s.walk)):
            modality, pid, camera = sighting.modalities[0], first_pid + sighting.person, sighting.camera + 1
            infrared = modality == Modality.INFRARED
            numbers[pid] += 1
            seen = used[pid, modality, camera]
            used[pid, modality, camera] += settings.frames
            frames = [1 + FRAME_STEP * (seen + k) for k in range(settings.frames)]
            folder = f"{split.capitalize()}/{pid:04d}/{'ir' if infrared else 'rgb'}/D{camera}"
            whole.takes.append(Take(sighting, {modality: tuple(f"{folder}/{frame}.jpg" for frame in frames)}))
            tracks.append(f"{1 if infrared else 2} {len(names) + 1} {len(names) + len(frames)} {pid:04d} {camera}")
            names += [f"{pid:04d}M{1 if infrared else 2}D{camera}T{numbers[pid]}F{frame}.jpg" for frame in frames]
            if infrared:
                queries.append(len(tracks))
        whole.texts[f"info/{split}_name.txt"] = lines(names)
        whole.texts[f"info/track_{split}_info.txt"] = lines(tracks)
        if split == "test":
            whole.texts["info/query_IDX.txt"] = " ".join(map(str, queries)) + "\n"
        first_pid += people
    return whole


# BUPTCampus: every walk is a pixel-aligned pair.
BUPT_CAMERAS = ("LS3", "G25", "CQ1", "W4", "TSG1", "TSG2")
_BUPT_MODALITIES = {Modality.VISIBLE: "RGB", Modality.INFRARED: "IR"}
AUXILIARY = 5
"""One training identity in five is seen by a single camera and stands in train_auxiliary.txt; one at least."""


def plan_buptcampus(settings: Settings) -> Plan:
    """``DATA/<pid>/<RGB|IR>/<camera>/...``, ``data_paths.json`` and the four lists.

    Of each test identity one walk is a query, by day or by night in turn; the gallery holds the other cameras' walks in both.
    """
    if settings.cameras > len(BUPT_CAMERAS):
        raise DinogrlError(f"cameras is {settings.cameras}; BUPTCampus has {len(BUPT_CAMERAS)}: give {len(BUPT_CAMERAS)} or fewer")
    whole = Plan()
    paths: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = {}
    lists: dict[str, list[str]] = {"train": [], "train_auxiliary": [], "query": [], "gallery": []}
    count: dict[str, int] = defaultdict(int)

    def add(sighting: Sighting, pid: str, kind: str) -> None:
        count[pid] += 1
        tracklet, camera = str(count[pid]), BUPT_CAMERAS[sighting.camera]
        files = {}
        for modality in sighting.modalities:
            name = _BUPT_MODALITIES[modality]
            files[modality] = tuple(
                f"{pid}/{name}/{camera}/{pid}_{name}_{camera}_{tracklet}_{frame}.jpg" for frame in range(1, settings.frames + 1)
            )
            paths.setdefault(pid, {}).setdefault(name, {}).setdefault(camera, {})[tracklet] = list(files[modality])
        whole.takes.append(Take(sighting, {m: tuple(f"DATA/{path}" for path in found) for m, found in files.items()}))
        spoken = [_BUPT_MODALITIES[m] for m in sighting.modalities]
        lists[kind] += [f"{pid} {m} {camera} {tracklet}" for m in (spoken if kind == "gallery" else ["/".join(spoken)])]

    auxiliary = max(settings.train // AUXILIARY, 1) if settings.train > 1 else 0
    for sighting in cast_together(settings, "train", settings.train):
        if sighting.person < settings.train - auxiliary:
            add(sighting, str(sighting.person + 1), "train")
    for sighting in cast_together(settings, "train", settings.train, cameras=1):
        if sighting.person >= settings.train - auxiliary:
            add(sighting, str(sighting.person + 1), "train_auxiliary")
    asked: dict[int, int] = {}
    for sighting in cast_together(settings, "test", settings.test):
        pid = str(settings.train + sighting.person + 1)
        first = asked.setdefault(sighting.person, sighting.camera)
        if sighting.camera != first:
            add(sighting, pid, "gallery")
        elif sighting.walk == 0:
            one = (BOTH[(sighting.person + 1) % 2],)
            add(Sighting(sighting.split, sighting.person, sighting.camera, sighting.walk, one), pid, "query")
    whole.texts = {f"{name}.txt": lines(rows) for name, rows in lists.items() if rows}
    whole.texts["data_paths.json"] = json.dumps(paths, indent=1) + "\n"
    return whole


def plan_folder(settings: Settings) -> Plan:
    """``{train,test}/<identity>/<camera>/<visible|infrared>/<tracklet>/<frame>.jpg``; there are no lists."""
    whole = Plan()
    first_pid = 1
    for split, people in (("train", settings.train), ("test", settings.test)):
        for sighting in cast_apart(settings, split, people):
            modality = sighting.modalities[0]
            pid = first_pid + sighting.person
            folder = f"{split}/{pid:04d}/camera{sighting.camera + 1}/{modality.name.lower()}/{sighting.walk + 1:02d}"
            whole.takes.append(Take(sighting, {modality: tuple(f"{folder}/{k:04d}.jpg" for k in range(1, settings.frames + 1))}))
        first_pid += people
    return whole


LAYOUTS: Catalog[Callable[[Settings], Plan]] = Catalog(
    "layout",
    {
        "hitsz-vcm": plan_hitsz_vcm,
        "buptcampus": plan_buptcampus,
        "sysu-mm01": plan_sysu_mm01,
        "regdb": plan_regdb,
        "llcm": plan_llcm,
        "folder": plan_folder,
    },
)
"""The layouts that a simulated dataset can be written in."""
