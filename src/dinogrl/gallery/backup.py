"""A whole gallery in one file, and back: a ZIP of plain files with a checksum each, for any place a gallery can lie in."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dinogrl.checkpoints import replacing
from dinogrl.embedding.search_aids import SearchAids
from dinogrl.errors import GalleryError, in_one_line
from dinogrl.gallery.backend import Batch, Form
from dinogrl.gallery.entries import Entry
from dinogrl.gallery.folder import remove_folder
from dinogrl.gallery.founding import Settings, write
from dinogrl.gallery.gallery import Gallery
from dinogrl.gallery.milvus import is_file

FORMAT = 1
_BLOCK = 1 << 20
_AT_ONCE = 500
_UNREADABLE = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError)
"""What reading a damaged ZIP comes to: one wrong bit in its list of members makes a member look compressed, or lie anywhere."""


def back_up(gallery: Gallery, path: str | Path) -> int:
    """Write the gallery to a new file; gives the number of tracklets. Nobody may write to the gallery meanwhile.

    Raises :class:`GalleryError` where the file exists, or the gallery is empty or changes on the way.
    """
    path = Path(path)
    if path.exists():
        raise GalleryError(f"{path} exists; a backup overwrites nothing, choose another name")
    if gallery.settings is None or gallery.aids is None:
        raise GalleryError(f"gallery {gallery.address} is empty; there is nothing to back up")
    entries = sorted(gallery.every(), key=lambda entry: entry.id)
    chunks = [entries[i : i + _AT_ONCE] for i in range(0, len(entries), _AT_ONCE)]
    with replacing(path) as beside, _Writer(beside) as archive:
        archive.add("settings.json", [json.dumps(asdict(gallery.settings)).encode()])
        archive.add("search_aids.safetensors", [gallery.aids.to_bytes()])
        archive.add("entries.jsonl", (_line(entry) for entry in entries))
        archive.add("parts.bin", (_vectors(gallery, chunk)[0] for chunk in chunks))
        archive.add("compact.bin", (_vectors(gallery, chunk)[1] for chunk in chunks))
        for number, entry in enumerate(entries):
            strip = gallery.strip(entry.id)
            if strip is not None:
                archive.add(f"strips/{number}.jpg", [strip])
        archive.finish(len(entries))
    return len(entries)


def restore(path: str | Path, address: str | Path, *, name: str = "gallery", token: str = "") -> int:
    """Make a gallery of a backup, in a new folder or under a new name on a server; gives the number of tracklets.

    It answers as the old one did, to the last bit. Raises :class:`GalleryError` for a file that is no backup or is damaged, and
    where something is at ``address`` already; then nothing is left behind.
    """
    with _Reader(Path(path)) as archive:
        archive.check()
        if not is_file(str(address)):
            with Gallery(address, writable=True, name=name, token=token) as gallery:
                if gallery.settings is not None:
                    raise GalleryError(f"there is a gallery {name!r} at {address} already; choose another name")
                return _fill(gallery, archive)
        target = Path(address)
        if target.exists():
            raise GalleryError(f"{target} exists; a backup overwrites nothing, choose another path")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            with Gallery(beside, writable=True, name=name) as gallery:
                count = _fill(gallery, archive)
            beside.chmod(0o777 & ~_umask())
            beside.rename(target)
        finally:
            if beside.exists():
                remove_folder(beside)
        return count


def _fill(gallery: Gallery, archive: _Reader) -> int:
    values = json.loads(archive.read("settings.json"))
    settings = Settings(**{**values, "form": Form(**values["form"])})
    form = settings.form
    write(gallery.backend, settings, SearchAids.from_bytes(archive.read("search_aids.safetensors")))
    gallery.backend.open(form)
    lines = archive.read("entries.jsonl").splitlines()
    with archive.open("parts.bin") as parts, archive.open("compact.bin") as compact:
        for i in range(0, len(lines), _AT_ONCE):
            entries = [Entry.from_row(json.loads(line)) for line in lines[i : i + _AT_ONCE]]
            count = len(entries)
            batch = Batch(
                entries=entries,
                digests=[entry.digest() for entry in entries],
                parts=np.frombuffer(parts.read(count * form.payload_bytes), form.dtype).reshape(count, -1),
                compact=np.frombuffer(compact.read(count * form.width * 4), np.float32).reshape(count, -1),
                strips=[archive.read_or_none(f"strips/{i + k}.jpg") for k in range(count)],
            )
            gallery.backend.put(batch)
    return len(lines)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry.as_row()).encode() + b"\n"


def _vectors(gallery: Gallery, entries: Sequence[Entry]) -> tuple[bytes, bytes]:
    found = gallery.backend.vectors([entry.id for entry in entries])
    if len(found.ids) < len(entries):
        raise GalleryError("tracklets were removed while the backup was made; make it again while nobody writes")
    return found.parts.tobytes(), found.compact.tobytes()


def _umask() -> int:
    """The process's own; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclass
class _Member:
    sha256: str
    bytes: int


class _Writer:
    """A ZIP, uncompressed (vectors do not shrink), whose last member lists the others with their checksums."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", allowZip64=True)
        self._members: dict[str, _Member] = {}

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def add(self, name: str, pieces: Iterator[bytes] | Sequence[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with self._zip.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        self._members[name] = _Member(digest.hexdigest(), size)

    def finish(self, tracklets: int) -> None:
        content = {"dinogrl_gallery": FORMAT, "tracklets": tracklets, "members": {k: asdict(v) for k, v in self._members.items()}}
        self._zip.writestr("manifest.json", json.dumps(content))


class _Reader:
    """What :class:`_Writer` wrote. Members are read by the names that a backup has, none is unpacked to a path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise GalleryError(f"no backup at {path}")
        try:
            self._zip = zipfile.ZipFile(path)
            manifest: Any = json.loads(self._zip.read("manifest.json"))
            self._members = {name: _Member(**facts) for name, facts in manifest["members"].items()}
            known = manifest["dinogrl_gallery"] == FORMAT
        except (*_UNREADABLE, ValueError, TypeError, AttributeError) as error:
            raise GalleryError(f"{path} is no backup of a gallery, or it is truncated ({in_one_line(error, 120)})") from error
        if not known:
            raise GalleryError(f"{path} was written by another version of dinogrl; restore it with that one")

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def check(self) -> None:
        """Read everything once, before anything is made of it."""
        for name, member in self._members.items():
            digest, size = hashlib.sha256(), 0
            try:
                with self._zip.open(name) as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
                        size += len(block)
                        if size > member.bytes:
                            break
            except _UNREADABLE as error:
                raise GalleryError(f"{self._path} is damaged: {name} cannot be read; use another backup") from error
            if (digest.hexdigest(), size) != (member.sha256, member.bytes):
                raise GalleryError(f"{self._path} is damaged: {name} is not what was written; use another backup")

    def open(self, name: str) -> Any:
        return self._zip.open(name)

    def read(self, name: str) -> bytes:
        return self._zip.read(name)

    def read_or_none(self, name: str) -> bytes | None:
        return self._zip.read(name) if name in self._members else None
