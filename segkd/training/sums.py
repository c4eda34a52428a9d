"""Running means of loss terms between two lines of the journal."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Sums:
    """Running means of loss terms, kept on the device: reading them is what makes host and device wait."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one iteration's terms."""
        for name, term in terms.items():
            self.totals[name] = self.totals[name] + term if name in self.totals else term
        self.count += 1

    def pack(self) -> dict[str, Tensor]:
        """The sums since the last line of the journal, so that a resumed run writes the same lines."""
        return {f"sums.{name}": total for name, total in self.totals.items()}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], count: int, device: torch.device) -> Sums:
        """Inverse of pack, back on the device."""
        sums = cls()
        named = {name: total for name, total in tensors.items() if name.startswith("sums.")}
        sums.totals = {name.removeprefix("sums."): total.to(device) for name, total in named.items()}
        sums.count = count
        return sums

    def means(self) -> dict[str, float]:
        """Means since the last call, with `loss`, the sum of what trains the result."""
        totals = torch.stack(list(self.totals.values())).tolist()  # one copy from the device, not one per term
        values = {name: total / self.count for name, total in zip(self.totals, totals, strict=True)}
        loss = math.fsum(value for name, value in values.items() if not name.startswith("critic."))
        self.totals, self.count = {}, 0
        return {"loss": loss} | values
