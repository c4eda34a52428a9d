"""What has no deterministic kernel on CUDA, by the documentation of torch.use_deterministic_algorithms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Guard = Callable[[tuple[Any, ...], Mapping[str, Any]], bool]


def always(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    return True


def weighted(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    return (arguments[1] if len(arguments) > 1 else options.get("weights")) is not None


def fractional(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    return bool(arguments[0].is_floating_point() or arguments[0].is_complex())


def product(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    return "prod" in [*arguments, *options.values()]


def quantized(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    return bool(arguments[0].is_quantized)


# as the documentation names it -> (operations of aten, which calls of them are meant)
RAISES: dict[str, tuple[tuple[str, ...], Guard]] = {
    "torch.nn.AvgPool3d": (("avg_pool3d_backward",), always),
    "torch.nn.AdaptiveAvgPool2d": (("_adaptive_avg_pool2d_backward",), always),
    "torch.nn.AdaptiveAvgPool3d": (("_adaptive_avg_pool3d_backward",), always),
    "torch.nn.AdaptiveMaxPool2d": (("adaptive_max_pool2d_backward",), always),
    "torch.nn.FractionalMaxPool2d": (("fractional_max_pool2d_backward",), always),
    "torch.nn.FractionalMaxPool3d": (("fractional_max_pool3d_backward",), always),
    "torch.nn.MaxUnpool1d": (("max_unpool2d",), always),
    "torch.nn.MaxUnpool2d": (("max_unpool2d",), always),
    "torch.nn.MaxUnpool3d": (("max_unpool3d",), always),
    "torch.nn.functional.interpolate": (
        (
            "upsample_linear1d_backward",
            "upsample_bilinear2d_backward",
            "_upsample_bilinear2d_aa_backward",
            "upsample_bicubic2d_backward",
            "_upsample_bicubic2d_aa_backward",
            "upsample_trilinear3d_backward",
        ),
        always,
    ),
    "torch.nn.ReflectionPad1d": (("reflection_pad1d_backward",), always),
    "torch.nn.ReflectionPad2d": (("reflection_pad2d_backward",), always),
    "torch.nn.ReflectionPad3d": (("reflection_pad3d_backward",), always),
    "torch.nn.NLLLoss": (
        ("nll_loss_forward", "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward"),
        always,
    ),
    "torch.nn.CTCLoss": (("_ctc_loss_backward",), always),
    "torch.nn.EmbeddingBag": (("_embedding_bag_dense_backward", "_embedding_bag_backward"), always),
    "torch.Tensor.put_": (("put", "put_"), always),
    "torch.histc": (("histc",), always),
    "torch.bincount": (("bincount",), weighted),
    "torch.median": (("median", "nanmedian"), always),
    "torch.nn.functional.grid_sample": (("grid_sampler_2d_backward", "grid_sampler_3d_backward"), always),
    "torch.cumsum": (("cumsum", "cumsum_"), fractional),
    "torch.Tensor.scatter_reduce": (("scatter_reduce", "scatter_reduce_"), product),
    "torch.Tensor.resize_": (("resize_",), quantized),
}
GUARDS = {name: (documented, guard) for documented, (names, guard) in RAISES.items() for name in names}


def documented() -> set[str]:
    """What the documentation of the installed PyTorch names."""
    text = str(torch.use_deterministic_algorithms.__doc__)
    begin, end = text.index("operations will throw a"), text.index("In addition, several operations")
    return set(re.findall(r"^\s*\* :\w+:`([\w.]+)`", text[begin:end], re.MULTILINE))


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside; an operation that would raise on CUDA is an AssertionError on any device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        name = str(function.overloadpacket.__name__)
        self.seen.add(name)
        named, guard = GUARDS.get(name, ("", None))
        if guard and guard(arguments, options or {}):
            raise AssertionError(f"{name}: CUDA has no deterministic kernel for it (documented as {named})")
        return function(*arguments, **(options or {}))
