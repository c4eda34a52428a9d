"""What the losses keep for backward: about one tensor of the student's size, whatever is large beside it."""

from __future__ import annotations

import pytest
import torch
from loss_table import LOSSES, WEIGHT


def kept(loss, s, t):
    """Bytes that autograd keeps beside the student's own tensor and the weight."""
    own = {x.untyped_storage().data_ptr() for x in (s, WEIGHT)}
    found = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        value = loss(s, t)
    value.backward()
    return sum(found.values())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_for_backward(name, dtype):
    loss, width = LOSSES[name]
    s, t = torch.randn(2, 16, 16, 24).to(dtype).requires_grad_(), torch.randn(2, width, 16, 24).to(dtype)
    weight = WEIGHT.numel() * 4 if name in {"fitnet", "cwd-feature"} else 0
    assert kept(loss, s, t) <= 1.6 * 4 * s.numel() + weight
    assert s.grad.isfinite().all()
    assert s.grad.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_in_float32(name):
    loss, width = LOSSES[name]
    s, t = torch.randn(2, 16, 16, 24, requires_grad=True), torch.randn(2, width, 16, 24)
    plain = loss(s, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(s, t)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_compiles_without_a_graph_break(name):
    loss, width = LOSSES[name]
    s, t = torch.randn(2, 16, 5, 7, requires_grad=True), torch.randn(2, width, 5, 7)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(s, t)
    torch.testing.assert_close(compiled, loss(s, t))
    got, want = (torch.autograd.grad(x, s)[0] for x in (compiled, loss(s, t)))
    torch.testing.assert_close(got, want)
