"""The rules that hold for every method, on the loss functions and on the methods as the loop sees them."""

from __future__ import annotations

import pytest
import torch
from loss_table import LOSSES
from method_outputs import CLASSES, channels, draw

from segkd.errors import ConfigError
from segkd.methods.base import Progress
from segkd.methods.registry import method_class, method_config
from segkd.networks.outputs import Outputs

NAMES = ["kd", "fitnet", "at", "cwd", "ka", "skd", "ifvd", "cirkd"]
NO_CONNECTOR = sorted(set(LOSSES) - {"fitnet", "cwd-feature"})
NOT_A_DISTANCE = {"skd-pixel"}  # a cross-entropy: its minimum is the teacher's entropy
SUMMED = {"skd-pixel"}  # over the batch: released code


def made(name, stride=4):
    student, teacher = channels(8, stride), channels(16, stride)
    cls, config = method_class(name), method_config(name, {})
    method = cls(config, student, teacher, CLASSES)
    pretraining = cls.pretraining(config, student, teacher, CLASSES)
    if pretraining is not None:
        method.adopt(pretraining)
    return method.train()


@pytest.mark.parametrize("name", NO_CONNECTOR)
def test_student_equal_to_teacher_is_the_minimum_with_no_gradient(name):
    loss, _ = LOSSES[name]
    s = torch.randn(2, 16, 8, 12, dtype=torch.float64, requires_grad=True)
    value = loss(s, s.detach())
    (gradient,) = torch.autograd.grad(value, s)
    assert gradient.abs().max() < 1e-12
    if name not in NOT_A_DISTANCE:
        assert abs(value.item()) < 1e-12


@pytest.mark.parametrize("name", sorted(set(LOSSES) - SUMMED - {"ifvd", "cirkd-memory"}))
def test_identical_images_give_the_loss_of_one(name):
    loss, width = LOSSES[name]
    s, t = torch.randn(1, 16, 8, 12, dtype=torch.float64), torch.randn(1, width, 8, 12, dtype=torch.float64)
    if name in {"fitnet", "cwd-feature"}:
        s, t = s.float(), t.float()
    torch.testing.assert_close(loss(s.repeat(2, 1, 1, 1), t.repeat(2, 1, 1, 1)), loss(s, t))


def degenerate():
    """Student and teacher maps, 16 channels each, of the sizes and kinds that break naive losses."""
    s, t = torch.randn(2, 16, 8, 12), torch.randn(2, 16, 8, 12)
    dead, constant, gone = s.clone(), torch.ones_like(s), torch.zeros_like(s)
    dead[:, 3] = 0
    dead[:, :, 2, 5] = 0
    point = torch.randn(2, 16, 1, 1)
    return {
        "dead": (dead, t),
        "constant": (constant, t),
        "zero": (gone, t),
        "dead-teacher": (s, dead),
        "zero-teacher": (s, gone),
        "constant-both": (constant, 2 * constant),
        "point": (point, torch.randn(2, 16, 1, 1)),
        "large": (1e3 * s, 1e3 * t),
    }


@pytest.mark.fault("P3", "constant, zero, huge and tiny maps under every loss")
@pytest.mark.parametrize("name", sorted(k for k, (_, width) in LOSSES.items() if k not in {"fitnet", "cwd-feature"}))
@pytest.mark.parametrize("case", sorted(degenerate()))
def test_degenerate_maps_are_finite(name, case):
    s, t = degenerate()[case]
    s = s.clone().requires_grad_()
    value = LOSSES[name][0](s, t)
    (gradient,) = torch.autograd.grad(value, s)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.fault("P7", "gradients of every method's terms")
@pytest.mark.parametrize("name", NAMES)
def test_terms_reach_the_student_and_every_weight_but_never_the_teacher(name, progress):
    torch.manual_seed(0)
    method = made(name)
    generator = torch.Generator().manual_seed(0)
    student, teacher = draw(channels(8), 2, 36, generator, True), draw(channels(16), 2, 36, generator, True)
    labels = torch.randint(0, CLASSES, (2, 36, 36), generator=generator)
    kept = [x.detach().clone() for x in (teacher.logits, teacher.embedding)]
    terms = method(student, teacher, labels, progress)
    assert all(term.dim() == 0 and term.item() != 0 for term in terms.values())
    sum(terms.values()).backward()
    assert teacher.logits.grad is None
    assert teacher.embedding.grad is None
    assert all(torch.equal(*both) for both in zip(kept, (teacher.logits, teacher.embedding), strict=True))
    own = {id(p) for one in method.own_optimisers() for p in one.parameters}
    for parameter in method.parameters():
        if parameter.requires_grad and id(parameter) not in own:
            assert parameter.grad is not None
        else:
            assert parameter.grad is None
    read = {"logits": student.logits.grad, "embedding": student.embedding.grad}
    assert {field for field, gradient in read.items() if gradient is not None} == set(method.needs)


@pytest.mark.fault("P3", "one image of ignored pixels under every method")
@pytest.mark.parametrize("name", NAMES)
def test_only_ignored_labels_and_one_image_are_finite(name, pair):
    torch.manual_seed(0)
    method = made(name)
    student, teacher, labels = pair(channels(8), channels(16), batch=1)
    for iteration, label in enumerate((torch.full_like(labels, 255), labels)):
        terms = method(student, teacher, label, Progress(iteration, 10, 0, 1))
        total = sum(terms.values())
        total.backward()
        assert total.isfinite()
        assert student.embedding.grad is None or student.embedding.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_outputs_are_near_the_float32_result(name, pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    narrow = [Outputs(x.logits.bfloat16(), x.embedding.bfloat16(), ()) for x in (student, teacher)]
    torch.manual_seed(0)
    method = made(name)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    full = method(student, teacher, labels, progress)
    method.load_state_dict(state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = method(*narrow, labels, progress)
    for key, value in full.items():
        assert cast[key].dtype == torch.float32
        torch.testing.assert_close(cast[key], value, rtol=3e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("kd", {"weight": 0, "temperature": 2}, "temperature"),
        ("cwd", {"logits": 0, "feature": 0, "temperature": 2}, "temperature"),
        ("fitnet", {"weight": 0, "kd": 0, "resize": "teacher"}, "resize"),
        ("ka", {"adaptation": 0, "affinity": 0, "pretrain_lr": 1}, "pretrain_lr"),
    ],
)
def test_keys_that_change_nothing_are_refused(name, options, key):
    with pytest.raises(ConfigError, match=f"{key} would change nothing"):
        method_config(name, options)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_described(name):
    schema = method_class(name).Config.model_json_schema()["properties"]
    assert [key for key, field in schema.items() if key != "preset" and not field.get("description")] == []
