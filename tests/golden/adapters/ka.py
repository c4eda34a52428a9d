"""KA: autoencoder, adaptation, affinity."""

from __future__ import annotations

from torch import Tensor

from segkd.methods.ka import SPARSITY, adaptation_loss, affinity_loss, reconstruction_loss, sparsity_loss

Tensors = dict[str, Tensor]


def autoencoder(tensors: Tensors) -> Tensor:
    return reconstruction_loss(tensors["teacher"], tensors["reconstruction"]) + SPARSITY * sparsity_loss(
        tensors["code"]
    )


def adapt(tensors: Tensors) -> Tensor:
    return adaptation_loss(tensors["student"], tensors["teacher"])


def affinity(tensors: Tensors) -> Tensor:
    return affinity_loss(tensors["student"], tensors["teacher"])


LOSSES = {"ka.autoencoder": autoencoder, "ka.adapt": adapt, "ka.affinity": affinity}
