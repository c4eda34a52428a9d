"""`check_method`: every rule on a registered method, all faults in one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch

from segkd.methods.base import MethodConfig
from segkd.methods.registry import method_class, method_config
from segkd.testing.faults import ConformanceError, Fault
from segkd.testing.rules import RULES
from segkd.testing.subject import Subject, fitting


def check_method(name: str, *, config: Mapping[str, Any] | MethodConfig | None = None) -> None:
    """Check a registered method against the rules that hold for every method; takes seconds, needs no pytest.

    name: as in params.yaml; a method of another package is found through the entry-point group `segkd.methods`, or
    once its module is imported. config: hyper-parameters to check it with; by default every preset that it has.
    Raises ConformanceError (an AssertionError) that names each rule broken, with what was expected and found;
    ConfigError where there is no such method, or it refuses the configuration or all pairs of networks.
    """
    random_state = torch.get_rng_state()
    try:
        for one in configs(name, config):
            check_subject(fitting(name, one))
    finally:
        torch.set_rng_state(random_state)


def configs(name: str, config: Mapping[str, Any] | MethodConfig | None = None) -> list[MethodConfig]:
    """The configuration, or the default one of every preset."""
    if isinstance(config, MethodConfig):
        return [config]
    if config is not None:
        return [method_config(name, config, where="check_method: config")]
    presets = get_args(method_class(name).Config.model_fields["preset"].annotation)
    return [method_config(name, {"preset": preset}) for preset in presets]


def check_subject(subject: Subject) -> None:
    """Check one configuration of a method between one pair of networks."""
    faults = found(subject, "alone") or [fault for rule in RULES if rule != "alone" for fault in found(subject, rule)]
    if faults:
        raise ConformanceError(subject.name, subject.config.preset, faults)


def found(subject: Subject, rule: str) -> list[Fault]:
    """A rule's faults; where the method raises something instead of computing, that is one."""
    try:
        return list(RULES[rule](subject))
    except Exception as error:  # noqa: BLE001 -- whatever a method raises here is a fault of the method, and reported
        return [Fault(rule, f"a method that runs: {RULES[rule].__doc__}", f"{type(error).__name__}: {error}")]
