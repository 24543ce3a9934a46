"""How long stages tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

from dinogrl.training.loop import Progress

Watcher = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, of how much, and a word on how it goes."""


def training_steps(tell: Watcher, stage: str) -> Callable[[Progress], None]:
    """What a training is to call after each step."""

    def watch(progress: Progress) -> None:
        loss = f"loss {progress.losses['total']:.2f}" if "total" in progress.losses else ""  # the first ones are not fetched yet
        tell(stage, progress.done, progress.total, loss)

    return watch
