"""Two processes, each with half a batch, remember what one process with the whole batch does."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from segkd.methods.base import Progress
from segkd.methods.cirkd import CIRKD, CIRKDConfig
from segkd.networks.outputs import Channels, Map, Outputs
from segkd.ops.processes import gathered

SHAPES = [Channels(Map(3, 4), Map(width, 4), ()) for width in (4, 6)]
OPTIONS = {"pixel_memory": 30, "region_memory": 8, "pixel_contrast": 20, "region_contrast": 6, "per_class": 5}


def trained(part: slice) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(last loss terms, state) after two steps on a part of every batch of four images."""
    torch.manual_seed(0)
    method = CIRKD(CIRKDConfig(kd=0, **OPTIONS), *SHAPES, 3).eval()  # batch statistics differ between halves by nature
    for iteration in range(2):
        generator = torch.Generator().manual_seed(iteration)
        s, t = (torch.randn(4, width, 5, 7, generator=generator) for width in (4, 6))
        labels = torch.randint(0, 3, (4, 20, 28), generator=generator)
        outputs = [Outputs(x[part, :3], x[part], ()) for x in (s, t)]
        terms = method(*outputs, labels[part], Progress(iteration, 10, 0, 1))
    return {name: term.detach() for name, term in terms.items()}, method.state_dict()


def child(rank: int, meeting: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    assert gathered(torch.tensor([rank])).tolist() == [0, 1]
    torch.save(trained(slice(2 * rank, 2 * rank + 2)), Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def test_without_a_process_group_a_tensor_stays_itself():
    x = torch.ones(2)
    assert gathered(x) is x


def test_two_processes_remember_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    multiprocessing.spawn(child, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    terms, state = trained(slice(0, 4))
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for _, half in halves:
        for name, value in state.items():
            torch.testing.assert_close(half[name], value, rtol=0, atol=1e-7)
    for name in ("minibatch", "pixel", "region"):
        mean = (halves[0][0][name] + halves[1][0][name]) / 2
        torch.testing.assert_close(mean, terms[name], rtol=1e-5, atol=0)
