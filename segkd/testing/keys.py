"""The rule of keys: every key of a method's Config changes the training, or is refused where it would not."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from segkd.methods.base import MethodConfig
from segkd.methods.registry import method_class
from segkd.testing.cases import SITUATIONS, Situation
from segkd.testing.faults import Fault
from segkd.testing.subject import Subject
from segkd.testing.traces import Trace, differ, traced

Options = Mapping[str, Any]


def candidates(annotation: Any, value: Any) -> list[Any]:
    """Other values that a field of this type may take, whatever its constraints."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        found = list(arguments)
    elif origin in (Union, types.UnionType):
        found = [one for argument in arguments for one in candidates(argument, value)]
    elif origin is tuple and isinstance(value, tuple):
        found = [one for one in (value[:-1], value[1:], *((item,) for item in value)) if one]
    else:
        found = _simple(annotation, value)
    return [one for one in found if one != value]


def _simple(annotation: Any, value: Any) -> list[Any]:
    if annotation is type(None):
        return [None]
    if annotation is bool:
        return [not value]
    if annotation is int:
        number = value or 0
        return list(dict.fromkeys((1, 2, number // 2, 2 * number, number + 1, 0)))  # small ones first: quick
    if annotation is float:
        return [2 * value, value / 2] if value else [1.0, 0.5]
    return []


class Keys:
    """What the keys of one method do under many options; each trace is made once."""

    def __init__(self, subject: Subject) -> None:
        self.name, self.home = subject.name, subject.situation
        self.config: type[MethodConfig] = method_class(self.name).Config
        self.given = {name: getattr(subject.config, name) for name in subject.config.model_fields_set}
        self._traces: dict[tuple[str, str], Trace | None] = {}

    def valid(self, options: Options) -> MethodConfig | None:
        """The options as a Config; None where it refuses them."""
        try:
            return self.config.model_validate(dict(options))
        except ValidationError:
            return None

    def trace(self, options: Options, situation: Situation) -> Trace | None:
        """The trace of these options; None where they are refused."""
        key = (repr(sorted(options.items())), situation.name)
        if key not in self._traces:
            config, certain = self.valid(options), situation == self.home
            found = None if config is None else traced(Subject(self.name, config, situation), certain=certain)
            self._traces[key] = found
        return self._traces[key]

    def acts(self, context: Options, key: str, value: Any) -> bool | None:
        """Whether a value of a key changes something beside what `context` gives; None where it is refused."""
        options, accepted = {**context, key: value}, False
        if self.valid(options) is None:
            return None
        for situation in (self.home, *(one for one in SITUATIONS if one != self.home)):
            changed = self.trace(options, situation)
            if changed is not None:
                accepted, before = True, self.trace(context, situation)
                if before is None or differ(before, changed):
                    return True
        return False if accepted else None

    def acts_with_help(self, key: str, value: Any) -> bool:
        """Whether it changes something, if it is refused by itself together with a change of one other key."""
        verdict = self.acts(self.given, key, value)
        if verdict is not None:
            return verdict
        contexts = ({**self.given, other: one} for other in self.config.model_fields for one in self.values(other))
        return any(self.valid(c) is not None and self.acts(c, key, value) for c in contexts if self.given != c)

    def values(self, key: str, context: Options | None = None) -> list[Any]:
        """Values to try for a key: the field's examples, and what follows from its type."""
        config, entry = self.valid(self.given if context is None else context), self.config.model_fields[key]
        return [*(entry.examples or []), *candidates(entry.annotation, getattr(config, key))]

    def choice(self, key: str) -> bool:
        """Whether a key chooses between named values."""
        return get_origin(self.config.model_fields[key].annotation) is Literal

    def switched_off(self) -> Iterator[dict[str, Any]]:
        """Contexts in which one weight is 0, and all are; given keys are dropped where they would be refused."""
        preset = {"preset": self.given["preset"]} if "preset" in self.given else {}
        fields = self.config.model_fields
        weights = [k for k, f in fields.items() if f.annotation is float and self.valid({**preset, k: 0}) is not None]
        for off in (*({weight: 0} for weight in weights), dict.fromkeys(weights, 0)):
            tried = ({**self.given, **off}, {**preset, **off})
            yield from [context for context in tried if self.valid(context) is not None][:1]


def keys(subject: Subject) -> Iterator[Fault]:
    """Every key changes something for some value, every choice does; none is accepted where it changes nothing."""
    table = Keys(subject)
    for key in table.config.model_fields:
        values = table.values(key)
        if not values and not table.choice(key):
            yield Fault("keys", f"values to try for key {key!r}", "none for its type: give Field(examples=[...])")
        acting = (table.acts_with_help(key, value) for value in values)
        if values and not (all(acting) if table.choice(key) else any(acting)):
            found = "it changes nothing, or no value is ever accepted"
            yield Fault("keys", f"key {key!r} changes the training", found)
    for context in table.switched_off():
        yield from _idle(table, context)


def _idle(table: Keys, context: dict[str, Any]) -> Iterator[Fault]:
    """Faults of keys that are accepted, and change nothing, where weights are 0."""
    for key in table.config.model_fields:
        if key == "preset" or key in context:
            continue
        verdicts = []
        for value in table.values(key, context):
            verdicts.append(table.acts(context, key, value))
            if verdicts[-1]:
                break
        if False in verdicts and True not in verdicts:
            off = ", ".join(f"{name} {value}" for name, value in context.items() if name not in table.given)
            yield Fault("keys", f"key {key!r} refused where it changes nothing (with {off})", "it is accepted")
