"""Losses on relations: between positions, images, channels, classes, or with a memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.flatten(2), dim=1)


def _gram(x: Tensor) -> Tensor:
    return x.transpose(1, 2) @ x


def ka_affinity(s: Tensor, t: Tensor) -> Tensor:
    """Mean row norm of the difference of cosine matrices / sqrt(N) (KA, L_aff)."""
    difference = _gram(_unit(s)) - _gram(_unit(t))
    return (difference.norm(dim=2) / difference.shape[2] ** 0.5).mean()


def affinity(s: Tensor, t: Tensor) -> Tensor:
    """Mean squared difference of cosine matrices (SKD, equation 2, without pooling)."""
    return ((_gram(_unit(s)) - _gram(_unit(t))) ** 2).mean()


def skd_pooled(s: Tensor, t: Tensor) -> Tensor:
    """The same after 2 x 2 max-pooling (CIRKD's form)."""
    return affinity(*(F.max_pool2d(x, 2, 2, ceil_mode=True) for x in (s, t)))


def skd_nodes(s: Tensor, t: Tensor) -> Tensor:
    """The same of nodes half the map wide, norms taken as constant (SKD's released form)."""
    window = (s.shape[2] // 2, s.shape[3] // 2)
    nodes = (F.max_pool2d(x, window, window, ceil_mode=True).flatten(2) for x in (s, t))
    a_s, a_t = (_gram(f / (f.norm(dim=1, keepdim=True) + 1e-8).detach()) for f in nodes)
    return ((a_s - a_t) ** 2).mean()


def _nearest(y: Tensor, size: torch.Size) -> Tensor:
    rows, columns = (torch.arange(n, device=y.device) * m // n for n, m in zip(size, y.shape[1:], strict=True))
    return y[:, rows[:, None], columns]


def _variation(f: Tensor, y: Tensor, classes: int) -> Tensor:
    centre = f.clone()
    for k in range(classes):
        mask = (y == k)[:, None].to(f.dtype)
        mean = (mask * f).sum((2, 3), keepdim=True) / (mask.sum((2, 3), keepdim=True) + 1e-6)
        centre = (1 - mask) * centre + mask * mean
    return F.cosine_similarity(f, centre, dim=1)


def ifvd(s: Tensor, t: Tensor, y: Tensor, classes: int) -> Tensor:
    """Squared difference of cosines to the own class's prototype (IFVD, equations 2 to 4)."""
    y = _nearest(y, s.shape[2:])
    return F.mse_loss(_variation(s, y, classes), _variation(t, y, classes))


def _rows(s: Tensor, t: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")


def cirkd_minibatch(s: Tensor, t: Tensor, temperature: float = 0.1) -> Tensor:
    """KL of similarity rows, mean over ordered pairs of images (CIRKD, equation 5)."""
    u, v = _unit(s), _unit(t)
    pairs = [(i, j) for i in range(len(u)) for j in range(len(u))]
    losses = [_rows(u[i].T @ u[j] / temperature, v[i].T @ v[j] / temperature) for i, j in pairs]
    return torch.stack(losses).mean()


def cirkd_memory(s: Tensor, t: Tensor, y: Tensor, pixel: Tensor, region: Tensor, temperature: float = 0.1) -> Tensor:
    """KL of similarities to the pixel and the region memory, labelled positions (CIRKD, equations 9 and 12)."""
    anchors = (_nearest(y, s.shape[2:]) != 255).flatten()
    u, v = (_unit(x).transpose(1, 2).flatten(0, 1)[anchors] for x in (s, t))
    losses = [_rows(u @ bank.T / temperature, v @ bank.T / temperature) for bank in (pixel, region)]
    return torch.stack(losses).sum()


def sp(s: Tensor, t: Tensor) -> Tensor:
    """Squared difference of row-normalised similarities of images / B^2 (SP, equations 1 to 4)."""
    g_s, g_t = (F.normalize(x.flatten(1) @ x.flatten(1).T, dim=1) for x in (s, t))
    return ((g_s - g_t) ** 2).sum() / len(s) ** 2


def ickd(s: Tensor, t: Tensor) -> Tensor:
    """Squared difference of row-normalised channel correlations / (B C) (ICKD, equations 2 and 3)."""
    g_s, g_t = (F.normalize(x.flatten(2) @ x.flatten(2).transpose(1, 2), dim=2) for x in (s, t))
    return ((g_s - g_t) ** 2).sum() / (s.shape[0] * s.shape[1])


def _patches(x: Tensor, groups: int, patch: int) -> Tensor:
    """(patches, positions of a patch * groups, channels of a group)."""
    images, channels, height, width = x.shape
    shape = (images, groups, channels // groups, height // patch, patch, width // patch, patch)
    return x.reshape(shape).permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, patch * patch * groups, channels // groups)


def omni_contrast(s: Tensor, t: Tensor, groups: int = 16, patch: int = 4, pool: int = 4, tau: float = 0.07) -> Tensor:
    """Cross-entropy of each local vector against those of other channel groups, L1 distance (Af-DCD, eq. 4 to 6)."""
    s, t = (F.max_pool2d(x, pool) for x in (s, t))
    distance = torch.cdist(_patches(s, groups, patch), _patches(t, groups, patch), p=1)
    group = torch.arange(distance.shape[1], device=s.device) % groups
    left_out = (group[:, None] == group) & ~torch.eye(len(group), dtype=torch.bool, device=s.device)
    scores = (-distance / tau).masked_fill(left_out, -torch.inf)
    own = torch.arange(len(group), device=s.device).expand(len(scores), -1)
    return F.cross_entropy(scores.flatten(0, 1), own.flatten(), reduction="sum") / (len(s) * s.shape[2:].numel())
