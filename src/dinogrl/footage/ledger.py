"""What a folder of tracklets knows about the videos that it was cut from: how each was cut, whether to the end, which boxes were
found.

It lies in ``.footage`` inside that folder. Finding persons takes nearly all the time, so what is found is written down picture by
picture. A run that was interrupted, by Ctrl-C or by a lost machine, reads its own notes, does the cheap rest again and goes on
where the notes end; nothing is left to chance, so it ends with the very same tracklets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dinogrl.checkpoints import expect_no_file, write_atomically
from dinogrl.errors import DataError
from dinogrl.footage.boxes import Boxes
from dinogrl.footage.video import is_stream, picture_paths
from dinogrl.locks import held

_BLOCKS, _BLOCK = 16, 1 << 20


def fingerprint(source: str | Path, moment: str) -> str:
    """8 hex digits of a video's content: its size and 16 blocks spread over it, since a day of video takes minutes to read whole.

    A folder of pictures counts by names, sizes and some of the content. A stream is never the same twice: its address and
    ``moment`` count.
    """
    digest = hashlib.sha256()
    if is_stream(source):
        digest.update(f"{source} {moment}".encode())
        return digest.hexdigest()[:8]
    path = Path(source).expanduser()
    if path.is_dir():
        files = picture_paths(path)
        digest.update(json.dumps([(file.name, file.stat().st_size) for file in files]).encode())
        for file in files[:: max(len(files) // _BLOCKS, 1)]:
            digest.update(file.read_bytes()[:_BLOCK])
        return digest.hexdigest()[:8]
    if not path.is_file():  # a pattern such as frames/%04d.png
        digest.update(str(source).encode())
        return digest.hexdigest()[:8]
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as content:
        for number in range(_BLOCKS):
            content.seek(max(size - _BLOCK, 0) * number // (_BLOCKS - 1))
            digest.update(content.read(_BLOCK))
    return digest.hexdigest()[:8]


@contextmanager
def open_entry(
    out: Path, key: str, source: str, choices: dict[str, Any], replace: bool, remove: Callable[[], None]
) -> Iterator[Entry]:
    """The notes on one video, ``key`` being its fingerprint. Until the block ends no other process can take them.

    ``choices`` is all that the result depends on besides the video; ``remove`` takes away what was cut from it before. Raises
    :class:`DataError` where the same video was cut into this folder with other choices and ``replace`` is not set, and where
    another process is at it.
    """
    expect_no_file(out, "the tracklets")
    notes = out / ".footage"
    notes.mkdir(parents=True, exist_ok=True)
    refusal = DataError(f"another process is cutting {source} into {out}; wait for it, or give another --out")
    with held(notes / f"{key}.lock", refusal):
        entry = Entry(notes / f"{key}.json", source, choices)
        entry.recall(replace, remove)
        yield entry


class Entry:
    """The notes on one video. ``done``: it was cut to its end before, with these ``warnings``."""

    def __init__(self, card: Path, source: str, choices: dict[str, Any]) -> None:
        self._card, self._source, self._choices = card, source, choices
        self._journal = card.with_suffix(".boxes.jsonl")
        self.warnings: list[str] = []
        self.done = False

    def recall(self, replace: bool, remove: Callable[[], None]) -> None:
        """Read the card of an earlier run, if there is one; otherwise write one."""
        card = self._read_card()
        if card is not None and card["choices"] != self._choices:
            if not replace:
                changed = sorted(name for name, value in self._choices.items() if card["choices"].get(name) != value)
                raise DataError(
                    f"{self._source} was cut into {self._card.parent.parent} before, with other settings ({', '.join(changed)}); "
                    "give another --out, or --replace to cut it again"
                )
            remove()
            card = None
            self._journal.unlink(missing_ok=True)
        if card is None:
            self._write_card()
        else:
            self.warnings, self.done = card["warnings"], card["done"]

    def _read_card(self) -> dict[str, Any] | None:
        try:
            card = json.loads(self._card.read_bytes())
            return {name: card[name] for name in ("choices", "done", "warnings")}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._card} is broken ({error}); remove it to cut {self._source} again") from error

    def _write_card(self) -> None:
        card = {"source": self._source, "choices": self._choices, "done": self.done, "warnings": self.warnings}
        write_atomically(self._card, json.dumps(card, indent=1, ensure_ascii=False).encode())

    def finish(self, warnings: list[str]) -> None:
        """Note that the video was cut to its end."""
        self.warnings, self.done = warnings, True
        self._write_card()
        self._journal.unlink(missing_ok=True)

    def journal(self) -> BoxJournal:
        """What was found so far, to be closed."""
        return BoxJournal(self._journal)


class BoxJournal:
    """Boxes by picture, one line each, appended as they are found."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.seek(0)
        self._read_to = 0
        self._whole = _whole_lines(path)
        self._file.truncate(self._whole)  # the last line may be torn

    def boxes(self, index: int, find: Callable[[], Boxes]) -> Boxes:
        """Those of picture ``index``: as written down in an earlier run, or found now. To be asked in the order of pictures."""
        if self._read_to < self._whole:
            line = self._file.readline()
            self._read_to += len(line)
            noted, boxes, scores = json.loads(line)
            if noted != index:
                raise DataError(
                    f"{self._file.name} does not fit the video (picture {noted}, expected {index}); remove it and start again"
                )
            return Boxes(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64))
        found = find()
        found = Boxes(found.boxes.round(2), found.scores.round(4))
        self._file.write(json.dumps([index, found.boxes.tolist(), found.scores.tolist()]).encode() + b"\n")
        self._file.flush()
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
    return end
