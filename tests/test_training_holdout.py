"""The score of held-out identities, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dinogrl.errors import DataError
from dinogrl.records import Embeddings, Modality
from dinogrl.training.holdout import holdout_score

# place on a line, identity, camera, modality
INFRARED = [(0.0, 0, 5, Modality.INFRARED), (1.2, 1, 6, Modality.INFRARED)]
VISIBLE = [(0.1, 0, 5, Modality.VISIBLE), (3.0, 0, 1, Modality.VISIBLE), (1.0, 1, 2, Modality.VISIBLE)]


def embeddings(rows: list[tuple[float, int, int, Modality]]) -> Embeddings:
    places, identities, cameras, modalities = zip(*rows, strict=True)
    return Embeddings(
        parts=np.array(places, np.float32).reshape(-1, 1, 1),
        tracklet_ids=[str(row) for row in range(len(rows))],
        identities=np.array(identities),
        cameras=np.array(cameras),
        modalities=np.array([int(modality) for modality in modalities]),
        fingerprint="",
    )


def test_both_directions_without_the_querys_own_camera() -> None:
    scores = holdout_score(embeddings([*VISIBLE, *INFRARED]), "mean_part")
    # Infrared person 0 is not looked for in camera 5, its own: person 1 at 1.0 comes before person 0 at 3.0. Person 1 is found.
    # Of the visible ones the first has nobody left to find, the second finds person 1 first, the third is right.
    for direction in ("infrared_to_visible", "visible_to_infrared"):
        assert scores[f"{direction}_rank1"] == pytest.approx(0.5)
        assert scores[f"{direction}_mAP"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["score"] == pytest.approx((0.5 + 0.75) / 2)


@pytest.mark.parametrize("rows", [VISIBLE, INFRARED])
def test_held_out_people_of_one_modality_cannot_be_scored(rows: list[tuple[float, int, int, Modality]]) -> None:
    with pytest.raises(DataError, match=r"lack one modality; raise training\.holdout"):
        holdout_score(embeddings(rows), "mean_part")
