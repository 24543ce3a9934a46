"""The paper's tables as data: which rows there are, what each changes in a base recipe, and what the paper measured.

They lie in ``tables.yaml`` beside this file. A table of one's own is a YAML file with the same keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from dinogrl import config
from dinogrl.catalog import Catalog
from dinogrl.config import Section
from dinogrl.errors import RecipeError

TABLES = Path(__file__).with_name("tables.yaml")
Rates = tuple[float, float, float, float]
"""Rank-1 and mAP infrared to visible, rank-1 and mAP visible to infrared, in per cent."""


class Row(Section):
    """One line of a table."""

    label: str = ""
    """Its name; a row without one is named by its granularities."""
    overrides: tuple[str, ...] = ()
    """What it changes in the base recipe, as on the command line."""
    granularities: int | None = Field(None, ge=1)
    """Keep this many of the base recipe's granularities, the first ones. The row is left out where there are fewer."""
    paper: Rates | None = None
    """What the paper measured."""
    note: str = ""
    """What should be known when the two are compared."""
    masks: str | None = None
    """Folder of a parser's masks beneath the dataset's root, which the gait stream then reads."""
    without_masks: tuple[str, ...] | None = None
    """What the row changes where that folder is not there; not run then where not given."""

    @model_validator(mode="after")
    def _complete(self) -> Row:
        if not self.label and self.granularities is None:
            raise ValueError("a row needs a label")
        if self.without_masks is not None and self.masks is None:
            raise ValueError("without_masks says what to do where masks are not there; give masks too")
        return self


class Sweep(Section):
    """One setting over several values: a panel of a figure."""

    key: str
    """Dotted key of the recipe."""
    symbol: str
    """How the figure calls it."""
    values: tuple[float, ...] = Field(min_length=2)
    """Its values, ascending."""

    def row(self, value: float) -> Row:
        """The line for one of the values."""
        return Row(label=f"{self.symbol} = {value:g}", overrides=(f"{self.key}={value:g}",))


class Table(Section):
    """A table, or a figure made of sweeps."""

    title: str
    recipe: str = "dinogrl"
    """Base recipe of all rows."""
    of_the_paper: bool = True
    """One of the paper's own; ``all`` means these."""
    published: str | None = None
    """Dataset whose published results stand above the rows."""
    protocol: str | None = None
    """Protocol of those results where it is not the dataset's usual one; a simulated dataset, too small for it, keeps its own."""
    rows: tuple[Row, ...] = ()
    sweeps: tuple[Sweep, ...] = ()

    @model_validator(mode="after")
    def _something_to_run(self) -> Table:
        labels = [row.label for row in self.all_rows() if row.label]
        if not self.all_rows():
            raise ValueError("a table needs rows or sweeps")
        if len(set(labels)) < len(labels):
            raise ValueError(f"rows must have different labels, given {labels}")
        return self

    def all_rows(self) -> list[Row]:
        """Rows, then every value of every sweep."""
        return [*self.rows, *(sweep.row(value) for sweep in self.sweeps for value in sweep.values)]


def shipped_tables() -> Catalog[Table]:
    """table1 ... table9 and figure4 of the paper, and what we ask besides."""
    values = config.read_yaml(TABLES)
    return Catalog("table", {name: _parsed(value, f"{TABLES.name}: {name}") for name, value in values.items()})


def find_table(target: str) -> tuple[str, Table]:
    """Name and content of a shipped table, or of one's own in a YAML file.

    Raises :class:`UnknownNameError` for a name that is not shipped, :class:`RecipeError` for a file with mistakes.
    """
    path = Path(target)
    if path.suffix in {".yaml", ".yml"}:
        return path.stem, _parsed(config.read_yaml(path), target)
    return target, shipped_tables()[target]


def _parsed(values: Any, source: str) -> Table:
    if not isinstance(values, dict):
        raise RecipeError(f"{source}: expected title and rows, found {type(values).__name__}")
    return config.parse(Table, values, source)
