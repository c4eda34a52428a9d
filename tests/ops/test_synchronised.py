"""Batch norm over all processes equals batch norm over the whole batch in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from several import together
from torch import Tensor, nn

from segkd.ops.processes import divisor
from segkd.ops.synchronised import SyncBatchNorm, synchronise
from segkd.training.processes import joined, rank

ROUNDS = 3


def model() -> nn.Sequential:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(5, 1e-3, 0.01))
    made = nn.Sequential(*parts)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def batch(height: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images with a mean, and a weight for each output, so that the processes' gradients differ."""
    generator = torch.Generator().manual_seed(1)
    shape = (6, 3, height, height)
    images, weights = (
        torch.randn(size, generator=generator, dtype=kind) for size in (shape, (6, 5, *[height - 2] * 2))
    )
    return images + 1, weights


def run(norms: nn.Module, images: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after a few rounds."""
    images = images.clone().requires_grad_()
    for _ in range(ROUNDS):
        found = norms(images)
        (found * weights).sum().backward()
    assert images.grad is not None
    gradients = {f"slope {name}": p.grad for name, p in norms.named_parameters() if p.grad is not None}
    return {"output": found.detach(), "to images": images.grad} | gradients | dict(norms.named_buffers())


def part_of_it(folder: Path, height: int, count: int, kind: torch.dtype) -> None:
    with joined(count):
        norms = model().to(kind)
        synchronise(norms)
        share = 6 // count
        mine = slice(rank() * share, (rank() + 1) * share)
        images, weights = batch(height, kind)
        torch.save(run(norms, images[mine], weights[mine]), folder / f"{rank()}.pt")


@pytest.mark.parametrize(
    ("height", "count", "kind", "tolerance"),
    [(8, 2, torch.float32, 1e-5), (8, 2, torch.float64, 1e-12), (3, 3, torch.float64, 1e-12)],
)
def test_outputs_gradients_and_statistics_are_those_of_one_process(
    tmp_path: Path, height: int, count: int, kind: torch.dtype, tolerance: float
) -> None:
    """At height 3 a channel has one value per image after the convolution."""
    assert together(part_of_it, tmp_path, height, count, kind, count=count) == [0] * count
    parts = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(count)]
    for name, one in run(model().to(kind), *batch(height, kind)).items():
        if name in {"output", "to images"}:
            several = torch.cat([part[name] for part in parts])
        elif name.startswith("slope"):
            several = torch.stack([part[name] for part in parts]).sum(0)
        else:
            assert all(torch.equal(part[name], parts[0][name]) for part in parts), name
            several = parts[0][name]
        scale = max(1.0, one.abs().double().max().item())
        assert (one.double() - several.double()).abs().max().item() <= tolerance * scale, name


def test_one_process_keeps_its_batch_norms() -> None:
    alone = model()
    before = list(alone.modules())
    synchronise(alone)
    assert list(alone.modules()) == before


def test_tensors_names_and_modes_stay(tmp_path: Path) -> None:
    assert together(keeps, count=2) == [0, 0]


def keeps() -> None:
    with joined(2):
        norms = model()
        norms[3].eval()
        before = {**dict(norms.named_parameters()), **dict(norms.named_buffers())}
        synchronise(norms)
        after = {**dict(norms.named_parameters()), **dict(norms.named_buffers())}
        assert list(before) == list(after)
        assert all(before[name] is after[name] for name in before)
        assert isinstance(norms[1], SyncBatchNorm)
        assert (norms[1].training, norms[3][0].training) == (True, False)
        assert (norms[3][0].eps, norms[3][0].momentum) == (1e-3, 0.01)


def divides(folder: Path) -> None:
    with joined(2):
        counts = torch.tensor([3, 0][rank()]), torch.tensor(0), torch.tensor([1, 0][rank()])
        (folder / f"{rank()}").write_text(" ".join(str(float(divisor(count))) for count in counts))


def test_sums_over_uneven_counts_have_the_mean_over_all(tmp_path: Path) -> None:
    """(3 x + 0) / 1.5 and 0 / 1.5 have the mean x; where nothing counts, nothing is divided by zero."""
    assert together(divides, tmp_path) == [0, 0]
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "1.5 0.5 0.5"
    assert divisor(torch.tensor(0)) == 1
    assert divisor(torch.tensor(7)).dtype == torch.int64
