"""Every registered method, this package's own and installed ones, keeps the rules that hold for every method."""

from __future__ import annotations

import pytest
import torch

from segkd.errors import ConfigError
from segkd.methods.registry import available, method_class
from segkd.testing import check_method
from segkd.testing.check import configs

QUICK = {"skd": {"critic_width": 4}, "ifvd": {"critic_width": 4}}  # a discriminator of 64 channels takes a minute
CASES = [(name, config.preset) for name in available() for config in configs(name)]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_keeps_the_rules(name: str, preset: str) -> None:
    check_method(name, config={"preset": preset} | QUICK.get(name, {}))


def test_both_presets_are_checked_where_there_are_two() -> None:
    assert [config.preset for config in configs("cirkd")] == ["paper", "released"]
    assert [config.preset for config in configs("kd")] == ["paper"]
    assert [config.preset for config in configs("kd", {"weight": 2.0})] == ["paper"]


def test_other_hyper_parameters_than_the_defaults() -> None:
    check_method("cirkd", config={"kd": 0.0, "pixel": 0.0, "region": 0.0, "group_size": None})
    check_method("kd", config=method_class("kd").Config(reduction="element"))


def test_unknown_methods_and_keys_are_refused_as_everywhere() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cirkd'"):
        check_method("cirkt")
    with pytest.raises(ConfigError, match="weigth"):
        check_method("kd", config={"weigth": 1.0})


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    check_method("sp")
    assert torch.equal(torch.get_rng_state(), before)
