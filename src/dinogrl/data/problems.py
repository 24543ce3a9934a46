"""What is wrong with a dataset, written down one finding at a time instead of stopping at the first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dinogrl.errors import DataError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``place`` is a file, ``file:line`` or a tracklet; ``message`` is one line.

    ``error``: training or evaluation cannot use it. ``warning``: they run, but the numbers are in doubt. ``note``: worth knowing.
    """

    severity: Severity
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class Problems(list[Problem]):
    """Findings in the order in which they were made."""

    def add(self, severity: Severity, place: object, message: str) -> None:
        """Write one down, made fit to print whatever characters a file's name holds."""
        self.append(Problem(severity, _printable(str(place)), _printable(message)))

    def error(self, place: object, message: str) -> None:
        """Training or evaluation cannot use it."""
        self.add("error", place, message)

    def warning(self, place: object, message: str) -> None:
        """They run, but the numbers are in doubt."""
        self.add("warning", place, message)

    def note(self, place: object, message: str) -> None:
        """Worth knowing."""
        self.add("note", place, message)

    def errors(self) -> list[Problem]:
        """Those that stop training or evaluation."""
        return [problem for problem in self if problem.severity == "error"]


def stop_at_errors(problems: Problems, root: Path) -> None:
    """Raise :class:`DataError` with the first error among ``problems`` and the number of the others; do nothing without one."""
    errors = problems.errors()
    if not errors:
        return
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    raise DataError(f"{errors[0]}{others}; `dinogrl check {root} --all` lists everything")


def _printable(text: str) -> str:
    """One line of valid text: what cannot be printed is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
