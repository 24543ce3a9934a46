"""Reading small text files of unknown quality: never raises, never guesses."""

from __future__ import annotations

from pathlib import Path

from dinogrl.data.problems import Problems


def read_lines(path: Path, problems: Problems, may_be_empty: bool = False) -> list[str]:
    """Stripped lines of a text file, without the blank ones at its end; an unreadable or empty file is an error and gives none."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        problems.error(path, f"cannot be read ({error.strerror or error})")
        return []
    lines = [line.strip() for line in text.split("\n")]  # not splitlines: a form feed inside a name must not shift the numbering
    while lines and not lines[-1]:
        lines.pop()
    if not lines and not may_be_empty:
        problems.error(path, "is empty")
    return lines


def natural_number(token: str) -> int | None:
    """A number written in at most nine ASCII digits, else None."""
    return int(token) if token.isascii() and token.isdigit() and len(token) <= 9 else None


def is_safe_path(text: object) -> bool:
    """Is this the text of a relative path that stays below its root and that a file system can take?"""
    if not isinstance(text, str) or not text or "\0" in text or "\\" in text or text.startswith("/"):
        return False
    return ".." not in text.split("/") and not any("\ud800" <= character <= "\udfff" for character in text)


def quoted(text: object, limit: int = 60) -> str:
    """A piece of a file's content for a message: one line, cut when it is long."""
    shown = repr(text if not isinstance(text, str) or len(text) <= limit else text[:limit])
    return shown if len(shown) <= limit + 12 else shown[:limit] + "..."
