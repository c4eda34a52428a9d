"""Published key layouts of backbones, brought to ours: tensors by name -> tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Tensors = Mapping[str, Tensor]
_STEM = {
    "conv1.": "conv1.0.",
    "bn1.": "conv1.1.",
    "conv2.": "conv1.3.",
    "bn2.": "conv1.4.",
    "conv3.": "conv1.6.",
    "bn3.": "bn1.",
}
_MMSEG = {
    "attn.attn.out_proj.": "attn.proj.",
    "ffn.layers.0.": "mlp.fc1.",
    "ffn.layers.1.": "mlp.dwconv.",
    "ffn.layers.4.": "mlp.fc2.",
}


def deep_stem(tensors: Tensors) -> dict[str, Tensor]:
    """ResNets whose stem is conv1, bn1, conv2, bn2, conv3, bn3 beside the layers (SKD, CIRKD): one sequence here."""
    found = {}
    for name, tensor in tensors.items():
        head = name[: name.find(".") + 1]
        found[_STEM.get(head, head) + name.removeprefix(head)] = tensor
    return found


def mmseg(tensors: Tensors) -> dict[str, Tensor]:
    """MiT in MMSegmentation: numbered parts, queries, keys and values in one matrix, linear layers as convolutions."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = _mmseg_name(name)
        if "attn.in_proj_" in ours:
            ours = ours.replace("attn.attn.in_proj_", "attn.{}.")
            third = len(tensor) // 3
            found |= {ours.format("q"): tensor[:third], ours.format("kv"): tensor[third:]}
        else:
            linear = ours.endswith((".fc1.weight", ".fc2.weight")) and tensor.dim() == 4
            found[ours] = tensor[:, :, 0, 0] if linear else tensor
    return found


def _mmseg_name(name: str) -> str:
    """layers.K.0 = patch embedding, .1 = blocks, .2 = norm of stage K + 1; other names stay, and so do not fit."""
    room, _, rest = name.partition(".")
    stage, _, rest = rest.partition(".")
    part, _, rest = rest.partition(".")
    if room != "layers" or not stage.isdigit() or part not in ("0", "1", "2"):
        return name
    kind = ("patch_embed", "block", "norm")[int(part)]
    rest = rest.replace("projection.", "proj.") if part == "0" else rest
    for theirs, ours in _MMSEG.items():
        rest = rest.replace(theirs, ours)
    return f"{kind}{int(stage) + 1}.{rest}"


LAYOUTS: dict[str, Callable[[Tensors], dict[str, Tensor]]] = {"own": dict, "deep-stem": deep_stem, "mmseg": mmseg}
