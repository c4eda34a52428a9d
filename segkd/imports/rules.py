"""Rules that rename the keys of a checkpoint, and a user's own rules from a YAML file."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator, model_validator

from segkd.config.base import Closed
from segkd.config.load import load


class Rule(NamedTuple):
    """Renames the front of a key: `pattern` (a regular expression) must match from its start up to a dot or its end.

    `to` takes the place of what matched, with the pattern's groups as \\1, \\2; the rest of the key stays.
    """

    pattern: str
    to: str


Rules = tuple[Rule, ...]
LeftOut = dict[str, str]  # pattern, read as a rule's: why keys that begin so have no place in the network


def rename(key: str, rules: Rules) -> tuple[str, Rule | None]:
    """The key as the first rule that matches it renames it, and that rule; the key itself and None where none does."""
    for rule in rules:
        if found := _compiled(rule.pattern).match(key):
            return found.expand(rule.to) + key[found.end() :], rule
    return key, None


def reason(key: str, left_out: LeftOut) -> str | None:
    """Why a key is left out, or None where it is not."""
    return next((why for pattern, why in left_out.items() if _compiled(pattern).match(key)), None)


def pair(pattern: str, to: str, conv: str = "0", norm: str = "1") -> Rules:
    """Two rules for a convolution and its norm below one name: `conv` and `norm` there, 0 and 1 in our `ConvNorm`."""
    return Rule(rf"{pattern}\.{conv}", f"{to}.0"), Rule(rf"{pattern}\.{norm}", f"{to}.1")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern})(?=\.|$)")


class UserRule(Closed):
    """One entry under `rules` of a user's file."""

    pattern: str
    to: str

    @model_validator(mode="after")
    def _works(self) -> UserRule:
        groups = _checked(self.pattern).groups
        wanted = [int(number) for number in re.findall(r"\\g?<?(\d+)", self.to)]
        if max(wanted, default=0) > groups:
            raise ValueError(f"`to` uses group {max(wanted)}, the pattern has {groups}")
        return self


class UserRules(Closed):
    """A file for a layout that differs: applied before the layout's own rules, to keys without `module.`.

    rules: as `Rule`; they may lead to the layout's names or straight to the network's. left_out: pattern -> reason.
    """

    rules: tuple[UserRule, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)

    @field_validator("left_out")
    @classmethod
    def _patterns(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value:
            _checked(pattern)
        return value

    @property
    def table(self) -> Rules:
        """The rules in the form that `rename` takes."""
        return tuple(Rule(rule.pattern, rule.to) for rule in self.rules)


def load_rules(path: Path | None) -> UserRules:
    """A user's rules; none where there is no file. ConfigError lists every fault of the file."""
    return UserRules() if path is None else load(UserRules, path)


def _checked(pattern: str) -> re.Pattern[str]:
    try:
        return _compiled(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
