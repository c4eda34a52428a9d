"""The losses on maps and on class relations: what they keep for backward, autocast, compilation."""

from __future__ import annotations

import pytest
import torch

from segkd.methods.af_dcd import omni_contrast_loss
from segkd.methods.attnfd import attnfd_loss, attnfd_released_loss
from segkd.methods.dist import dist_loss
from segkd.methods.dsd import csd_loss, csd_released_loss, psd_loss, psd_released_loss
from segkd.methods.ickd import ickd_loss
from segkd.methods.icsd import icsd_loss, icsd_released_loss, pixel_loss
from segkd.methods.mgd import mgd_loss
from segkd.methods.overhaul import overhaul_loss
from segkd.methods.sp import sp_loss
from segkd.ops.labelled import labelled_cross_entropy

LABELS = torch.randint(0, 16, (2, 64, 96), generator=torch.Generator().manual_seed(0))
LARGE = (64, 96)  # four times the map: nothing of this size may be kept
LOSSES = {
    "dsd.psd": lambda s, t: psd_loss([s, s.flip(2)], [t, t.flip(3)]),
    "dsd.psd released": lambda s, t: psd_released_loss([s, s.flip(2)], [t, t.flip(3)]),
    "dsd.csd": csd_loss,
    "dsd.csd released": csd_released_loss,
    "icsd": lambda s, t: icsd_loss(s, t, size=LARGE),
    "icsd released": lambda s, t: icsd_released_loss(s, t, size=LARGE),
    "icsd.kd": lambda s, t: pixel_loss(s, t, size=LARGE),
    "task": lambda s, t: labelled_cross_entropy(s, LABELS[: len(s)]),
    "attnfd": lambda s, t: attnfd_loss([s], [t]),
    "attnfd released": lambda s, t: attnfd_released_loss([s], [t]),
    "overhaul": lambda s, t: overhaul_loss(s, t, torch.full((s.shape[1],), -0.5)),
    "sp": sp_loss,
    "ickd": ickd_loss,
    "dist": dist_loss,
    "mgd": mgd_loss,
    "af-dcd": omni_contrast_loss,
}
OTHER_MAPS = {"dsd.psd": 1, "dsd.psd released": 1, "af-dcd": 3}  # the flipped copy; pooling and its 64-bit indices


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return s.requires_grad_(), t


def kept(loss, s, t):
    """Bytes that autograd keeps beside the student's own tensor."""
    own, found = s.untyped_storage().data_ptr(), {}

    def pack(x):
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        value = loss(s, t)
    found.pop(own, None)
    value.backward()
    return sum(found.values())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_for_backward(name, dtype):
    s, t = draw(2, 16, 16, 24, dtype=dtype)
    assert kept(LOSSES[name], s, t) <= (1.6 + OTHER_MAPS.get(name, 0)) * 4 * s.numel()
    assert s.grad.isfinite().all()
    assert s.grad.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_in_float32(name):
    s, t = draw(2, 16, 16, 24)
    plain = LOSSES[name](s, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = LOSSES[name](s, t)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_compiles_without_a_graph_break(name):
    loss = LOSSES[name]
    s, t = draw(2, 16, 5, 7)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(s, t)
    torch.testing.assert_close(compiled, loss(s, t))
    got, want = (torch.autograd.grad(x, s)[0] for x in (compiled, loss(s, t)))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", LOSSES)
def test_memory_order_of_the_maps_changes_nothing(name):
    s, t = draw(2, 16, 8, 8)
    last = [x.detach().contiguous(memory_format=torch.channels_last) for x in (s, t)]
    last[0].requires_grad_()
    torch.testing.assert_close(LOSSES[name](*last), LOSSES[name](s, t))
    got, want = torch.autograd.grad(LOSSES[name](*last), last[0])[0], torch.autograd.grad(LOSSES[name](s, t), s)[0]
    torch.testing.assert_close(got, want)
