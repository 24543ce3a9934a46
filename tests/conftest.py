"""What several test files share: the folder of real data, and steady settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import absl.logging
import hypothesis
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

# A test must not fail because another process held the core for a moment.
hypothesis.settings.register_profile("dinogrl", deadline=None)
hypothesis.settings.load_profile("dinogrl")


def pytest_configure() -> None:
    """Under xdist the processes share the cores; threads inside each would only fight over them.

    absl (of TensorBoard) logs to the standard error that it finds when it is loaded, and closes it when pymilvus clears all
    handlers: that would be pytest's own. The process's true one it leaves open.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and stored reference numbers beside the repository; tests that need it say so when they skip."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared with real data and reference numbers")
    return folder


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated dataset of a few people in HITSZ-VCM's layout; tests read it and leave it as it is."""
    from dinogrl.simulation.simulate import Settings, simulate

    settings = Settings(identities=8, cameras=3, tracklets=2, frames=13, height=64, width=32, silhouettes=False)
    return simulate(tmp_path_factory.mktemp("worlds") / "tiny", settings, workers=1).root
