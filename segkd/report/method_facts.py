"""What a method's class says about itself: source, presets, definitions, hyper-parameters. Read from docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from types import ModuleType, NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from segkd.methods.base import Method, MethodConfig

LINEAR = "O(B N d): linear in the maps that it reads."
_ABOVE = (MethodConfig.__module__, Method.__module__)


class Source(NamedTuple):
    """A paper: what the module says first, its title, and its arXiv number where there is one."""

    text: str
    title: str
    arxiv: str | None


class Parameter(NamedTuple):
    """A key of a Config: its values in words, the default of each preset (None: refused there), its description."""

    name: str
    values: str
    defaults: dict[str, str | None]
    description: str


def source(cls: type[Method]) -> Source:
    """The paper that a method's module names first."""
    text = inspect.getdoc(sys.modules[cls.__module__]) or cls.__name__
    title, arxiv = re.search(r'"([^"]+)"', text), re.search(r"arXiv\s+(\d{4}\.\d{4,5})", text)
    return Source(text, " ".join(title[1].split()) if title else cls.__name__, arxiv[1] if arxiv else None)


def description(cls: type[Method]) -> str:
    """The class's docstring without its cost."""
    return "\n\n".join(part for part in _paragraphs(cls) if not part.startswith("Cost:"))


def cost(cls: type[Method]) -> str:
    """What the docstring says behind `Cost:`; work that is linear in the maps needs no such line."""
    found = [part.removeprefix("Cost:").strip() for part in _paragraphs(cls) if part.startswith("Cost:")]
    return " ".join(found[0].split()) if found else LINEAR


def _paragraphs(cls: type[Method]) -> list[str]:
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")


def presets(cls: type[Method]) -> tuple[str, ...]:
    """Names of the presets that a method has, `paper` first."""
    return get_args(cls.Config.model_fields["preset"].annotation)


def only_preset(cls: type[Method]) -> str:
    """Why there is one preset alone, as its Config says."""
    return cls.Config.model_fields["preset"].description or "one definition"


def config(cls: type[Method], preset: str) -> MethodConfig:
    """All defaults of a preset."""
    return cls.Config.model_validate({"preset": preset})


def definitions(cls: type[Method]) -> list[Callable[..., Any]]:
    """The functions behind a method's terms: those in its module, and in those of its bases, that give one number.

    In the order in which the modules are written; those that a module took from another one come last.
    """
    found: dict[str, Callable[..., Any]] = {}
    for base in inspect.getmro(cls):
        if issubclass(base, Method) and base.__module__ not in _ABOVE:
            members = vars(sys.modules[base.__module__]).values()
            homes = ("segkd.methods.", base.__module__)
            found |= {f"{one.__module__}.{one.__name__}": one for one in members if is_definition(one, homes)}
    return sorted(found.values(), key=lambda one: one.__module__ != cls.__module__)


def is_definition(one: Any, homes: tuple[str, ...]) -> bool:
    """Whether this is a public function of one of the modules `homes` that gives one number."""
    if not inspect.isfunction(one) or one.__name__.startswith("_") or not one.__module__.startswith(homes):
        return False
    gives = str(one.__annotations__.get("return", "")).replace("'", '"')
    return one.__name__.endswith("_loss") or gives in {'Float[Tensor, ""]', "float"}


def signature(function: Callable[..., Any]) -> str:
    """name(arguments) with shapes and defaults, as text that stays the same wherever it is read."""
    parts, marked = list[str](), False
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not marked:
            parts, marked = [*parts, "*"], True
        shape = _shape(str(one.annotation), sys.modules[function.__module__])
        parts.append(f"{one.name}{shape}{'' if one.default is one.empty else f'={one.default!r}'}")
    return f"{function.__name__}({', '.join(parts)})"


def _shape(annotation: str, module: ModuleType) -> str:
    named = getattr(module, annotation, None)  # a module may give a shape a name, such as Map
    dims = getattr(named, "dim_str", None) or next(iter(re.findall(r"\[Tensor, '\s*([^']+)'\]", annotation)), "")
    return f" ({', '.join(dims.split())})" if dims else ""


def parameters(cls: type[Method]) -> list[Parameter]:
    """Every key of the method's Config."""
    chosen = {preset: config(cls, preset) for preset in presets(cls)}
    return [
        Parameter(
            name,
            _values(field),
            {preset: _default(cls, preset, name, one) for preset, one in chosen.items()},
            field.description or ("which definition and which defaults" if name == "preset" else ""),
        )
        for name, field in cls.Config.model_fields.items()
    ]


def _default(cls: type[Method], preset: str, name: str, chosen: MethodConfig) -> str | None:
    value = getattr(chosen, name)
    try:
        cls.Config.model_validate({"preset": preset, name: value})
    except ValidationError:
        return None
    return shown(value)


def shown(value: Any) -> str:
    """A value as one writes it in params.yaml."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple) else str(value)


def _values(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {getattr(one, key):g}" for one in field.metadata for key, sign in signs.items() if hasattr(one, key)
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(shown, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if args := get_args(annotation):
        return " or ".join(map(_type, args))
    return {float: "number", int: "integer", bool: "true or false", NoneType: "null"}.get(annotation, str(annotation))
