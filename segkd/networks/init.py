"""How weights start, from torch's global generator: the caller seeds it."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Initialise every convolution and batch norm below `module`, in the order of `module.modules()`.

    - convolutions: normal with Kaiming's fan-out gain for ReLU, as torchvision's ResNet and MobileNetV2;
    - convolutions with a bias, which here are exactly the final 1x1 classifiers: normal(0, 0.01), bias 0, so that
      training starts from a nearly uniform prediction (MMSegmentation's decode heads);
    - batch norm: weight 1, bias 0; linear layers (CBAM) keep PyTorch's default.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            if part.bias is None:
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(part.weight, std=0.01)
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
