"""The journal on a bad day, and what it leaves of what was forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dinogrl.records import Modality
from dinogrl.web.journal import Journal, new_id


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Which is told to whoever asks, and after which what is done every hour is done again."""
    journal = Journal(tmp_path / "j")
    journal._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(OSError, match="the journal cannot be read or written: database or disk is full"):
        journal.add_search("ann", {"what": "x" * 1_000_000}, None)
    journal._db.execute("PRAGMA max_page_count = 1000000")
    assert journal.search(journal.add_search("ann", {"what": "x"}, None), "ann") is not None


def test_what_is_forgotten_is_gone_at_once(tmp_path: Path) -> None:
    """From the log beside the database too, while the journal is in use."""
    journal = Journal(tmp_path / "j")
    for forget in (lambda id: journal.forget_job(id), lambda id: (journal.end(id), journal.expire(-1))):
        job = journal.add_job(new_id(), "ann", "SECRETLABEL", "auto", [("a.jpg", "0001.jpg")])
        journal.add_query(job, "SECRETLABEL", Modality.VISIBLE, 1, "m", np.zeros((1, 2), np.float32), b"SECRETSTRIP")
        forget(job.id)
        assert b"SECRET" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    journal.close()
