"""What a human parser gives, whatever its network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinogrl.data.frames import Image
from dinogrl.errors import DataError


@dataclass(frozen=True)
class Parsing:
    """Of one picture: the number of the likeliest class, int64 (H,W); whether that is part of a person, booleans (H,W); and how
    probable a person is, float32 (H,W)."""

    classes: NDArray[np.int64]
    inside: NDArray[np.bool_]
    person: NDArray[np.float32]

    def mask(self, hard: bool = False) -> NDArray[np.uint8]:
        """The silhouette as a grey picture, 255 where the person is. ``hard``: 0 or 255, by the likeliest class."""
        levels = np.where(self.inside, 255, 0) if hard else np.rint(self.person * 255)
        return levels.astype(np.uint8)


class HumanParser(Protocol):
    """Parses pictures of people. ``identity`` says what it is and which weights it has: the same text, the same masks."""

    identity: str

    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """RGB pictures (H,W,3) of any sizes -> what each shows, at its own size."""
        ...


def parsing_of(probabilities: Tensor, persons: Collection[int] | None = None) -> Parsing:
    """Probabilities (classes,H,W) -> :class:`Parsing`. ``persons``: the classes that are parts of a person; all but the first where
    not given. Raises :class:`DataError` for probabilities that are no numbers: of them any mask could be made."""
    if not torch.isfinite(probabilities).all():
        raise DataError("the parser's output is not finite; its weights are broken, or too large for this device's precision")
    classes = probabilities.argmax(dim=0)
    parts = torch.tensor(sorted(range(1, len(probabilities)) if persons is None else persons), device=classes.device)
    person = probabilities[parts].sum(dim=0).clamp(0, 1)
    return Parsing(classes.cpu().numpy(), torch.isin(classes, parts).cpu().numpy(), person.float().cpu().numpy())


def by_size(pictures: Sequence[Image], parse: Callable[[list[Image]], list[Parsing]]) -> list[Parsing]:
    """``parse`` the pictures of each size together, the results in the order of the pictures."""
    done: dict[int, Parsing] = {}
    for shape in dict.fromkeys(picture.shape for picture in pictures):
        places = [place for place, picture in enumerate(pictures) if picture.shape == shape]
        done.update(zip(places, parse([pictures[place] for place in places]), strict=True))
    return [done[place] for place in range(len(pictures))]
