"""The transforms are equal to those of torchvision's first version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from spurious_memorization.datasets.transforms import ImageTransform


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize(("width", "height"), [(460, 360), (200, 300), (40, 30)])
def test_evaluation_transform_is_torchvisions(width: int, height: int, keep_aspect: bool) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))
    transform = ImageTransform(image_size=224, resize=256, keep_aspect=keep_aspect)
    (ours,) = transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])
    theirs = v1.Compose(
        [
            v1.Resize(256 if keep_aspect else (256, 256)),
            v1.CenterCrop(224),
            v1.ToTensor(),
            v1.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(image)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_training_transform_is_torchvisions() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    ours = ImageTransform(image_size=32, resize=36).training()
    theirs = v1.Compose(
        [
            v1.RandomResizedCrop(32, scale=(0.7, 1.0), ratio=(0.75, 4 / 3)),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for seed in range(20):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=2e-6)
