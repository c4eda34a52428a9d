"""Heads built anew as the other code bases describe theirs, module names included, compute what ours compute.

Their tensors get their names from the modules themselves, so that neither our tables nor the tests' are believed: a
branch in the wrong place of a concatenation would show here only.
"""

from __future__ import annotations

from pathlib import Path

import foreign_names as names
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.imports.convert import convert
from segkd.imports.read import Foreign
from segkd.imports.rules import UserRules
from segkd.networks.build import Network

IMAGE = torch.randn((2, 3, 65, 97), generator=torch.Generator().manual_seed(3))
CLASSES, MIDDLE = names.CLASSES, 8


def conv(inside: int, outside: int, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)


def block(inside: int, outside: int, kernel: int = 1, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(inside, outside, kernel, rate), nn.BatchNorm2d(outside), nn.ReLU())


def enlarged(x: Tensor, like: Tensor, corners: bool = True) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=corners)


class Part(nn.Module):
    """A module with parts by name."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def pooling(inside: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *block(inside, MIDDLE))


def last(inside: int) -> nn.Sequential:
    return nn.Sequential(*block(inside, MIDDLE, 3), nn.Dropout(0.1), nn.Conv2d(MIDDLE, CLASSES, 1))


class Cirkd(nn.Module):
    """`pretrained`, `head.aspp.b0` ... `b4`, `head.aspp.project`, `head.block`."""

    def __init__(self, backbone: nn.Module, inside: int) -> None:
        super().__init__()
        dilated = {f"b{k}": Part(block=block(inside, MIDDLE, 3, 12 * k)) for k in (1, 2, 3)}
        project = nn.Sequential(*block(5 * MIDDLE, MIDDLE), nn.Dropout(0.5))
        aspp = Part(b0=block(inside, MIDDLE), **dilated, b4=Part(gap=pooling(inside)), project=project)
        self.pretrained, self.head = backbone, Part(aspp=aspp, block=last(MIDDLE))

    def forward(self, image: Tensor) -> Tensor:
        x, aspp = self.pretrained(image)[3].post, self.head.aspp
        maps = [aspp.b0(x), aspp.b1.block(x), aspp.b2.block(x), aspp.b3.block(x), enlarged(aspp.b4.gap(x), x)]
        return self.head.block(aspp.project(torch.cat(maps, 1)))


class CirkdPyramid(nn.Module):
    """`backbone`, `head.psp.conv1` ... `conv4` over 1, 2, 3 and 6 bins, `head.block`."""

    def __init__(self, backbone: nn.Module, inside: int) -> None:
        super().__init__()
        psp = Part(**{f"conv{k}": block(inside, inside // 4) for k in (1, 2, 3, 4)})
        self.backbone, self.head = backbone, Part(psp=psp, block=last(2 * inside))

    def forward(self, image: Tensor) -> Tensor:
        x, psp = self.backbone(image)[3].post, self.head.psp
        maps = [
            enlarged(getattr(psp, f"conv{k}")(F.adaptive_avg_pool2d(x, bins)), x)
            for k, bins in ((1, 1), (2, 2), (3, 3), (4, 6))
        ]
        return self.head.block(torch.cat([x, *maps], 1))


class Deeplab(nn.Module):
    """`backbone`, `aspp.aspp1` ... `aspp4`, `aspp.global_avg_pool`, `aspp.conv1`, `decoder.conv1`, `last_conv`."""

    def __init__(self, backbone: nn.Module, inside: int, low: int = 8, narrow: int = 6) -> None:
        super().__init__()
        branches = {
            f"aspp{k + 1}": Part(
                atrous_conv=conv(inside, MIDDLE, 3 if rate else 1, rate or 1), bn=nn.BatchNorm2d(MIDDLE)
            )
            for k, rate in enumerate((0, 6, 12, 18))
        }
        ends = {"conv1": conv(5 * MIDDLE, MIDDLE), "bn1": nn.BatchNorm2d(MIDDLE)}
        self.backbone, self.aspp = backbone, Part(**branches, global_avg_pool=pooling(inside), **ends)
        decode = nn.Sequential(*block(MIDDLE + narrow, MIDDLE, 3), nn.Dropout(0.5), *last(MIDDLE))
        self.decoder = Part(conv1=conv(low, narrow), bn1=nn.BatchNorm2d(narrow), last_conv=decode)

    def forward(self, image: Tensor) -> Tensor:
        stages = self.backbone(image)
        x, aspp, decoder = stages[3].post, self.aspp, self.decoder
        maps = [F.relu(branch.bn(branch.atrous_conv(x))) for branch in (aspp.aspp1, aspp.aspp2, aspp.aspp3, aspp.aspp4)]
        context = F.relu(aspp.bn1(aspp.conv1(torch.cat([*maps, enlarged(aspp.global_avg_pool(x), x)], 1))))
        low = F.relu(decoder.bn1(decoder.conv1(stages[0].post)))
        return decoder.last_conv(torch.cat([enlarged(context, low), low], 1))


class SegFormer(nn.Module):
    """`backbone`, `decode_head.linear_c1` ... `c4`, joined last stage first, `linear_fuse`, `linear_pred`."""

    def __init__(self, backbone: nn.Module, inside: int) -> None:
        super().__init__()
        linear = {f"linear_c{k + 1}": Part(proj=nn.Linear(stage[0], MIDDLE)) for k, stage in enumerate(backbone.stages)}
        fuse = Part(conv=conv(4 * MIDDLE, MIDDLE), bn=nn.BatchNorm2d(MIDDLE))
        ends = {"linear_fuse": fuse, "linear_pred": nn.Conv2d(MIDDLE, CLASSES, 1)}
        self.backbone, self.decode_head = backbone, Part(**linear, **ends, conv_seg=nn.Conv2d(MIDDLE, CLASSES, 1))

    def forward(self, image: Tensor) -> Tensor:
        stages, head = [stage.post for stage in self.backbone(image)], self.decode_head
        maps = []
        for k, x in enumerate(stages):
            rows = getattr(head, f"linear_c{k + 1}").proj(x.flatten(2).transpose(1, 2))
            maps.append(enlarged(rows.transpose(1, 2).reshape(len(x), MIDDLE, *x.shape[2:]), stages[0], corners=False))
        joined = torch.cat(maps[::-1], 1)
        return head.linear_pred(F.relu(head.linear_fuse.bn(head.linear_fuse.conv(joined))))


CASES = {
    "cirkd": (Cirkd, "deeplabv3", "resnet18", {"stem": "deep"}),
    "cirkd-psp": (CirkdPyramid, "pspnet", "resnet18", {}),
    "aicsd": (Deeplab, "deeplabv3plus", "resnet18", {"output_stride": 16, "multi_grid": (1, 1)}),
    "mmseg": (SegFormer, "segformer", "mit-b0", {"output_stride": 32}),
}


def foreign(kind: type[nn.Module], ours: Network) -> nn.Module:
    torch.manual_seed(1)
    made = kind(ours.backbone, ours.channels.stages[3].channels)
    names.randomise(made)
    return made.eval()


@pytest.mark.parametrize("case", CASES)
def test_the_imported_network_computes_what_theirs_does(case: str) -> None:
    kind, head, backbone, options = CASES[case]
    ours = names.network(head, backbone, head_channels=64, **options)  # times the width: MIDDLE
    theirs = foreign(kind, ours)
    file = Foreign(Path("theirs.pth"), "", 1, dict(theirs.state_dict()), "", {}, "")
    done = convert(file, case.partition("-")[0], ours.config, CLASSES, UserRules())
    with torch.no_grad():
        wanted, found = theirs(IMAGE), done.network(IMAGE).logits
    assert wanted.flatten(2).std(2).min() > 1e-2
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert set(done.match.left_out) == {name for name in theirs.state_dict() if "conv_seg" in name}
