from __future__ import annotations

from functools import cache

import pytest
import torch
from method_outputs import channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.config.network import NetworkConfig
from segkd.config.recipe import Optimiser
from segkd.errors import ConfigError
from segkd.methods.attnfd import AttnFD, AttnFDConfig, attnfd_loss, attnfd_released_loss
from segkd.methods.base import Progress
from segkd.networks.build import Network, build
from segkd.networks.outputs import Outputs
from segkd.training import optimise

CLASSES = 5
FIRST, SECOND = Progress(0, 10, 0, 2), Progress(5, 10, 1, 2)


@cache
def network(head: str = "deeplabv3plus", width: float = 0.125, attention: str = "none", stride: int = 8) -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(
        head=head, backbone="resnet18", stem="conv3", output_stride=stride, width=width, attention=attention
    )
    return build(config, CLASSES).train()


def both(
    preset: str, head: str = "deeplabv3plus", attention: str = "cbam", **options
) -> tuple[AttnFD, Outputs, Outputs]:
    student, teacher = network(head), network(head, 0.25, attention)
    torch.manual_seed(1)
    method = AttnFD(AttnFDConfig(preset=preset, **options), student.channels, teacher.channels, CLASSES).train()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        taught = teacher(images)
    return method, student(images), taught


def moved(method: AttnFD, student: Outputs, teacher: Outputs, progress: Progress) -> set[str]:
    """Names of what one update changes."""
    optimiser = optimise.build(
        Optimiser(name="sgd", lr=0.1, weight_decay=0.1), {"method": (list(method.parameters()), method.factor)}
    )
    before = {name: value.clone() for name, value in method.named_parameters()}
    sum(method(student, teacher, torch.zeros(2, 32, 32).long(), progress).values()).backward()
    optimiser.step()
    return {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}


def test_losses_are_the_textbook_forms_with_their_gradients():
    s, t = (torch.randn(2, 4, 3, 5, dtype=torch.float64) for _ in range(2))
    s.requires_grad_()
    u, v = functional.normalize(s, dim=1), functional.normalize(t, dim=1)
    plain = 2 * (u - v).square().sum(1).mean()
    ours = attnfd_loss([s, s], [t, t])
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))
    plain, ours = (s / s.norm() - t / t.norm()).square().sum() / 2, attnfd_released_loss([s], [t])
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


@pytest.mark.parametrize("loss", [attnfd_loss, attnfd_released_loss])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_dead_and_equal_maps_have_finite_and_zero_gradients(loss, value):
    s = torch.full((1, 3, 1, 1), value).requires_grad_()
    assert torch.autograd.grad(loss([s], [s.detach()]), s)[0].abs().max() < 1e-6
    other = torch.autograd.grad(loss([s], [torch.randn(1, 3, 1, 1)]), s)[0]
    assert other.isfinite().all()
    assert value or other.abs().max() == 0


def test_whole_tensor_norm_is_exact_in_float32_for_millions_of_elements():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 64, 129, 129, generator=generator) for _ in range(2))
    wide = attnfd_released_loss([s.double()], [t.double()])
    torch.testing.assert_close(attnfd_released_loss([s], [t]).double(), wide, rtol=1e-6, atol=0)


def test_paper_reads_the_teachers_refined_maps_and_trains_all_of_its_own():
    method, student, teacher = both("paper")
    assert method.names == ("stage4", "context", "decoder")
    names = {name for name, _ in method.named_parameters()}
    assert moved(method, student, teacher, FIRST) == names
    refined = [teacher.attention[name] for name in method.names]
    ours = {"stage4": student.stages[3].pre} | {name: student.head[name].post for name in ("context", "decoder")}
    connected = [method.connectors[name](method.refinements[name](ours[name])) for name in method.names]
    loss = method(student, teacher, torch.zeros(2, 32, 32).long(), FIRST)["attention"]
    torch.testing.assert_close(loss, 2 * attnfd_loss(connected, refined))


def test_released_trains_connectors_in_epoch_0_and_spatial_gates_after_it():
    method, student, teacher = both("released", attention="none")
    fixed = {name: x.clone() for name, x in method.teacher_refinements.state_dict().items()}
    first = moved(method, student, teacher, FIRST)
    assert first == {name for name, _ in method.connectors.named_parameters(prefix="connectors")}
    method, student, teacher = both("released", attention="none")
    second = moved(method, student, teacher, SECOND)
    gates = {name for name, _ in method.refinements.named_parameters(prefix="refinements") if ".spatial." in name}
    assert second == gates
    assert not any(".channel." in name for name in first | second)
    for name, value in method.teacher_refinements.state_dict().items():
        assert torch.equal(value, fixed[name]), name


def test_released_holds_the_student_in_epoch_0_and_divides_its_task_loss():
    paper, released = (both(preset)[0] for preset in ("paper", "released"))
    assert paper.student_moves(FIRST)
    assert not released.student_moves(FIRST)
    assert released.student_moves(SECOND)
    assert (paper.task_weight(SECOND, 4), released.task_weight(SECOND, 4)) == (1, 0.25)


def test_only_preset_paper_needs_a_teacher_with_attention():
    assert AttnFD.teacher_variant(AttnFDConfig()) == "cbam"
    assert AttnFD.teacher_variant(AttnFDConfig(preset="released")) == "none"
    with pytest.raises(ConfigError, match=r"teacher: none(.|\n)*attention: cbam"):
        both("paper", attention="none")


@pytest.mark.parametrize(("head", "names"), [("fcn", ("stage4",)), ("deeplabv3", ("stage4", "context"))])
@pytest.mark.parametrize("preset", ["paper", "released"])
def test_heads_with_fewer_maps_are_compared_on_those(preset, head, names):
    method, student, teacher = both(preset, head)
    assert method.names == names
    assert method(student, teacher, torch.zeros(2, 32, 32).long(), SECOND)["attention"].isfinite()


def test_a_map_asked_for_must_exist_and_maps_change_the_loss():
    with pytest.raises(ConfigError, match="decoder"):
        both("paper", "deeplabv3", maps=("stage4", "decoder"))
    method, student, teacher = both("paper", maps=("context",))
    assert set(method.refinements) == {"context"}
    assert len(method(student, teacher, torch.zeros(2, 32, 32).long(), FIRST)) == 1


def test_strides_must_agree():
    with pytest.raises(ConfigError, match=r"stage4(.|\n)*input / 8, teacher: input / 4"):
        AttnFD(
            AttnFDConfig(),
            network(stride=8).channels,
            network(width=0.25, attention="cbam", stride=4).channels,
            CLASSES,
        )


def test_weight_zero_needs_no_module_and_no_maps():
    method = AttnFD(AttnFDConfig(weight=0), channels(8), channels(16), CLASSES)
    assert list(method.parameters()) == []
    with pytest.raises(ValidationError, match="maps would change nothing"):
        AttnFDConfig(weight=0, maps=("stage4",))
    with pytest.raises(ValidationError, match="twice"):
        AttnFDConfig(maps=("stage4", "stage4"))
