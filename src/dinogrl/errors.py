"""Errors that a user can cause and mend.

Every message says what was given, what was expected and what to do. They all derive from :class:`DinogrlError`, which is a
``ValueError``; the command line prints the message on one line and exits with 2. A fault of the programmer is an ``assert``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DinogrlError(ValueError):
    """Something given by the user cannot be used."""


class RecipeError(DinogrlError):
    """A recipe has one or more wrong keys or values; the message lists all of them."""


class DataError(DinogrlError):
    """A dataset, or a file in it, is missing, broken or not of the form that was expected."""


class CheckpointError(DinogrlError):
    """A file of weights is missing, broken, unsafe or of another model."""


class TrainingError(DinogrlError):
    """Training cannot go on: the loss is not finite, or the run in the folder is another one."""


class GalleryError(DinogrlError):
    """A gallery cannot be opened, is in use, is of another model, or will not take what was given."""


class ExportError(DinogrlError):
    """A model cannot be written in the wanted form, or what was written does not give the model's embeddings."""


class UnknownNameError(DinogrlError):
    """A name that no catalog holds."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(str(name), names)}; known: {', '.join(names)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'margin'?"`` when a known word is near, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else ""


def in_one_line(said: object, most: int) -> str:
    """What another library says, for a message of ours: on one line, ``most`` characters at most, cut after a whole word."""
    line = " ".join(str(said).split())
    if len(line) <= most:
        return line
    whole = line[: most - 3].rpartition(" ")[0] or line[: most - 4]
    return f"{whole} ..."
