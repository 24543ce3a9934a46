"""Embeddings in the plane: t-SNE, UMAP, or the two principal components, which need no further package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dinogrl.catalog import Catalog
from dinogrl.distances import DISTANCES
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import Outcome

PEOPLE = 10
EACH = 50  # tracklets of one person in one modality
FEWEST = 8  # tracklets; of fewer, neighbours say nothing


@dataclass(frozen=True)
class Flat:
    """Tracklets of a few people in the plane: ``points`` (N,2), ``identities`` (N,), ``modalities`` (N,). ``method`` made it, and
    ``note`` says why this one, and what distances on the map mean."""

    points: np.ndarray
    identities: np.ndarray
    modalities: np.ndarray
    method: str
    note: str


Projection = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Centred vectors (N,D), their distances (N,N) and a seed -> points (N,2)."""


def principal_components(rows: np.ndarray, distances: np.ndarray, seed: int) -> np.ndarray:
    """The two directions in which the vectors vary most; distances on the map are part of the true ones."""
    left, sizes, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def t_sne(rows: np.ndarray, distances: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, 2008) of the distances by which the test ranks."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise _missing("t-SNE", "scikit-learn") from error
    start = principal_components(rows, distances, seed)
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    made = TSNE(metric="precomputed", init=start, perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(distances)
    return np.asarray(made, dtype=np.float64)


def umap(rows: np.ndarray, distances: np.ndarray, seed: int) -> np.ndarray:
    """UMAP (McInnes and others, 2018) of the distances by which the test ranks."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise _missing("UMAP", "umap-learn") from error
    reducer = UMAP(metric="precomputed", n_neighbors=min(15, len(rows) - 1), init="random", random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="using precomputed metric")  # it could not be inverted; nobody wants to
        return np.asarray(reducer.fit_transform(distances), dtype=np.float64)


PROJECTIONS: Catalog[Projection] = Catalog("projection", {"pca": principal_components, "tsne": t_sne, "umap": umap})
CHOICES: Catalog[str] = Catalog("projection", {"auto": "tsne", **{name: name for name in PROJECTIONS}})
TITLES = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}
MEANING = {
    "pca": "distances on the map are part of the true ones",
    "tsne": "who lies together is near; how far groups are apart means nothing",
    "umap": "who lies together is near; how far groups are apart means little",
}


def flatten(outcome: Outcome, distance: str, projection: str = "auto", seed: int = 0) -> Flat:
    """Lay the tracklets of the :data:`PEOPLE` people with the most of them into the plane, both modalities in one map; of more than
    :data:`EACH` of one person in one modality as many, spread evenly over them.

    ``projection``: an entry of :data:`CHOICES`; ``auto`` is t-SNE where scikit-learn is installed. Principal components take the
    place of what cannot be done: too few tracklets, or with ``auto`` a missing package. The same seed gives the same map.
    Raises :class:`DataError` where a projection that was asked for by name needs a package that is not installed,
    :class:`UnknownNameError` for an unknown one.
    """
    everyone = np.concatenate([outcome.query.identities, outcome.gallery.identities])
    ids, counts = np.unique(everyone, return_counts=True)
    shown = ids[np.argsort(-counts, kind="stable")[:PEOPLE]]
    sides = [side.take(_some_of(shown, side.identities)) for side in (outcome.query, outcome.gallery)]
    parts = np.concatenate([side.parts for side in sides])
    identities, modalities = (np.concatenate([getattr(side, name) for side in sides]) for name in ("identities", "modalities"))
    rows = parts.reshape(len(parts), -1).astype(np.float64)
    wanted, why = CHOICES[projection], ""
    if wanted != "pca" and len(rows) < FEWEST:
        wanted, why = "pca", f" ({len(rows)} tracklets are too few for {TITLES[wanted]})"
    distances = np.asarray(DISTANCES[distance](parts, parts), dtype=np.float64)
    distances = np.maximum((distances + distances.T) / 2, 0)  # symmetric to the last digit, which both libraries ask for
    np.fill_diagonal(distances, 0)
    try:
        points = PROJECTIONS[wanted](rows, distances, seed)
    except DataError as error:
        if projection != "auto":
            raise
        wanted, why = "pca", f" ({error})"
        points = PROJECTIONS[wanted](rows, distances, seed)
    seeded = "" if wanted == "pca" else f", seed {seed}"
    return Flat(points, identities, modalities, TITLES[wanted], f"{TITLES[wanted]}{seeded}{why}; {MEANING[wanted]}")


def _some_of(people: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """Rows of these people, in ascending order, at most EACH of each."""
    rows = [np.flatnonzero(identities == person) for person in people]
    return np.sort(np.concatenate([r[np.linspace(0, len(r), min(EACH, len(r)), endpoint=False).astype(int)] for r in rows]))


def _missing(name: str, package: str) -> DataError:
    return DataError(f"{name} needs {package}, which is not installed: pip install 'dinogrl[projections]'")
