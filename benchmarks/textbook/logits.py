"""Losses on class logits (B, C, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def kd(s: Tensor, t: Tensor) -> Tensor:
    """KL over the classes, mean over positions (Hinton et al. 2015), T = 1."""
    positions = s.numel() // s.shape[1]
    return F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="sum") / positions


def kd_upsampled(s: Tensor, t: Tensor, size: Size) -> Tensor:
    """KL over the classes at the image's size, mean over positions and classes (AICSD's KD)."""
    s, t = (F.interpolate(x, size, mode="bilinear", align_corners=True) for x in (s, t))
    return F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="sum") / s.numel()


def soft_cross_entropy(s: Tensor, t: Tensor) -> Tensor:
    """-sum of p_t log p_s over everything / (H W): SKD's pixel-wise term as released."""
    return -(F.softmax(t, 1) * F.log_softmax(s, 1)).sum() / s.shape[2:].numel()


def cross_entropy_upsampled(s: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy at the labels' size, mean over labelled pixels, / B: AICSD's task loss as released."""
    s = F.interpolate(s, (y.shape[-2], y.shape[-1]), mode="bilinear", align_corners=True)
    return F.cross_entropy(s, y, ignore_index=255) / len(s)


def cwd(s: Tensor, t: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 / (B C) sum of KL over the positions of each channel (CWD, equation 4)."""
    log_s, p_t = F.log_softmax(s.flatten(2) / temperature, 2), F.softmax(t.flatten(2) / temperature, 2)
    return F.kl_div(log_s, p_t, reduction="sum") * temperature**2 / (s.shape[0] * s.shape[1])


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return F.cosine_similarity(x, y, dim=1)


def dist(s: Tensor, t: Tensor) -> Tensor:
    """1 - mean corr over classes + 1 - mean corr over positions, of probabilities (DIST, equations 6 and 7)."""
    p, q = (F.softmax(x, 1).transpose(0, 1).flatten(1) for x in (s, t))
    return (1 - _pearson(p.T, q.T).mean()) + (1 - _pearson(p, q).mean())


def csd(s: Tensor, t: Tensor, temperature: float = 4.0) -> Tensor:
    """Squared difference of the correlations of class maps (DSD, section III-C)."""
    maps = (F.normalize(F.softmax(x / temperature, 1).flatten(2), dim=2) for x in (s, t))
    m_s, m_t = (u @ u.transpose(1, 2) for u in maps)
    return F.mse_loss(m_s, m_t)


def csd_released(s: Tensor, t: Tensor, temperature: float = 4.0) -> Tensor:
    """The same of position-wise softmax after 2 x 2 average-pooling, not normalised."""
    pooled = (F.avg_pool2d(x, 2, 2, ceil_mode=True).flatten(2) for x in (s, t))
    m_s, m_t = (p @ p.transpose(1, 2) for p in (F.softmax(x / temperature, 2) for x in pooled))
    return F.mse_loss(m_s, m_t)


def _similarity(z: Tensor) -> Tensor:
    """KL between every two class maps, pair by pair; rows normalised. (B, C, C)."""
    p, log_p = (f(z.flatten(2), 2).unbind(1) for f in (F.softmax, F.log_softmax))
    rows = [[F.kl_div(other, own, reduction="none").sum(1) for other in log_p] for own in p]
    return F.normalize(torch.stack([torch.stack(row, 1) for row in rows], 1), dim=2, eps=1e-4)


def icsd(s: Tensor, t: Tensor, size: Size | None = None) -> Tensor:
    """Squared difference of inter-class similarity matrices (AICSD), logits enlarged to `size` first."""
    if size is not None:
        s, t = (F.interpolate(x, size, mode="bilinear", align_corners=True) for x in (s, t))
    return F.mse_loss(_similarity(s), _similarity(t))


def _released_similarity(z: Tensor) -> Tensor:
    p, log_p = (f(z, 2).unbind(1) for f in (F.softmax, F.log_softmax))
    classes = range(z.shape[1])
    pairs = {(i, j): (p[j] * (log_p[j] - p[i])).sum() / len(z) for i in classes for j in classes if i <= j}
    rows = [torch.stack([pairs[min(i, j), max(i, j)] for j in classes]) for i in classes]
    return F.normalize(torch.stack(rows), dim=1)


def icsd_released(s: Tensor, t: Tensor) -> Tensor:
    """The released code of AICSD: softmax along columns, probabilities for log-probabilities, mirrored."""
    return F.mse_loss(_released_similarity(s), _released_similarity(t)) / len(s)
