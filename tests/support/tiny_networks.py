"""Small networks, reached as `tiny_networks:small_convnet`."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def small_convnet(num_classes: int = 2) -> nn.Module:
    """Two convolutions (the first without bias, before a batch norm), a mean, a linear head `fc`."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 12, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(12, num_classes),
        )
    )


def normed_features(num_classes: int = 2) -> nn.Module:
    """A batch norm over single numbers, which can't train on one sample."""
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8))
    return nn.Sequential(features, nn.Linear(8, num_classes))


def wider_convnet(num_classes: int = 2) -> nn.Module:
    """Another architecture with the same names."""
    model = small_convnet(num_classes)
    model.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    model.fc = nn.Linear(16, num_classes)
    return model


def wide_convnet(num_classes: int = 2) -> nn.Module:
    """Wide enough for verdicts."""
    model = small_convnet(num_classes)
    model.conv1, model.bn1 = nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
    model.conv2 = nn.Conv2d(32, 40, 3, stride=2, padding=1)
    model.fc = nn.Linear(40, num_classes)
    return model


def pooled_convnet(num_classes: int = 2) -> nn.Module:
    """With a max pool whose windows overlap."""
    model = small_convnet(num_classes)
    model.relu1 = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
    return model


def conv_head(num_classes: int = 2) -> nn.Module:
    """A network whose logits are the means of a convolution's outputs."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
