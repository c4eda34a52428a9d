"""fitnet, at, cwd and ifvd as methods: weights, switches, sizes."""

from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.cwd import CWD, CWDConfig, cwd_variant_loss
from segkd.methods.fitnet import FitNet, FitNetConfig
from segkd.methods.ifvd import IFVDConfig, ifvd_loss
from segkd.methods.registry import method_class, method_config

SHAPE = channels(8), channels(16)
TERMS = {
    "fitnet": {"hint": "weight", "kd": "kd"},
    "at": {"attention": "weight", "kd": "kd"},
    "cwd": {"logits": "logits", "feature": "feature", "kd": "kd"},
    "ifvd": {"variation": "weight", "kd": "kd"},
}


@pytest.mark.parametrize("name", TERMS)
def test_each_term_has_a_weight_and_zero_switches_it_off(name, pair, progress):
    student, teacher, labels = pair(*SHAPE)
    base = dict.fromkeys(TERMS[name].values(), 1) | ({"adversarial": 0} if name == "ifvd" else {})

    def terms(**options):
        torch.manual_seed(0)
        method = method_class(name)(method_config(name, base | options), *SHAPE, CLASSES)
        return method(student, teacher, labels, progress)

    one = terms()
    assert set(one) == set(TERMS[name])
    for term, key in TERMS[name].items():
        torch.testing.assert_close(terms(**{key: 3})[term], 3 * one[term])
        assert term not in terms(**{key: 0})


@pytest.mark.parametrize("name", ["fitnet", "at", "cwd", "ifvd", "skd", "cirkd"])
def test_maps_of_different_stride_are_refused(name):
    with pytest.raises(ConfigError, match=r"student: input / 8, teacher: input / 4"):
        method_class(name)(method_config(name, {}), channels(8, 8), channels(16, 4), CLASSES)


def test_fitnet_can_enlarge_the_students_maps(pair, progress):
    shape = channels(8, 8), channels(16, 4)
    student, teacher, labels = pair(*shape)
    method = FitNet(FitNetConfig(resize="teacher"), *shape, CLASSES)
    up = functional.interpolate(student.embedding, (9, 9), mode="bilinear", align_corners=True)
    want = functional.mse_loss(method.connector(up), teacher.embedding)
    torch.testing.assert_close(method(student, teacher, labels, progress)["hint"], 10 * want)
    with pytest.raises(ConfigError, match="remove `resize`"):
        FitNet(FitNetConfig(resize="teacher"), *SHAPE, CLASSES)


def test_cwd_presets_differ_by_the_channels_they_divide_by(pair, progress):
    student, teacher, labels = pair(*SHAPE)
    values = {}
    for preset in ("paper", "released"):
        torch.manual_seed(0)
        method = CWD(CWDConfig(preset=preset), *SHAPE, CLASSES)
        values[preset] = method(student, teacher, labels, progress)
    torch.testing.assert_close(values["released"]["feature"], 2 * values["paper"]["feature"])
    torch.testing.assert_close(values["released"]["logits"], values["paper"]["logits"])
    with pytest.raises(ValidationError, match="feature is 0"):
        CWDConfig(preset="released", feature=0)


def test_cwd_variants_follow_their_definitions():
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    mean = cwd_variant_loss(s, t, norm="channel_mean", divergence="mse")
    torch.testing.assert_close(mean, (s.mean((2, 3)) - t.mean((2, 3))).square().mean())
    none = cwd_variant_loss(s, t, norm="none", divergence="mse")
    torch.testing.assert_close(none, (s[0] - t[0]).square().sum() / 40)
    spatial = cwd_variant_loss(s, t, norm="spatial", divergence="mse")
    torch.testing.assert_close(spatial, (s.softmax(1) - t.softmax(1)).square().sum() / 40)
    with pytest.raises(ConfigError, match="needs distributions"):
        cwd_variant_loss(s, t, norm="none", divergence="kl")


def test_ifvd_ignores_what_the_labels_ignore_but_counts_it_in_the_mean():
    s, t = torch.randn(1, 4, 6, 6, requires_grad=True), torch.randn(1, 4, 6, 6)
    labels = torch.randint(0, 3, (1, 12, 12))
    labels[:, :6] = 255
    loss = ifvd_loss(s, t, labels, classes=3)
    (gradient,) = torch.autograd.grad(loss, s)
    assert gradient[:, :, :3].abs().max() == 0
    lower = ifvd_loss(s[:, :, 3:], t[:, :, 3:], labels[:, 6:], classes=3)
    torch.testing.assert_close(loss, lower / 2)


def test_ifvd_keys_that_change_nothing_are_refused():
    with pytest.raises(ValidationError, match="kd_reduction"):
        IFVDConfig(kd=0, kd_reduction="pixel")
