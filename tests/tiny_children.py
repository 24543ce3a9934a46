"""What stands for the process that cuts a video, where a test needs one that misbehaves."""

from __future__ import annotations

import json
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path


def outstays(there: Connection, video: str, modality: str, out: str, cutter: object) -> None:
    """Says that it has begun, listens to nobody, and leaves a file where it is let live to its end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    there.send_bytes(json.dumps({"frame": 1, "frames": 2}).encode())
    time.sleep(600)
    Path(out).write_text("lived on")


def tells_what_it_is_deaf_to(there: Connection, video: str, modality: str, out: str, cutter: object) -> None:
    """Answers with the signals that were blocked before any line of ours ran in it."""
    there.send_bytes(json.dumps({"error": repr(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))}).encode())
