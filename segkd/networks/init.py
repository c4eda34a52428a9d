"""How weights start, from torch's global generator: the caller seeds it."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Initialise every convolution and batch norm below `module`, in the order of `module.modules()`.

    - convolutions without bias: normal with Kaiming's fan-out gain for ReLU, as torchvision's ResNet and MobileNetV2;
    - convolutions with a bias, which here are the final 1x1 classifiers and the linear layers of SegFormer's head:
      PyTorch's default, as torchvision's segmentation heads. A smaller start of the classifier, normal(0, 0.01), held
      ResNet-18 on the digits at "all background" for 400 iterations and more, where this one reached 70 % mIoU (same
      seed, AdamW at 3e-3);
    - batch norm: weight 1, bias 0; linear layers (CBAM) keep PyTorch's default.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            if part.bias is None:
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            else:
                part.reset_parameters()
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
