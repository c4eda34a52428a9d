"""How a broken rule is reported."""

from __future__ import annotations

from typing import NamedTuple

from segkd.errors import SegkdError, listing


class Fault(NamedTuple):
    """One broken rule: its name, and what was expected and found."""

    rule: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"rule `{self.rule}`\n      expected: {self.expected}\n      found:    {self.found}"


class ConformanceError(SegkdError, AssertionError):
    """A method breaks rules that hold for every method; `faults` has them all."""

    def __init__(self, method: str, preset: str, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"Method {method!r}, preset {preset}, breaks {len(faults)} of the rules that hold for every method.\n"
            f"{listing([str(fault) for fault in faults])}\n"
            "  to do: see segkd.testing.RULES for what each rule means, and correct the method"
        )

    @property
    def rules(self) -> frozenset[str]:
        """Names of the broken rules."""
        return frozenset(fault.rule for fault in self.faults)
