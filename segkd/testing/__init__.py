"""The conformance test that every method passes, this package's own and third parties': `check_method(name)`."""

from segkd.testing.check import check_method
from segkd.testing.faults import ConformanceError, Fault
from segkd.testing.rules import RULES

__all__ = ["RULES", "ConformanceError", "Fault", "check_method"]
