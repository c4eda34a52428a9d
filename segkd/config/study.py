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
    class_accuracy: float | None = Field(None, description="class-mean accuracy, percent")
    parameters_m: float | None = Field(None, gt=0, description="parameters, millions")
    flops_g: float | None = Field(None, gt=0, description="operations of one forward pass, billions")
    split: str = "val"
    selection: Literal["last", "best"] = Field(
        "last",
        description="best: the published number is that of the best checkpoint on val, and ours is chosen so too",
    )
    source: str
    confidence: str = Field("authors", description="authors, or who says so: other values are not comparable")
    note: str = ""
    comparable: bool = Field(
        True, description="false where split, server or protocol differ from ours; `note` says how"
    )


class Checkpoint(Closed):
    """Weights that authors published: scored as they are, after `segkd import-checkpoint`."""

    layout: Literal["cirkd", "aicsd", "attnfd", "torchvision", "mmseg"]
    where: str = Field(description="address of the file, or where it is to be found")


class Cell(Closed):
    """One row of a table: a student trained with a method, over seeds. `none` fields take the study's defaults.

    With `checkpoint` the row is a network as its authors released it; with `cannot_run` it has no runs, and says why.
    """

    method: str
    recipe: str | None = None
    teacher: str | None = None
    student: str | None = None
    seeds: tuple[int, ...] | None = None
    published: Published | None = None
    checkpoint: Checkpoint | None = None
    cannot_run: str = Field("", description="why nobody can run this row, e.g. that its method is nowhere defined")

    @model_validator(mode="after")
    def _one_way(self) -> Cell:
        if self.checkpoint and (self.method != "none" or self.seeds or self.cannot_run):
            raise ValueError("a cell with `checkpoint` is method none, without seeds and without cannot_run")
        return self


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
    contradictions: tuple[str, ...] = Field((), description="where sources disagree about a number or a protocol")
    defaults: Defaults = Defaults()
    tables: tuple[Table, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Study:
        names = [table.name for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError(f"table names must differ, got {names}")
        return self
