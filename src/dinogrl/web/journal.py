"""What the server remembers between two lives: jobs, the queries that came of them, and searches with their answers (SQLite).

Everything has an id that nobody can guess, and belongs to whoever asked for it. Pictures and vectors lie in the database itself, so
no path is ever made of what a request says. Deleted rows are overwritten with zeros.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import DinogrlError
from dinogrl.records import Modality
from dinogrl.web.sniffing import VIDEOS

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
MOST_ATTEMPTS = 3
"""Times that a job is begun; one that brings the process down again and again is given up."""
MOST_SEARCHES = 5000
"""Searches that can still be exported: the last ones."""

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, who TEXT, label TEXT, modality TEXT, files TEXT, state TEXT, stage TEXT,
    done INTEGER, total INTEGER, error TEXT, attempts INTEGER, created REAL);
CREATE TABLE IF NOT EXISTS queries (id TEXT PRIMARY KEY, job TEXT, who TEXT, label TEXT, modality INTEGER, frames INTEGER,
    model TEXT, parts BLOB, count INTEGER, strip BLOB, created REAL);
CREATE TABLE IF NOT EXISTS searches (id TEXT PRIMARY KEY, who TEXT, content TEXT, strip BLOB, created REAL);
CREATE INDEX IF NOT EXISTS queries_of ON queries (job);
"""


@dataclass(frozen=True)
class Job:
    """An upload on its way to queries. ``modality``: as given, or "auto". ``files``: (name as uploaded, name on disk) of each."""

    id: str
    who: str
    label: str
    modality: str
    files: tuple[tuple[str, str], ...]
    state: str
    stage: str
    done: int
    total: int
    error: str
    attempts: int
    created: float

    @property
    def is_video(self) -> bool:
        """One video, and no pictures?"""
        return Path(self.files[0][1]).suffix in VIDEOS


@dataclass(frozen=True)
class Query:
    """Somebody to be looked for: ``parts`` (P,D) by ``model``, ``frames`` pictures, some of them in ``strip`` (JPEG)."""

    id: str
    job: str
    who: str
    label: str
    modality: Modality
    frames: int
    model: str
    parts: NDArray[np.float32]
    strip: bytes | None
    created: float


@dataclass(frozen=True)
class Summary:
    """A query without what is large."""

    id: str
    label: str
    modality: Modality
    frames: int
    has_strip: bool


class Journal:
    """To be used from any thread. Raises :class:`DinogrlError` for a file that is no journal or cannot be written."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # survives any end of the process; a power cut may cost the last moment
            self._db.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise DinogrlError(f"the journal {path} cannot be used ({error}); give another --state, or remove it") from error

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    # -- jobs ---------------------------------------------------------------------------------------------------------------------

    def add_job(self, id: str, who: str, label: str, modality: str, files: Sequence[tuple[str, str]]) -> Job:
        """Note a job whose files lie ready."""
        row = (id, who, label, modality, json.dumps(list(files)), WAITING, "", 0, 0, "", 0, time.time())
        self._do("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row)
        return _job(self._one("SELECT * FROM jobs WHERE id = ?", (id,)))

    def job(self, id: str, who: str | None = None) -> Job | None:
        """The job, if it is there and (where ``who`` is given) theirs."""
        row = self._one_or_none("SELECT * FROM jobs WHERE id = ?", (id,))
        return None if row is None or (who is not None and row["who"] != who) else _job(row)

    def jobs(self, who: str, most: int = 50) -> list[Job]:
        """Theirs, newest first."""
        return [_job(row) for row in self._all("SELECT * FROM jobs WHERE who = ? ORDER BY created DESC LIMIT ?", (who, most))]

    def unfinished(self) -> list[str]:
        """Ids of jobs to be done, oldest first."""
        return [row["id"] for row in self._all("SELECT id FROM jobs WHERE state IN (?,?) ORDER BY created", (WAITING, RUNNING))]

    def count(self, state: str) -> int:
        """Jobs in this state."""
        return int(self._one("SELECT COUNT(*) FROM jobs WHERE state = ?", (state,))[0])

    def begin(self, id: str) -> None:
        """The job runs now, from its start."""
        self._do("DELETE FROM queries WHERE job = ?", (id,))
        self._do("UPDATE jobs SET state = ?, stage = '', done = 0, total = 0, attempts = attempts + 1 WHERE id = ?", (RUNNING, id))

    def advance(self, id: str, stage: str, done: int, total: int) -> None:
        """How far it is."""
        self._do("UPDATE jobs SET stage = ?, done = ?, total = ? WHERE id = ?", (stage, done, total, id))

    def put_back(self, id: str) -> None:
        """It was stopped through no fault of its own; it will be begun again."""
        self._do("UPDATE jobs SET state = ?, attempts = attempts - 1 WHERE id = ? AND state = ?", (WAITING, id, RUNNING))

    def end(self, id: str, error: str = "") -> None:
        """It is done, or failed with this line."""
        self._do("UPDATE jobs SET state = ?, error = ? WHERE id = ?", (FAILED if error else DONE, error, id))

    def forget_job(self, id: str) -> None:
        """Remove a job and its queries."""
        self._delete_job(id)
        self._empty_the_log()

    # -- queries and searches -----------------------------------------------------------------------------------------------------

    def add_query(
        self, job: Job, label: str, modality: Modality, frames: int, model: str, parts: NDArray[np.float32], strip: bytes | None
    ) -> None:
        """Keep what a job found, unless the job was forgotten meanwhile."""
        content = np.ascontiguousarray(parts, np.float32).tobytes()
        row = (new_id(), job.id, job.who, label, int(modality), frames, model, content, len(parts), strip, time.time())
        self._do("INSERT INTO queries SELECT ?,?,?,?,?,?,?,?,?,?,? WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?)", (*row, job.id))

    def query(self, id: str, who: str) -> Query | None:
        """The query, if it is there and theirs."""
        row = self._one_or_none("SELECT * FROM queries WHERE id = ? AND who = ?", (id, who))
        return None if row is None else _query(row)

    def queries(self, job: str) -> list[Summary]:
        """Of a job, those with the most frames first."""
        what = "id, label, modality, frames, strip IS NOT NULL AS has_strip"
        rows = self._all(f"SELECT {what} FROM queries WHERE job = ? ORDER BY frames DESC, rowid", (job,))
        return [Summary(row["id"], row["label"], Modality(row["modality"]), row["frames"], bool(row["has_strip"])) for row in rows]

    def add_search(self, who: str, content: dict[str, Any], strip: bytes | None) -> str:
        """Keep a search with its answers, and forget the oldest where there are too many; gives its id."""
        id = new_id()
        self._do("INSERT INTO searches VALUES (?,?,?,?,?)", (id, who, json.dumps(content), strip, time.time()))
        self._do("DELETE FROM searches WHERE rowid <= (SELECT MAX(rowid) FROM searches) - ?", (MOST_SEARCHES,))
        return id

    def search(self, id: str, who: str) -> tuple[dict[str, Any], bytes | None] | None:
        """The search and the query's strip, if it is there and theirs."""
        row = self._one_or_none("SELECT content, strip FROM searches WHERE id = ? AND who = ?", (id, who))
        return None if row is None else (json.loads(row["content"]), row["strip"])

    def expire(self, seconds: float) -> list[str]:
        """Forget what is older; gives the ids of the jobs that were forgotten. Those that wait or run stay."""
        before = time.time() - seconds
        old = [row["id"] for row in self._all("SELECT id FROM jobs WHERE created < ? AND state IN (?,?)", (before, DONE, FAILED))]
        for id in old:
            self._delete_job(id)
        for table in ("queries", "searches"):
            self._do(f"DELETE FROM {table} WHERE created < ?", (before,))
        self._empty_the_log()
        return old

    # -- inside -------------------------------------------------------------------------------------------------------------------

    def _delete_job(self, id: str) -> None:
        self._do("DELETE FROM queries WHERE job = ?", (id,))
        self._do("DELETE FROM jobs WHERE id = ?", (id,))

    def _empty_the_log(self) -> None:
        """Beside the database lies what was last written to it, also of rows that are deleted by now."""
        self._do("PRAGMA wal_checkpoint(TRUNCATE)", ())

    def _do(self, statement: str, values: Sequence[Any]) -> None:
        self._all(statement, values)

    def _all(self, statement: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        """Raises :class:`OSError` where the disk is full or broken, which is what SQLite's own errors come to here."""
        try:
            with self._lock, closing(self._db.execute(statement, values)) as rows:
                return rows.fetchall()
        except sqlite3.Error as error:
            raise OSError(f"the journal cannot be read or written: {error}") from error

    def _one_or_none(self, statement: str, values: Sequence[Any]) -> sqlite3.Row | None:
        return next(iter(self._all(statement, values)), None)

    def _one(self, statement: str, values: Sequence[Any]) -> sqlite3.Row:
        return self._all(statement, values)[0]


def new_id() -> str:
    """32 hex digits that nobody can guess."""
    return secrets.token_hex(16)


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    return Job(**{**values, "files": tuple((given, kept) for given, kept in json.loads(values["files"]))})


def _query(row: sqlite3.Row) -> Query:
    values = dict(row)
    count = values.pop("count")
    parts = np.frombuffer(values["parts"], np.float32).reshape(count, -1)
    return Query(**{**values, "modality": Modality(values["modality"]), "parts": parts})
