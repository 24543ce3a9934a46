"""What the classes of human parsers mean: the label sets of LIP, ATR, Pascal-Person-Part and CIHP, background first."""

from __future__ import annotations

from dataclasses import dataclass

from dinogrl.catalog import Catalog


@dataclass(frozen=True)
class LabelSet:
    """Classes of a dataset by number; 0 is the background.

    ``sides``: pairs of classes that change places in a mirrored picture. ``regions``: the five coarse regions of Grapy-ML's second
    level (background, head, torso, arms, legs), each a tuple of classes; empty where Grapy-ML does not know the set.
    """

    name: str
    classes: tuple[str, ...]
    sides: tuple[tuple[int, int], ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()


LIP = LabelSet(
    "lip",
    ("background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks", "trousers", "jumpsuit", "scarf",
     "skirt", "face", "left arm", "right arm", "left leg", "right leg", "left shoe", "right shoe"),
    sides=((14, 15), (16, 17), (18, 19)),
)  # fmt: skip
ATR = LabelSet(
    "atr",
    ("background", "hat", "hair", "sunglasses", "upper clothes", "skirt", "trousers", "dress", "belt", "left shoe", "right shoe",
     "face", "left leg", "right leg", "left arm", "right arm", "bag", "scarf"),
    sides=((9, 10), (12, 13), (14, 15)),
    regions=((0,), (1, 2, 3, 11), (4, 5, 7, 8, 16, 17), (14, 15), (6, 9, 10, 12, 13)),
)  # fmt: skip
PASCAL = LabelSet(
    "pascal",
    ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    regions=((0,), (1,), (2,), (3, 4), (5, 6)),
)
CIHP = LabelSet(
    "cihp",
    ("background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks", "trousers", "torso skin",
     "scarf", "skirt", "face", "left arm", "right arm", "left leg", "right leg", "left shoe", "right shoe"),
    sides=((14, 15), (16, 17), (18, 19)),
    regions=((0,), (1, 2, 4, 13), (5, 6, 7, 10, 11, 12), (3, 14, 15), (8, 9, 16, 17, 18, 19)),
)  # fmt: skip

LABELS: Catalog[LabelSet] = Catalog("label set", {labels.name: labels for labels in (LIP, ATR, PASCAL, CIHP)})
