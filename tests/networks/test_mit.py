"""MiT and SegFormer's head: definitions written out, strides, keys, stochastic depth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import image, network
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.networks.mit import Attention, Block, MixFFN, PatchEmbed, StochasticDepth, grid, tokens
from segkd.networks.outputs import Map, Stage
from segkd.networks.segformer import SegFormer


def mit(size: str = "b0", **fields: object) -> nn.Module:
    return network(head="segformer", backbone=f"mit-{size}", output_stride=32, **fields)


@torch.no_grad()
@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_attention_is_its_definition(reduction: int, size: tuple[int, int]) -> None:
    """softmax(Q K' / sqrt(d)) V per head, K and V of the map made R x R times smaller; what is over is left."""
    torch.manual_seed(0)
    layer, x, heads, d = Attention(12, 3, reduction).double(), image(2, size[0] * size[1], 12).double(), 3, 4
    fewer = x
    if reduction > 1:
        map_ = x.transpose(1, 2).reshape(2, 12, *size)
        fewer = F.conv2d(map_, layer.sr.weight, layer.sr.bias, stride=reduction).flatten(2).transpose(1, 2)
        fewer = F.layer_norm(fewer, (12,), layer.norm.weight, layer.norm.bias, 1e-6)
        assert fewer.shape[1] == (size[0] // reduction) * (size[1] // reduction)
    q, kv = x @ layer.q.weight.T + layer.q.bias, fewer @ layer.kv.weight.T + layer.kv.bias
    found = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        key, value = kv[..., :12][..., part], kv[..., 12:][..., part]
        found.append(torch.softmax(q[..., part] @ key.transpose(1, 2) / math.sqrt(d), -1) @ value)
    expected = torch.cat(found, -1) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x, size), expected)


@torch.no_grad()
def test_attention_on_a_map_smaller_than_the_reduction_sees_zeros_beyond() -> None:
    torch.manual_seed(0)
    layer, x = Attention(4, 1, 8), image(1, 15, 4)
    padded = torch.zeros(1, 4, 8, 8)
    padded[..., :3, :5] = grid(x, (3, 5))
    key = layer.norm(layer.sr(padded).flatten(2).transpose(1, 2))
    value = layer.kv(key)[..., 4:]
    torch.testing.assert_close(layer(x, (3, 5)), layer.proj(value.expand(1, 15, 4)))


@torch.no_grad()
def test_mix_ffn_is_its_definition() -> None:
    torch.manual_seed(0)
    layer, x = MixFFN(5), image(2, 12, 5)
    hidden = (x @ layer.fc1.weight.T + layer.fc1.bias).transpose(1, 2).reshape(2, 20, 3, 4)
    hidden = F.gelu(F.conv2d(hidden, layer.dwconv.weight, layer.dwconv.bias, padding=1, groups=20))
    expected = hidden.flatten(2).transpose(1, 2) @ layer.fc2.weight.T + layer.fc2.bias
    torch.testing.assert_close(layer(x, (3, 4)), expected)


@torch.no_grad()
def test_a_block_adds_both_parts_after_layer_norms() -> None:
    torch.manual_seed(0)
    block, x = Block(6, 2, 2, 0.5).eval(), image(1, 24, 6)
    middle = x + block.attn(block.norm1(x), (4, 6))
    torch.testing.assert_close(block(x, (4, 6)), middle + block.mlp(block.norm2(middle), (4, 6)))


@pytest.mark.parametrize(("stride", "kernel"), [(4, 7), (2, 3)])
def test_patches_overlap(stride: int, kernel: int) -> None:
    conv = PatchEmbed(3, 4, stride).proj
    assert (conv.kernel_size, conv.stride, conv.padding) == ((kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2)


def test_tokens_and_grid_are_views_of_channels_last_maps() -> None:
    x = image(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    rows = tokens(x)
    assert rows.is_contiguous()
    assert grid(rows, (4, 5)).data_ptr() == x.data_ptr()
    assert torch.equal(grid(rows, (4, 5)), x)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_gives_maps_of_a_quarter_to_a_thirty_second(height: int, width: int) -> None:
    net = mit(width=1 / 16).eval()
    outputs = net(image(1, 3, height, width))
    assert [tuple(s.post.shape[2:]) for s in outputs.stages] == [
        (-(-height // k), -(-width // k)) for k in (4, 8, 16, 32)
    ]
    assert outputs.logits.shape[2:] == outputs.stages[0].post.shape[2:]
    assert outputs.logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(("size", "channels"), [("b0", [32, 64, 160, 256]), ("b4", [64, 128, 320, 512])])
def test_stages_at_full_width_and_their_one_map(size: str, channels: list[int]) -> None:
    with torch.device("meta"):
        assert [stage.channels for stage in mit(size, width=1.0).backbone.stages] == channels
    for stage in mit(size, width=1 / 16).eval()(image(1, 3, 32, 32)).stages:
        assert stage.pre is stage.post
        assert (stage.pre < 0).any()


@pytest.mark.parametrize(("size", "depths"), [("b0", (2, 2, 2, 2)), ("b4", (3, 8, 27, 3))])
def test_keys_of_the_public_weights(size: str, depths: tuple[int, ...]) -> None:
    expected = set()
    for k, (depth, reduced) in enumerate(zip(depths, (True, True, True, False), strict=True), start=1):
        parts = [f"patch_embed{k}.proj", f"patch_embed{k}.norm", f"norm{k}"]
        names = ["norm1", "attn.q", "attn.kv", "attn.proj", "norm2", "mlp.fc1", "mlp.dwconv", "mlp.fc2"]
        names += ["attn.sr", "attn.norm"] if reduced else []
        parts += [f"block{k}.{n}.{name}" for n in range(depth) for name in names]
        expected |= {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    with torch.device("meta"):
        assert set(mit(size).backbone.state_dict()) == expected


def test_reductions_and_heads_of_the_stages() -> None:
    with torch.device("meta"):
        net = mit("b4", width=1.0).backbone
    layers = [getattr(net, f"block{k}")[0].attn for k in range(1, 5)]
    assert [layer.reduction for layer in layers] == [8, 4, 2, 1]
    assert [layer.heads for layer in layers] == [1, 2, 5, 8]
    assert [tuple(layer.sr.weight.shape[2:]) for layer in layers[:3]] == [(8, 8), (4, 4), (2, 2)]


def test_stochastic_depth_rises_linearly_to_a_tenth() -> None:
    rates = [part.rate for part in mit("b4").modules() if isinstance(part, StochasticDepth)]
    assert rates == pytest.approx([0.1 * k / 40 for k in range(41)])


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, x = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    found = layer(x)
    assert torch.equal(found, found[:, :1, :1].expand_as(found))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert found.mean().item() == pytest.approx(1, abs=4 * math.sqrt(0.25 / 0.75 / 4000))
    assert layer.eval()(x) is x


def test_stochastic_depth_draws_from_the_global_generator_only_while_training() -> None:
    """So a run that restores torch's random state goes on exactly."""
    net, x = mit(width=1 / 16), image(4, 3, 32, 32)

    def backbone() -> Tensor:
        return net.backbone(x)[3].post.detach()

    before = torch.get_rng_state()
    first, second = backbone(), backbone()
    assert not torch.equal(first, second)
    torch.set_rng_state(before)
    assert torch.equal(backbone(), first)
    net.eval()
    state = torch.get_rng_state()
    assert torch.equal(backbone(), backbone())
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_autocast_is_close_and_trains() -> None:
    net, x = mit(width=0.25), image(2, 3, 64, 64)
    exact = net.eval()(x).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        close = net(x).logits.float()
        loss = net.train()(x).logits.float().square().mean()
    loss.backward()
    assert (close - exact).norm() < 0.05 * exact.norm()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_weights_start_as_documented() -> None:
    net = mit(width=1.0).backbone
    part = net.block4[0]
    assert part.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert part.mlp.dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert net.patch_embed4.proj.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert all(p.eq(0).all() for name, p in net.named_parameters() if name.endswith("bias"))


@torch.no_grad()
def test_the_head_is_its_definition() -> None:
    torch.manual_seed(0)
    stages = (Map(3, 4), Map(5, 8), Map(7, 16), Map(9, 32))
    head = SegFormer(stages, 6, 4).eval()
    maps = [image(2, c, 16 * 4 // s, 24 * 4 // s, seed=s) for c, s in stages]
    wide = []
    for linear, x in zip(head.linear, maps, strict=True):
        y = torch.einsum("bchw,oc->bohw", x, linear.weight[:, :, 0, 0]) + linear.bias[:, None, None]
        wide.append(F.interpolate(y, size=(16, 24), mode="bilinear", align_corners=False))
    joined = torch.cat([wide[3], wide[2], wide[1], wide[0]], 1)
    pre = head.fuse(joined)
    outputs = head(tuple(Stage(x, x) for x in maps))
    torch.testing.assert_close(outputs.maps["decoder"].pre, pre)
    torch.testing.assert_close(outputs.embedding, F.relu(pre))
    torch.testing.assert_close(outputs.logits, head.classifier(F.relu(pre)))
