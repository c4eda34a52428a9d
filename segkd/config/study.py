"""Studies: which runs fill which table, and what was published for each cell."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from segkd.config.base import Closed


class Paper(Closed):
    """Bibliographic data of the paper whose tables a study holds."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str | None = None
    doi: str | None = None


class Published(Closed):
    """A published value, percent mIoU, and how sure it is."""

    miou: float
    spread: float | None = Field(None, ge=0, description="standard deviation that the paper gives, points")
    class_accuracy: float | None = None
    split: str = "val"
    source: str
    confidence: str = "authors"
    note: str = ""
    comparable: bool = Field(True, description="false where split, server or protocol differ from ours")


class Cell(Closed):
    """One row of a table: a student trained with a method, over seeds. `none` fields take the study's defaults."""

    method: str
    recipe: str | None = None
    teacher: str | None = None
    student: str | None = None
    seeds: tuple[int, ...] | None = None
    published: Published | None = None


class Defaults(Closed):
    """What a cell takes where it says nothing."""

    recipe: str | None = None
    teacher: str | None = None
    student: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


class Table(Closed):
    """A named table of cells."""

    name: str
    title: str
    cells: tuple[Cell, ...] = Field(min_length=1)


class Study(Closed):
    """One page of the report."""

    title: str
    about: str = ""
    needs: Literal["cpu", "gpu"] = Field("cpu", description="gpu: left out of `studies: auto` where no GPU is offered")
    paper: Paper | None = None
    defaults: Defaults = Defaults()
    tables: tuple[Table, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Study:
        names = [table.name for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError(f"table names must differ, got {names}")
        return self
