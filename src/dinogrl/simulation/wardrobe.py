"""What people wear and carry: shapes that every camera sees, dyes that only daylight shows, materials that only infrared shows."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from dinogrl.catalog import Catalog

MATERIALS: Catalog[tuple[float, float]] = Catalog(
    "material",
    {
        "cotton": (0.50, 0.88),
        "wool": (0.30, 0.66),
        "synthetic": (0.16, 0.92),
        "leather": (0.07, 0.45),
        "denim": (0.36, 0.72),
        "skin": (0.52, 0.68),
        "hair": (0.16, 0.46),
    },
)
"""Range of the near-infrared reflectance of each material. Dyes are nearly transparent there, so colour has no part in it."""

CLOTH = ("cotton", "wool", "synthetic", "leather", "denim")


class Pattern(IntEnum):
    """How the second colour lies on the first."""

    PLAIN = 0
    RINGS = 1
    PINSTRIPES = 2
    PLAID = 3
    LOGO = 4
    BLOCK = 5
    FACE = 6


@dataclass(frozen=True)
class Surface:
    """How a thing looks: two visible colours (RGB, 0..1), two infrared reflectances, and the pattern they make.

    ``scale`` is the period of the pattern in metres, or the height (0..1) of the border for BLOCK and FACE; ``fold`` the depth
    of creases.
    """

    colour: tuple[float, float, float]
    second: tuple[float, float, float]
    infrared: float
    infrared_second: float
    material: str
    pattern: Pattern = Pattern.PLAIN
    scale: float = 0.08
    fold: float = 0.1
    phase: float = 0.0


@dataclass(frozen=True)
class Outfit:
    """Everything on a person. Lengths in metres, shares in 0..1."""

    top: Surface
    bottom: Surface
    shoes: Surface
    skin: Surface
    head: Surface
    hat_surface: Surface
    bag_surface: Surface
    sleeves: float
    """Share of the arm that is covered."""
    legs: float
    """Share of the leg that trousers or shorts cover; 0 under a skirt."""
    skirt: float
    """Length of a skirt below the hips as a share of the leg; 0 for none."""
    coat: float
    """Length of a coat below the hips as a share of the leg; 0 for none."""
    padding: float
    """Thickness of the top."""
    trouser_width: float
    """What trousers add to the calf."""
    hood: bool
    hat: str
    """"", "cap" or "beanie"."""
    hair: float
    """Volume of the hair over the skull in metres."""
    long_hair: float
    """Length of hair down the back in metres; 0 for none."""
    bag: str
    """"", "backpack", "shoulder" or "suitcase"."""
    bag_size: float


def draw_outfit(rng: np.random.Generator) -> Outfit:
    """Draw clothes, hair and things carried."""
    kind = rng.choice(["tshirt", "shirt", "jacket", "hoodie", "coat"], p=[0.2, 0.25, 0.2, 0.15, 0.2])
    lower = rng.choice(["trousers", "wide", "shorts", "skirt"], p=[0.45, 0.2, 0.12, 0.23])
    skin = _skin(rng)
    hair_colour = _hair_colour(rng)
    hair_infrared = _reflectance(rng, "hair")
    long_hair = float(rng.uniform(0.12, 0.42)) if rng.random() < 0.35 else 0.0
    head = Surface(skin.colour, hair_colour, skin.infrared, hair_infrared, "skin", Pattern.FACE, float(rng.uniform(0.6, 0.8)), 0.02)
    return Outfit(
        top=_garment(rng, patterned=True),
        bottom=_garment(rng, patterned=lower == "skirt"),
        shoes=_garment(rng, patterned=False),
        skin=skin,
        head=head,
        hat_surface=_garment(rng, patterned=False),
        bag_surface=_garment(rng, patterned=False),
        sleeves=float(rng.uniform(0.22, 0.5)) if kind == "tshirt" else 1.0,
        legs={"shorts": float(rng.uniform(0.3, 0.55)), "skirt": 0.0}.get(str(lower), 1.0),
        skirt=float(rng.uniform(0.32, 0.85)) if lower == "skirt" else 0.0,
        coat={"coat": float(rng.uniform(0.3, 0.72)), "jacket": 0.12, "hoodie": 0.1}.get(str(kind), 0.0),
        padding={"tshirt": 0.004, "shirt": 0.009, "hoodie": 0.02}.get(str(kind), float(rng.uniform(0.015, 0.04))),
        trouser_width=float(rng.uniform(0.028, 0.055)) if lower == "wide" else float(rng.uniform(0.004, 0.018)),
        hood=bool(kind == "hoodie" or (kind in {"jacket", "coat"} and rng.random() < 0.25)),
        hat=str(rng.choice(["", "cap", "beanie"], p=[0.76, 0.13, 0.11])),
        hair=float(rng.uniform(0.004, 0.03)),
        long_hair=long_hair,
        bag=str(rng.choice(["", "backpack", "shoulder", "suitcase"], p=[0.44, 0.24, 0.22, 0.10])),
        bag_size=float(rng.uniform(0.8, 1.25)),
    )


def _garment(rng: np.random.Generator, patterned: bool) -> Surface:
    material = str(rng.choice(CLOTH))
    kinds = [Pattern.PLAIN, Pattern.RINGS, Pattern.PINSTRIPES, Pattern.PLAID, Pattern.LOGO, Pattern.BLOCK]
    pattern = Pattern(rng.choice(kinds, p=[0.44, 0.13, 0.08, 0.09, 0.16, 0.1])) if patterned else Pattern.PLAIN
    infrared = _reflectance(rng, material)
    # A dyed pattern all but vanishes in infrared; a printed or sewn one is a material of its own.
    sewn = pattern in {Pattern.LOGO, Pattern.BLOCK} and rng.random() < 0.6
    infrared_second = _reflectance(rng, str(rng.choice(CLOTH))) if sewn else infrared * float(rng.uniform(0.92, 1.08))
    scale = float(rng.uniform(0.35, 0.7)) if pattern == Pattern.BLOCK else float(rng.uniform(0.05, 0.16))
    return Surface(
        dye(rng),
        dye(rng),
        infrared,
        infrared_second,
        material,
        pattern,
        scale,
        float(rng.uniform(0.05, 0.16)),
        float(rng.uniform(0, 6.28)),
    )


def _reflectance(rng: np.random.Generator, material: str) -> float:
    return float(rng.uniform(*MATERIALS[material]))


def dye(rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour of cloth: often a neutral, else a hue."""
    kind = rng.random()
    if kind < 0.3:
        return colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0, 0.25), rng.uniform(0.05, 0.24))
    if kind < 0.5:
        return colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0, 0.15), rng.uniform(0.3, 0.9))
    return colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0.35, 0.85), rng.uniform(0.25, 0.85))


def _skin(rng: np.random.Generator) -> Surface:
    tone = rng.uniform(0, 1)
    colour = (0.36 + 0.5 * tone, 0.22 + 0.42 * tone, 0.15 + 0.38 * tone)
    reflectance = _reflectance(rng, "skin")
    return Surface(colour, colour, reflectance, reflectance, "skin", fold=0.02)


def _hair_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    tones = ((0.05, 0.04, 0.04), (0.13, 0.08, 0.05), (0.28, 0.18, 0.1), (0.55, 0.42, 0.24), (0.55, 0.54, 0.53))
    red, green, blue = tones[rng.choice(len(tones), p=[0.4, 0.27, 0.15, 0.1, 0.08])]
    light = rng.uniform(0.8, 1.25)
    return (red * light, green * light, blue * light)
