"""A case to be put on file: one search, its answers and what was marked, as a page that needs nothing else, or as a ZIP."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from dinogrl.embedding.calibration import in_per_cent
from dinogrl.reports.html import table, text

PAGE = Template((Path(__file__).parent / "pages" / "case.html").read_text(encoding="utf-8"))
_CAUTION = "A high rank or probability is a suggestion for a human to check, never evidence that two people are one."
_LEARNED = (
    " The probability was learned from {calibration}, which is other footage, and takes {prior:.3g} % of the answers to be the"
    " right person before they are looked at."
)


@dataclass(frozen=True)
class Case:
    """``content`` as the journal has it, ``query`` and ``strips`` (id -> JPEG) as pictures, ids marked, a note, who wrote it."""

    content: Mapping[str, Any]
    query: bytes | None
    strips: Mapping[str, bytes | None]
    right: Sequence[str]
    wrong: Sequence[str]
    note: str
    who: str

    def as_html(self) -> bytes:
        """One page with its pictures in it, and no script."""
        found = self.content["found"]
        facts = {
            "Looked for": f"{found['query']['label']}, {found['query']['modality']}",
            "Searched": self.content["time"],
            "By": self.who,
            "Case": self.content["request"]["case"] or "-",
            "Conditions": _conditions(self.content["request"]["conditions"]),
            "Marked right": ", ".join(self.right) or "-",
            "Marked wrong": ", ".join(self.wrong) or "-",
            "Written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            "Model": self.content["model"],
        }
        rows = [[text(name), text(value)] for name, value in facts.items()]
        hits = [self._row(hit) for hit in found["hits"]]
        head = ("rank", "tracklet", "mark", "camera", "seen (UTC)", "distance", "same person", "id")
        body = PAGE.substitute(
            title=text(f"Case: {found['query']['label']}"),
            query=_picture(self.query, "the query"),
            facts=table(("", ""), rows, "Search"),
            note=f"<h2>Note</h2><p class='note'>{text(self.note)}</p>" if self.note else "",
            hits=table(head, hits, f"{len(hits)} answers"),
            caution=text(_CAUTION + self._learned()),
        )
        return body.encode("utf-8", "replace")

    def as_zip(self) -> bytes:
        """The page, the facts as JSON, and every picture as a file."""
        facts = {
            **self.content,
            "marks": {"right": list(self.right), "wrong": list(self.wrong)},
            "note": self.note,
            "who": self.who,
        }
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
            files.writestr("case.html", self.as_html())
            files.writestr("case.json", json.dumps(facts, indent=1))
            if self.query is not None:
                files.writestr("query.jpg", self.query)
            for hit in self.content["found"]["hits"]:
                strip = self.strips.get(hit["id"])
                if strip is not None:
                    files.writestr(f"{hit['rank']:03d}.jpg", strip)  # by rank: an id may hold anything
        return archive.getvalue()

    def _learned(self) -> str:
        """What the percentages rest on; nothing where the page shows none."""
        if all(hit["probability"] is None for hit in self.content["found"]["hits"]):
            return ""
        known = self.content.get("calibration", "training tracklets")  # searches of earlier versions do not say
        return _LEARNED.format(calibration=known, prior=100 * self.content["prior"])

    def _row(self, hit: Mapping[str, Any]) -> list[str]:
        id = hit["id"]
        mark = "right" if id in self.right else "wrong" if id in self.wrong else ""
        moved = "" if hit["moved_distance"] is None else f" (after marks {hit['moved_distance']:.3f})"
        chance = "-" if hit["probability"] is None else in_per_cent(hit["probability"])
        when = "-" if hit["start"] is None else f"{datetime.fromisoformat(hit['start']):%Y-%m-%d %H:%M:%S}"
        cells = (f"{hit['camera']}, {hit['modality']}", when, f"{hit['distance']:.3f}{moved}", chance, id)
        shown = f'<span class="{mark}">{mark or "-"}</span>'
        return [str(hit["rank"]), _picture(self.strips.get(id), f"tracklet of rank {hit['rank']}"), shown, *map(text, cells)]


def _picture(strip: bytes | None, alternative: str) -> str:
    """Loaded at once, for the page may be printed."""
    if strip is None:
        return '<span class="missing">no picture</span>'
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(strip).decode()}" alt="{text(alternative)}">'


def _conditions(conditions: Mapping[str, Any]) -> str:
    said = [f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in conditions.items() if value]
    return "; ".join(said) or "none"
