from __future__ import annotations

import numpy as np
import torch
from evaluation_fakes import Colours, Strided, painted_split, recipe
from torch import nn

from segkd.evaluation.cost import flops, latency, measure, median_input, parameters


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, stride=2, padding=2, groups=1)
        self.point = nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point(self.conv(x))


def test_flops_of_convolutions_equal_the_closed_form():
    positions = 10 * 16  # outputs of a stride-2 convolution on 20 x 32
    macs = positions * 16 * (3 * 5 * 5) + positions * 16 * (1 * 3 * 3)
    assert flops(Conv(), (20, 32)) == 2 * macs


def test_flops_leave_the_network_as_it_was():
    network = Strided(4).train()
    before = [parameter.clone() for parameter in network.parameters()]
    flops(network, (64, 2048))
    assert network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_parameters_count_weights_and_not_buffers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network[0].weight.requires_grad_(False)
    assert parameters(network) == 3 * 4 * 9 + 4 + 4 + 4


def test_input_is_the_median_size_under_the_recipes_rule(tmp_path):
    sizes = [(10, 40), (20, 60), (60, 50)]
    split = painted_split(tmp_path, [np.zeros(size, np.uint8) for size in sizes])
    assert median_input(split, recipe()) == (20, 50)
    assert median_input(split, recipe(input_scale=0.5)) == (10, 25)
    assert median_input(split, recipe({"short_side": 40})) == (40, 100)


def test_latency_is_positive_ordered_and_leaves_the_mode():
    network = Strided(4).train()
    median, p90 = latency(network, (32, 32), "cpu")
    assert 0 < median <= p90
    assert network.training


def test_cost_states_input_device_and_threads():
    network = Colours(4)
    cost = measure(network, (8, 12), "cpu").as_json()
    assert {name: cost[name] for name in ("parameters", "input", "latency_device", "latency_threads")} == {
        "parameters": 4,
        "input": [3, 8, 12],
        "latency_device": "cpu",
        "latency_threads": torch.get_num_threads(),
    }
    assert set(network.seen) == {(1, 3, 8, 12)}
    assert measure(Conv(), (20, 32), "cpu").macs * 2 == flops(Conv(), (20, 32))
