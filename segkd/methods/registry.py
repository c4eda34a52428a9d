"""Methods by name: this package's own modules, and third parties' through the entry-point group `segkd.methods`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

import segkd.methods
from segkd.config.load import validation_message
from segkd.errors import ConfigError, explain
from segkd.methods.base import Method, MethodConfig

_METHODS: dict[str, type[Method]] = {}
_discovered = False


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: make a method known as `name`. A second class of the same name is refused."""

    def add(cls: type[Method]) -> type[Method]:
        known = _METHODS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"method {name!r} is registered twice: by {known.__module__} and {cls.__module__}; rename one"
            )
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


def _discover() -> None:
    global _discovered  # noqa: PLW0603
    if _discovered:
        return
    for module in pkgutil.iter_modules(segkd.methods.__path__):
        if module.name not in {"base", "registry"}:
            importlib.import_module(f"segkd.methods.{module.name}")
    for entry in entry_points(group="segkd.methods"):
        entry.load()
    _discovered = True


def available() -> list[str]:
    """Names of all registered methods, sorted; `none`, training without a teacher, is not among them."""
    _discover()
    return sorted(_METHODS)


def method_class(name: str) -> type[Method]:
    """The class registered as `name`."""
    _discover()
    if name not in _METHODS:
        near = difflib.get_close_matches(name, _METHODS, n=1)
        raise ConfigError(
            explain(
                f"There is no method {name!r}.",
                expected=f"one of none, {', '.join(available())}",
                found=name,
                where="params.yaml: methods.*.method",
                fix=f"did you mean {near[0]!r}?"
                if near
                else "install the package that registers it, or correct the name",
            )
        )
    return _METHODS[name]


def method_config(name: str, options: Mapping[str, Any], *, where: str = "params.yaml: methods") -> MethodConfig:
    """Validate hyper-parameters against the method's own closed Config."""
    cls = method_class(name)
    try:
        return cls.Config.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(validation_message(error, cls.Config, where)) from None
