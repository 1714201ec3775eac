"""`birds_resnet18`: a small ResNet-18, and the weights that come with this package.

The weights were learned on 40 kinds of generated birds, none of which is a class of synthbirds. `python -m pretraining`
makes them again, in a checkout of this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet

from ..datasets.transforms import IMAGENET_MEAN, IMAGENET_STD

NAME = "birds_resnet18"
WEIGHTS = Path(__file__).with_suffix(".safetensors")
CHANNELS = (16, 32, 48, 96)
"""Channels of the four stages. A ResNet-18 has 64, 128, 256 and 512.

Each number is a multiple of 16. With 12 channels, the gradient of a strided 1x1 convolution in channels-last order
crashes PyTorch 2.14 on some CPUs.
"""

default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "file": str(WEIGHTS),
            "input_size": (3, 64, 64),
            "num_classes": 80,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)
"""What timm knows of the network."""


@register_model
def birds_resnet18(pretrained: bool = False, **options: Any) -> ResNet:
    """A ResNet-18 with fewer channels, 0.4 million weights, for images of 64 x 64 pixels.

    Arguments:
        pretrained: load the weights that come with this package.
        options: as for timm's networks.
    """
    shape: dict[str, Any] = {"block": BasicBlock, "layers": (2, 2, 2, 2), "channels": CHANNELS}
    model: ResNet = build_model_with_cfg(ResNet, NAME, pretrained, **shape, **options)
    return model
