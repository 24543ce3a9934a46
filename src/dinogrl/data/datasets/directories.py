"""What lies in a folder; nothing where it cannot be read. Hidden folders and images are left out."""

from __future__ import annotations

import os
from pathlib import Path

from dinogrl.data.natural_order import natural_key

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def folders_in(path: str | Path) -> list[os.DirEntry[str]]:
    """Folders inside a folder in natural order."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".") and _is_folder(e)), key=lambda e: natural_key(e.name))
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Not a link into a circle, or to where one may not look: its neighbours are to be found all the same."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def names_in(path: str | Path) -> list[str]:
    """Names of everything in a folder, in no order."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def images_in(path: str | Path) -> list[str]:
    """Names of the images in a folder, in no order."""
    return [name for name in names_in(path) if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and name[0] != "."]
