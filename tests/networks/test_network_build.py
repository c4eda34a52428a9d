"""Whole networks: what they return, what they say about themselves, how they start."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from small_networks import HEADS, config, image, network
from torch import nn
from torch.nn import functional as F

from segkd.errors import ConfigError
from segkd.networks.build import Network, build
from segkd.networks.outputs import Channels, Map, Outputs

FULL = {"auxiliary": True, "attention": "cbam"}
VARIANTS = [
    {"backbone": "resnet18", "stem": "conv3", "output_stride": 4, **FULL},
    {"backbone": "resnet50", "stem": "deep", "output_stride": 8, "auxiliary": True},
    {"backbone": "resnet18", "output_stride": 16, "multi_grid": (1, 2)},
    {"backbone": "mobilenetv2", "output_stride": 16, "attention": "cbam"},
    {"backbone": "xception41", "output_stride": 16, "attention": "cbam"},
    {"backbone": "mit-b0", "output_stride": 32, "attention": "cbam"},
]
SIZES = [(48, 48), (33, 70), (129, 97)]


def promised(channels: Channels, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes that `Channels` lets one expect."""

    def shape(found: Map) -> tuple[int, ...]:
        return batch, found.channels, -(-height // found.stride), -(-width // found.stride)

    named = {"logits": channels.logits, "embedding": channels.embedding}
    named |= {f"stage{k}": found for k, found in enumerate(channels.stages)}
    named |= {"auxiliary": channels.auxiliary} if channels.auxiliary else {}
    named |= {f"head.{name}": found for name, found in channels.head.items()}
    named |= {f"attention.{name}": found for name, found in channels.attention.items()}
    return {name: shape(found) for name, found in named.items()}


def returned(outputs: Outputs) -> dict[str, tuple[int, ...]]:
    named = {"logits": outputs.logits, "embedding": outputs.embedding}
    named |= {f"stage{k}": stage.pre for k, stage in enumerate(outputs.stages)}
    named |= {"auxiliary": outputs.auxiliary} if outputs.auxiliary is not None else {}
    named |= {f"head.{name}": stage.post for name, stage in outputs.head.items()}
    named |= {f"attention.{name}": found for name, found in outputs.attention.items()}
    return {name: tuple(tensor.shape) for name, tensor in named.items()}


@torch.no_grad()
@pytest.mark.parametrize(("head", "fields"), list(product(HEADS, VARIANTS)))
def test_channels_tell_the_shapes_without_running(head: str, fields: dict[str, object]) -> None:
    net = network(head=head, **fields).eval()
    for height, width in SIZES:
        assert returned(net(image(2, 3, height, width))) == promised(net.channels, 2, height, width)


@torch.no_grad()
@pytest.mark.parametrize(("output_stride", "sizes"), [(16, (129, 33)), (8, (129, 65))])
def test_the_papers_513_crop(output_stride: int, sizes: tuple[int, int]) -> None:
    outputs = network(head="deeplabv3plus", output_stride=output_stride).eval()(image(1, 3, 513, 513))
    assert (outputs.logits.shape[-1], outputs.head["context"].pre.shape[-1]) == sizes


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenetv2", "xception41-released", "mit-b0"])
def test_every_parameter_learns(head: str, backbone: str) -> None:
    fields = {"auxiliary": backbone.startswith("resnet"), "output_stride": 32 if backbone == "mit-b0" else 8}
    net = network(head=head, backbone=backbone, attention="cbam", width=0.2, **fields)
    outputs = net(image(2, 3, 64, 64))
    loss = F.cross_entropy(outputs.logits, torch.zeros_like(outputs.logits[:, 0], dtype=torch.long))
    if outputs.auxiliary is not None:
        loss = loss + outputs.auxiliary.square().mean()
    loss.backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_a_batch_of_one_trains(head: str, attention: str) -> None:
    net = network(head=head, attention=attention, output_stride=16)
    net(image(1, 3, 40, 40)).logits.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)


@torch.no_grad()
def test_a_single_value_per_channel_is_normalised_by_running_statistics_and_leaves_them() -> None:
    net = network(head="deeplabv3")
    norm = net.head.aspp.image[1]
    norm.running_mean.fill_(3.0)
    norm(torch.tensor([5.0]).expand(1, norm.num_features, 1, 1))
    assert norm.running_mean.eq(3).all()
    assert norm.num_batches_tracked == 0
    found = norm(torch.full((1, norm.num_features, 1, 1), 5.0))
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=1e-4, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_the_embedding_is_what_the_classifier_reads(head: str) -> None:
    net = network(head=head, attention="cbam")
    outputs = net(image(2, 3, 48, 48))
    torch.testing.assert_close(net.head.classifier(outputs.embedding), outputs.logits)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_named_maps_are_the_heads_own_before_dropout_and_refinement(head: str) -> None:
    outputs = network(head=head, attention="cbam")(image(2, 3, 48, 48))
    own = {"fcn": [], "deeplabv3plus": ["context", "decoder"], "segformer": ["decoder"]}
    expected = own.get(head, ["context"])
    assert list(outputs.head) == expected
    assert list(outputs.attention) == ["stage4", *expected]
    for stage in outputs.head.values():
        assert torch.equal(stage.post, stage.pre.clamp(min=0))


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2", "xception41"])
def test_attention_stands_in_the_forward_path(head: str, backbone: str) -> None:
    """The head reads the refined stage 4 (after ReLU for a ResNet), and what follows a map reads its refinement."""
    net = network(head=head, backbone=backbone, attention="cbam").eval()
    outputs = net(image(2, 3, 48, 48))
    torch.testing.assert_close(outputs.attention["stage4"], net.attention(outputs.stages[3].pre))
    without = [*outputs.stages[:3], outputs.stages[3]]
    assert not torch.allclose(net.head(tuple(without)).logits, outputs.logits)
    if head != "fcn":
        last = list(outputs.head)[-1]
        refined = net.head.attention[last](outputs.head[last].post)
        torch.testing.assert_close(outputs.attention[last], refined)
        if head != "deeplabv3":  # whose 3x3 convolution stands between context and embedding
            torch.testing.assert_close(outputs.embedding, refined)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_stage_four_of_a_resnet_is_refined_before_its_relu(attention: str) -> None:
    net = network(head="fcn", attention=attention).eval()
    outputs = net(image(2, 3, 48, 48))
    read = outputs.attention["stage4"].clamp(min=0) if attention == "cbam" else outputs.stages[3].post
    torch.testing.assert_close(F.relu(net.head.conv(read)), outputs.embedding)


@pytest.mark.parametrize(("head", "fields"), list(product(HEADS, VARIANTS)))
def test_parameter_groups_are_disjoint_and_complete(head: str, fields: dict[str, object]) -> None:
    net = network(head=head, **fields)
    backbone, rest = [id(p) for p in net.backbone_parameters()], [id(p) for p in net.head_parameters()]
    assert len({*backbone, *rest}) == len(backbone) + len(rest)
    assert {*backbone, *rest} == {id(p) for p in net.parameters()}


def test_the_seed_decides_the_start() -> None:
    one, same, other = (network(seed=seed, **FULL).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_the_backbone_starts_alike_with_every_head() -> None:
    starts = [network(head=head, **fields).backbone.state_dict() for head in HEADS for fields in ({}, FULL)]
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in start)


def test_weights_start_as_documented() -> None:
    net = network(head="deeplabv3plus", width=1.0)
    conv = net.head.fuse[0]
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    classifier = net.head.classifier.weight  # uniform within 1 / sqrt(inputs), PyTorch's default
    assert classifier.std().item() == pytest.approx((3 * classifier.shape[1]) ** -0.5, rel=0.1)
    assert net.head.classifier.bias.abs().max() <= classifier.shape[1] ** -0.5
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in norms)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_images_are_judged_alone_in_eval_mode(head: str) -> None:
    net = network(head=head, attention="cbam").eval()
    x = image(3, 3, 40, 56)
    together = net(x).logits
    torch.testing.assert_close(together, torch.cat([net(one[None]).logits for one in x]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_step_twice_gives_the_same_bits(head: str) -> None:
    def step() -> list[torch.Tensor]:
        net = network(head=head, **FULL)
        torch.manual_seed(3)
        net(image(2, 3, 48, 48)).logits.square().mean().backward()
        return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]

    assert all(torch.equal(one, other) for one, other in zip(step(), step(), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet18", "xception41", "mit-b0"])
def test_channels_last_gives_the_same_and_stays(head: str, backbone: str) -> None:
    stride = 32 if backbone == "mit-b0" else 8
    net = network(head=head, backbone=backbone, output_stride=stride, attention="cbam", width=0.25).eval()
    x = image(2, 3, 48, 48)
    plain = net(x).logits
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last.logits, plain, rtol=1e-3, atol=1e-5)
    assert all(stage.post.is_contiguous(memory_format=torch.channels_last) for stage in last.stages)


@torch.no_grad()
@pytest.mark.parametrize(
    ("head", "backbone", "stride"),
    [("deeplabv3-no-aspp", "mobilenetv2", 16), ("deeplabv3plus", "xception41", 16), ("segformer", "mit-b0", 32)],
)
def test_evaluation_gives_the_same_bits_and_in_either_layout_the_same_to_1e_5(
    head: str, backbone: str, stride: int
) -> None:
    net, x = network(head=head, backbone=backbone, output_stride=stride, width=0.25).eval(), image(2, 3, 65, 97)
    plain = net(x).logits
    assert torch.equal(net(x).logits, plain)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(last, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_bf16_autocast_is_close_and_trains(head: str) -> None:
    net = network(head=head, **FULL).eval()
    x = image(2, 3, 48, 48)
    exact = net(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(x)
        loss = outputs.logits.float().square().mean()
    loss.backward()
    assert (outputs.logits.float() - exact).norm() < 0.1 * exact.norm()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@torch.no_grad()
def test_inputs_are_left_alone() -> None:
    x = image(2, 3, 48, 48)
    before = x.clone()
    network(backbone="mobilenetv2")(x)
    network(stem="conv3")(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"backbone": "mobilenetv2", "multi_grid": (1, 2, 4)}, "multi_grid"),
        ({"backbone": "mobilenetv2", "stem": "deep"}, "stem"),
        ({"backbone": "xception41", "stem": "conv3"}, "stem"),
        ({"backbone": "xception41", "multi_grid": (1, 2, 4)}, "multi_grid"),
        ({"backbone": "mit-b4", "output_stride": 32, "stem": "deep"}, "stem"),
        ({"backbone": "mit-b0"}, "set output_stride: 32"),
        ({"backbone": "resnet18", "multi_grid": (1, 2, 4)}, "expected 2"),
        ({"backbone": "resnet50", "multi_grid": (1, 0, 4)}, "positive"),
        ({"stem": "conv3", "output_stride": 32}, "cannot be reached"),
    ],
)
def test_networks_that_cannot_be_are_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build(config(**fields), 2)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)multi_grid.*output_stride"):
        build(config(multi_grid=(1,), stem="conv3", output_stride=32), 2)


def test_the_network_remembers_its_configuration() -> None:
    net: Network = network(head="pspnet")
    assert net.config == config(head="pspnet")
