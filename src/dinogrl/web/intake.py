"""Files that strangers send: looked at before anything decodes them, and kept under names of our own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException

from dinogrl.data.natural_order import natural_key
from dinogrl.web.journal import new_id
from dinogrl.web.limits import MB, Limits
from dinogrl.web.sniffing import HEAD, KINDS, Kind, kind_of

LONGEST_NAME = 80


@dataclass(frozen=True)
class Sent:
    """A file as it came: the name that its sender gave it, its bytes, how many they are."""

    name: str
    content: BinaryIO
    size: int


@dataclass(frozen=True)
class Received:
    """Files that lie in the folder ``id`` now: (name as sent, name on disk) of each, in order."""

    id: str
    files: list[tuple[str, str]]


class Intake:
    """Folders of uploads below ``root``, each named by an id that was made here."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self._limits = root, limits
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def receive(self, sent: Sequence[Sent]) -> Received:
        """Keep pictures of one person, in the natural order of their names, or one video.

        Raises :class:`HTTPException` 415 for anything that is neither, 413 for what is too large, 422 for what is empty or mixed.
        """
        files = sorted(sent, key=lambda file: natural_key(file.name))
        kinds = [self._kind(file) for file in files]
        videos = sum(kind.size is None for kind in kinds)
        if not files:
            raise HTTPException(422, f"no file was sent; send {KINDS}")
        if videos and len(files) > 1:
            raise HTTPException(422, "send either pictures of one person, or one video alone")
        if len(files) > self._limits.images:
            raise HTTPException(413, f"{len(files)} pictures were sent; at most {self._limits.images} are taken, send fewer")
        for file, kind in zip(files, kinds, strict=True):
            if kind.size is not None:
                self._check_picture(file, kind)
        received = Received(
            new_id(),
            [(shown(file.name), f"{i:04d}{kind.suffix}") for i, (file, kind) in enumerate(zip(files, kinds, strict=True), 1)],
        )
        folder = self.folder(received.id)
        try:
            folder.mkdir(mode=0o700)
            for file, (_, name) in zip(files, received.files, strict=True):
                file.content.seek(0)
                with (folder / name).open("xb") as kept:
                    shutil.copyfileobj(file.content, kept, MB)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise HTTPException(507, f"the upload cannot be kept ({error.strerror})") from error
        return received

    def folder(self, id: str) -> Path:
        """Where the files of an upload lie; ``id`` is one that :meth:`receive` gave."""
        assert len(id) == 32 and id.isalnum(), "ids are made here, and looked up in the journal"
        return self.root / id

    def forget(self, id: str) -> None:
        """Remove the files of an upload."""
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def forget_all_but(self, ids: Sequence[str]) -> None:
        """Remove what a process that died has left behind."""
        for folder in self.root.iterdir():
            if folder.name not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def _kind(self, file: Sent) -> Kind:
        file.content.seek(0)
        kind = kind_of(file.content.read(HEAD))
        if not file.size:
            raise HTTPException(422, f"{shown(file.name)} is empty")
        if kind is None:
            raise HTTPException(415, f"{shown(file.name)} is nothing that is taken, whatever its name says; send {KINDS}")
        return kind

    def _check_picture(self, file: Sent, kind: Kind) -> None:
        assert kind.size is not None
        limits = self._limits
        if file.size > limits.image_bytes:
            raise HTTPException(413, f"{shown(file.name)} has more than {limits.image_bytes // MB} MB; send smaller pictures")
        file.content.seek(0)
        content = file.content.read(limits.image_bytes)
        size = kind.size(content)
        if size is None or 0 in size:
            raise HTTPException(422, f"{shown(file.name)} is truncated or broken; send it again")
        if size[0] * size[1] > limits.image_pixels:
            raise HTTPException(
                413, f"{shown(file.name)} has {size[1]} x {size[0]} pixels; at most {limits.image_pixels / 1e6:g} million are taken"
            )
        if kind.overflows is not None and kind.overflows(content, size):
            raise HTTPException(422, f"{shown(file.name)} unfolds to more than it declares; save it anew")


def shown(name: str) -> str:
    """A name from outside as it may stand in a message: printable, and not too long."""
    return printable(name.replace("\\", "/").rpartition("/")[2], LONGEST_NAME) or "a file without a name"


def printable(text: str, most: int) -> str:
    """What a person may read of a text from outside: no line breaks, nothing that turns the direction of writing."""
    return "".join(letter for letter in text if letter.isprintable())[:most]
