"""``dinogrl reproduce``: a table or figure of the paper from a dataset, one command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dinogrl.checkpoints import expect_no_file
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.recipes import load_recipe
from dinogrl.records import Dataset
from dinogrl.reproduce.carry_out import carry_out
from dinogrl.reproduce.cost import Estimate, estimate
from dinogrl.reproduce.outcome import Filled, caption, fill, published, write_table
from dinogrl.reproduce.plan import Line, Run, Settings, base_overrides, data_fingerprint, distinct_runs, plan_table
from dinogrl.reproduce.sweep_figure import write_sweeps
from dinogrl.reproduce.tables import Table, find_table
from dinogrl.reproduce.watching import Watcher
from dinogrl.training.run import open_training_data


@dataclass
class Reproduction:
    """Tables to be made from one dataset; ``lines`` by the name of the table, in the order asked."""

    data: Path
    dataset: Dataset
    settings: Settings
    tables: dict[str, Table]
    lines: dict[str, list[Line]]
    failed: dict[Run, str] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """Every run of every table, once."""
        return distinct_runs([line for lines in self.lines.values() for line in lines])

    def estimates(self, assumed: float | None = None) -> list[Estimate]:
        """What each run will cost; ``assumed`` seconds a step where none has been measured."""
        return estimate(self.runs, self.dataset, assumed)

    def carry_out(self, tell: Watcher, feature_cache: FeatureCache | None = None) -> None:
        """Finish all runs; the tables on disk are brought up to date after each. ``feature_cache`` changes no number in them."""
        self.failed = carry_out(self.runs, self.data, tell, after_each=self.write, feature_cache=feature_cache)

    def filled(self, name: str) -> list[Filled]:
        """The rows of a table as far as they have been measured, published results of other methods first."""
        above = self.tables[name].published
        return [*(published(above) if above else []), *fill(self.lines[name], self.failed)]

    def write(self) -> list[Path]:
        """Write every table (and figure) from what has been measured so far; gives the paths."""
        written = []
        for name, table in self.tables.items():
            filled, folder = self.filled(name), self.settings.out
            said, compare = caption(table, self.lines[name], self.dataset), not table.sweeps
            written += write_table(folder, name, f"{name}: {table.title}", said, filled, self.commands(name), compare=compare)
            if table.sweeps:
                written += write_sweeps(folder, name, table.sweeps, filled)
        return written

    def commands(self, name: str) -> list[str]:
        """The command that makes the table, and those of its runs."""
        s = self.settings
        words = ["dinogrl", "reproduce", name, *s.overrides, "--data", str(self.data), "--out", str(s.out), "--seeds", str(s.seeds)]
        words += ["--recipe", s.recipe] if s.recipe else []
        words += ["--epochs", str(s.epochs)] if s.epochs else []
        return [shlex.join(words), *(command for run in distinct_runs(self.lines[name]) for command in run.commands(self.data))]


def prepare(targets: Sequence[str], data: Path, settings: Settings) -> Reproduction:
    """Read the dataset's index and plan every run; nothing is written.

    ``targets``: table1 ... table9, figure4, or YAML files. Raises :class:`DinogrlError` for unknown names, recipes that cannot be
    and datasets that cannot be trained on.
    """
    expect_no_file(settings.out, "tables and runs")
    tables = dict(find_table(target) for target in targets)
    first = next(iter(tables.values()))
    dataset = open_training_data(load_recipe(settings.recipe or first.recipe, base_overrides(settings)), data)
    fingerprint = data_fingerprint(dataset)
    lines = {name: plan_table(name, table, settings, fingerprint, dataset) for name, table in tables.items()}
    return Reproduction(data, dataset, settings, tables, lines)
