"""params.yaml of a project so small that every real step takes a second."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "studies": "auto",
    "datasets": {
        "digits": {
            "kind": "digits",
            "size": 32,
            "digits": [1, 1],
            "digit_size": [12, 16],
            "scenes": {"train": 16, "val": 4, "test": 6},
        }
    },
    "networks": {
        "large": {
            "head": "fcn",
            "backbone": "resnet18",
            "stem": "conv3",
            "output_stride": 8,
            "width": 0.125,
            "head_channels": 64,
        },
        "small": {
            "head": "fcn",
            "backbone": "resnet18",
            "stem": "conv3",
            "output_stride": 8,
            "width": 0.0625,
            "head_channels": 32,
        },
    },
    "recipes": {
        "tiny": {
            "dataset": "digits",
            "iterations": 6,
            "batch": 4,
            "augmentation": {"crop": [32, 32], "flip": 0.0},
            "optimiser": {"name": "adamw", "lr": 0.003, "weight_decay": 0.0001},
            "evaluation": {"split": "test", "select_every": 3, "batch": 2},
        }
    },
    "methods": {"none": {"method": "none"}, "kd": {"method": "kd"}, "ka": {"method": "ka"}},
}
