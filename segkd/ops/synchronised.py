"""Batch normalisation over the batches of all processes, as if one process had the whole batch.

PyTorch's SyncBatchNorm runs on GPUs only; this one is the same on every device, and so are its tests.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.ops.precision import widen
from segkd.ops.processes import gathered, processes

Moments = tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, ""]]  # mean, biased variance, count of values


class SyncBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that trains on the mean and variance over all processes; the same parameters, buffers and names.

    Every process must pass the same number of times through it, with at least one value per channel each.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise this process's images."""
        if not self.training:
            return super().forward(input)
        mean, variance, count = moments(input)
        if self.track_running_stats:
            self._remember(mean, variance, count)
        normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean, variance, count, self.eps
        )
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


@torch.no_grad()
def moments(x: Float[Tensor, "b c h w"]) -> Moments:
    """Mean, biased variance and number of values per channel over all processes, at least in float32.

    From each process's own mean and squared deviations, so that nothing cancels (Chan, Golub, LeVeque 1979).
    """
    variance, mean = torch.var_mean(widen(x), (0, 2, 3), correction=0)
    count = torch.full_like(mean[:1], x.numel() / x.shape[1])
    found = gathered(torch.cat([mean, variance, count])[None])
    means, variances, counts = found[:, : x.shape[1]], found[:, x.shape[1] : -1], found[:, -1:]
    total = counts.sum()
    centre = (means * counts).sum(0) / total
    return centre, ((variances + (means - centre).square()) * counts).sum(0) / total, total


class _Normalise(torch.autograd.Function):
    """weight (x - mean) / sqrt(variance + eps) + bias, where mean and variance depend on all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The sums over the batch in batch norm's gradient go over all processes; those for weight and bias do not."""
        x, weight, mean, variance, count = ctx.saved_tensors
        slope = widen(slopes[0])
        scale = (variance + ctx.eps).rsqrt()
        column = (None, slice(None), None, None)
        unit = (widen(x) - mean[column]) * scale[column]
        own = torch.stack([slope.sum((0, 2, 3)), (slope * unit).sum((0, 2, 3))])
        shift, tilt = gathered(own[None]).sum(0) / count
        to_x = (slope - shift[column] - unit * tilt[column]) * (weight * scale)[column]
        return to_x.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None, None


def synchronise(module: nn.Module) -> None:
    """Replace every batch norm within `module` by a `SyncBatchNorm` of the same tensors; nothing with one process."""
    if processes() == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _synchronised(child))
        else:
            synchronise(child)


def _synchronised(norm: nn.BatchNorm2d) -> SyncBatchNorm:
    made = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, device="meta")
    made.track_running_stats = norm.track_running_stats
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
