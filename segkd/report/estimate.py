"""A mean over seeds and how sure it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Mean over n seeds, standard deviation (n - 1) and 95 % t-interval; the last three are None for one seed."""

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean, standard deviation and mean +- t(0.975, n - 1) * sd / sqrt(n); None without values. Units are kept."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], 1)
    from segkd.evaluation.stats import t_interval

    mean, low, high = t_interval(values)
    return Estimate(mean, len(values), statistics.stdev(values), low, high)
