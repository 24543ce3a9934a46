"""The two options of a feature cache, alike for all commands that have one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dinogrl.cli.screen import note

if TYPE_CHECKING:
    from dinogrl.embedding.feature_cache import FeatureCache

CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--feature-cache",
        metavar="DIR",
        help="Keep the frozen features of every frame there (2 to 4 MB each), and read those that are there already.",
    ),
]
CacheSize = Annotated[
    float | None,
    typer.Option("--feature-cache-size", metavar="GB", help="How large the feature cache may become; 100 where not given."),
]


def open_cache(folder: Path | None, gigabytes: float | None) -> FeatureCache | None:
    """The cache that was asked for. Raises :class:`DinogrlError` for a size without a folder, and as :class:`FeatureCache` does."""
    from dinogrl.embedding.feature_cache import FeatureCache
    from dinogrl.errors import DinogrlError

    if folder is None:
        if gigabytes is not None:
            raise DinogrlError("--feature-cache-size bounds a feature cache; say where it lies by --feature-cache DIR")
        return None
    return FeatureCache(folder) if gigabytes is None else FeatureCache(folder, gigabytes)


def tell_cache(cache: FeatureCache | None) -> None:
    """What a cache, where there is one, has been good for."""
    if cache is None:
        return
    if cache.read + cache.computed:
        note(f"feature cache {cache.folder}: features of {cache.read} frames read, of {cache.computed} computed")
    else:
        note(f"feature cache {cache.folder}: there were no frozen features to keep or to read")
