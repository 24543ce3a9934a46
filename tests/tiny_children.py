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
