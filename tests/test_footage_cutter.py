"""From tracks to tracklets: who is one person, how his tracklets are numbered, and what is remembered of his clothes."""

from __future__ import annotations

import numpy as np

from dinogrl.footage.clothes import clothes
from dinogrl.footage.cutter import Cut, Cutter
from dinogrl.footage.settings import FootageSettings
from dinogrl.footage.track import Tracked
from dinogrl.footage.video import Picture
from dinogrl.records import Modality
from tiny_films import Walker, draw

RED, BLUE = Walker(10, 60, 0.0), Walker(10, 60, 0.0, colour=1)
GAP = None
Seen = tuple[int, Walker, bool]
"""Number of the track, who is at its place, is the picture infrared?"""


def cuts(seen: list[list[Seen] | None], **settings: float) -> list[tuple[int, int, str, list[int]]]:
    """Person, part, modality and frames of every tracklet; one picture a tenth of a second, None for one without anybody."""
    cutter = Cutter(FootageSettings(**{"min_frames": 1, "min_sharpness": 0, "max_crowding": 1, **settings}))  # type: ignore[arg-type]
    found: list[Cut] = []
    for index, tracks in enumerate(seen):
        infrared = bool(tracks) and tracks[0][2]
        image = draw([walker for _, walker, _ in tracks or ()], index, infrared)
        tracked = [Tracked(track, walker.box(0), 0.9) for track, walker, _ in tracks or ()]  # type: ignore[arg-type]
        found += cutter.add(Picture(index, index / 10, image), Modality(infrared), tracked)
    found += cutter.flush()
    return [(cut.person, cut.part, cut.modality.name, [frame.index for frame in cut.frames]) for cut in found]


def of(walker: Walker, count: int, track: int = 7, infrared: bool = False) -> list[list[Seen] | None]:
    return [[(track, walker, infrared)] for _ in range(count)]


def test_clothes_are_colours_in_which_light_counts_half() -> None:
    """Lab of pure red and of white, each from 0 to 255."""
    crop = np.full((64, 32, 3), (255, 0, 0), np.uint8)
    crop[34:52] = 255
    np.testing.assert_allclose(clothes(crop), [136 / 2, 208, 195, 255 / 2, 128, 128], atol=1)


def test_people_are_numbered_as_they_come_and_tracklets_within_each() -> None:
    """Whatever numbers the tracker gives; by day, by night, and by day again the parts are counted on."""
    other = Walker(150, 60, 0.0, colour=1)
    seen: list[list[Seen] | None] = []
    for infrared in (False, True, False):
        seen += [[(9, RED, infrared), (4, other, infrared)] for _ in range(20)]
    found = cuts(seen)
    assert sorted(found) == [
        (person, part, kind, list(range(20 * (part - 1), 20 * part)))
        for person in (1, 2)
        for part, kind in ((1, "VISIBLE"), (2, "INFRARED"), (3, "VISIBLE"))
    ]


def test_what_is_too_short_takes_no_number() -> None:
    found = cuts([*of(RED, 10), *of(RED, 3, infrared=True), *of(RED, 10)], min_frames=5)
    assert [one[:3] for one in found] == [(1, 1, "VISIBLE"), (1, 2, "VISIBLE")]


def test_after_an_absence_a_track_goes_on_as_the_same_person() -> None:
    found = cuts([*of(RED, 10), *[GAP] * 15, *of(RED, 10)])
    assert found == [(1, 1, "VISIBLE", list(range(10))), (1, 2, "VISIBLE", list(range(25, 35)))]


def test_a_gap_that_is_just_allowed_is_bridged() -> None:
    assert len(cuts([*of(RED, 10), *[GAP] * 4, *of(RED, 10)], max_gap=0.5)) == 1
    assert len(cuts([*of(RED, 10), *[GAP] * 5, *of(RED, 10)], max_gap=0.5)) == 2


def test_a_newcomer_is_told_once_and_whoever_comes_back_is_somebody_new() -> None:
    """Whom he looks like is for the search to say."""
    found = cuts([*of(RED, 50), *of(BLUE, 20), *of(RED, 20)])
    assert found == [
        (1, 1, "VISIBLE", list(range(50))),
        (2, 1, "VISIBLE", list(range(50, 70))),
        (3, 1, "VISIBLE", list(range(70, 90))),
    ]


def test_a_newcomer_who_is_older_than_the_tracklet_takes_all_of_it() -> None:
    """Tracklets end after eleven frames: what was finished before he was noticed stays, what is open is his."""
    found = cuts([*of(RED, 21), *of(BLUE, 19)], max_frames=11)
    assert [one[:2] for one in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert found[2][3] == list(range(22, 33)) and found[3][3] == list(range(33, 40))


def test_clothes_of_the_night_are_not_held_against_those_of_the_day() -> None:
    """Cameras switch back and forth at dusk, and everybody turns grey."""
    seen: list[list[Seen] | None] = []
    for number in range(6):
        seen += of(RED, 10, infrared=number % 2 == 1)
    assert [one[:2] for one in cuts(seen)] == [(1, part) for part in range(1, 7)]
