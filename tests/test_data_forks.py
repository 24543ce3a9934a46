"""Loader processes start whatever the main process has done before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import cv2
import numpy as np
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.recipes.schema import Data

cv2.setNumThreads(4)
cv2.resize(np.zeros((1000, 1000, 3), np.uint8), (3000, 3000))  # OpenCV's threads are there now
dataset = open_dataset(sys.argv[1])
data = Data(height=32, width=16, frames=2, workers=1)
print(sum(len(batch.tracklet_ids) for batch in evaluation_loader(dataset.query, data, sampling="segments", batch=4)))
"""


def test_workers_start_after_the_main_process_has_used_threads_of_opencv(tiny_world: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tiny_world)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
