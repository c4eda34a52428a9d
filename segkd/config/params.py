"""params.yaml as a closed, typed model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from segkd.config.base import NAME, Closed, canonical
from segkd.config.data import DatasetConfig
from segkd.config.network import NetworkConfig
from segkd.config.recipe import Recipe

Name = Annotated[str, StringConstraints(pattern=NAME)]


class MethodEntry(Closed):
    """A method's class and hyper-parameters. The rest of the keys is checked by that class's own closed Config."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    method: Name

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `method`: hyper-parameters as written."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _finite(self) -> MethodEntry:
        """Planning hashes the options before the method's class looks at them, and NaN has no hash."""
        for name, value in self.options.items():
            try:
                canonical(value)
            except ValueError:
                raise ValueError(f"{name}: expected finite numbers") from None
        return self


class Tracking(Closed):
    """Where runs are mirrored. Never part of a result."""

    uri: str = "sqlite:///mlflow.db"
    live_after: float = Field(60.0, ge=0, description="seconds after which a running run is mirrored while it runs")


class Params(Closed):
    """The whole of params.yaml."""

    studies: Literal["auto"] | tuple[Name, ...] = "auto"
    tracking: Tracking = Tracking()
    datasets: dict[Name, DatasetConfig]
    networks: dict[Name, NetworkConfig]
    recipes: dict[Name, Recipe]
    methods: dict[Name, MethodEntry]

    @model_validator(mode="after")
    def _references(self) -> Params:
        for name, recipe in self.recipes.items():
            if recipe.dataset not in self.datasets:
                raise ValueError(f"recipe {name!r}: no data set {recipe.dataset!r}; there are {sorted(self.datasets)}")
            if recipe.teacher_recipe and recipe.teacher_recipe not in self.recipes:
                raise ValueError(
                    f"recipe {name!r}: no teacher_recipe {recipe.teacher_recipe!r}; there are {sorted(self.recipes)}"
                )
        return self
