"""Small galleries of made-up embeddings: identities as clusters, part by part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from dinogrl.gallery import Entry
from dinogrl.records import Modality

MODEL = "0123456789abcdef"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAMERAS = ("gate", "yard", 'the "north" door', "l'entrée \\ 2")


def embeddings(identities: int = 20, each: int = 5, parts: int = 4, depth: int = 8, seed: int = 0) -> np.ndarray:
    """(identities * each,P,D): a person's own vectors and noise."""
    random = np.random.default_rng(seed)
    own = random.standard_normal((identities, 1, parts, depth))
    return (own + 0.4 * random.standard_normal((identities, each, parts, depth))).reshape(-1, parts, depth).astype(np.float32)


def entries(count: int, prefix: str = "t") -> list[Entry]:
    """Facts that go round: cameras by four, modalities by two, collections by three, a minute apart; every seventh has no time."""
    return [
        Entry(
            id=f"{prefix}{i}",
            camera=CAMERAS[i % len(CAMERAS)],
            modality=Modality(i % 2),
            start=None if i % 7 == 6 else NOON + timedelta(minutes=i),
            end=None if i % 7 == 6 else NOON + timedelta(minutes=i, seconds=30),
            collection=("default", "march", 'it\'s "mine"')[i % 3],
            frames=(f"footage/{i}/1.jpg", f"footage/{i}/2.jpg"),
        )
        for i in range(count)
    ]
