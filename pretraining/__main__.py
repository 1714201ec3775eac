"""Train `birds_resnet18` on kinds of birds, and store its weights in half precision."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from spurious_memorization.datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from spurious_memorization.networks import birds_resnet18

from .species import draw_species

IMAGE_SIZE = 64
BATCH = 128
LR, WEIGHT_DECAY = 3e-3, 0.05
SHIFT = 4
"""Images are shifted by at most so many pixels in training."""
HELD_OUT = 0.05
"""Share of the images that are not trained on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, default=birds_resnet18.WEIGHTS, help="the file")
    parser.add_argument("--images", type=int, default=20_000, help="images of birds")
    parser.add_argument("--species", type=int, default=40, help="kinds of birds")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the images")
    parser.add_argument("--seed", type=int, default=0, help="seed of species, images and training")
    given = parser.parse_args()

    images, species, place = draw_species(range(given.images), given.species, IMAGE_SIZE, given.seed)
    y = torch.from_numpy(2 * species + place)
    n = round(given.images * (1 - HELD_OUT))
    model = _trained(images[:n], y[:n], 2 * given.species, given.epochs, given.seed)
    right = predicted(model, images[n:])
    of_species, of_place = ((right // 2 == y[n:] // 2), (right % 2 == y[n:] % 2))
    print(
        f"{given.images - n} images that were not trained on: species {of_species.float().mean():.1%}, "
        f"place {of_place.float().mean():.1%} right"
    )
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in half.items()}, given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB")


def _trained(images: NDArray[np.uint8], y: Tensor, n_classes: int, epochs: int, seed: int) -> nn.Module:
    """Train from random weights. A class is a species on a place, so that the network learns to see both."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    model = birds_resnet18.birds_resnet18(num_classes=n_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for some in torch.randperm(len(images), generator=draws).split(BATCH):
            loss = F.cross_entropy(model(_augmented(_inputs(images[some.numpy()]), draws)), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(some)
        schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.3f}", flush=True)
    return model.eval()


def predicted(model: nn.Module, images: NDArray[np.uint8]) -> Tensor:
    """The most likely class of each image, [images]."""
    with torch.no_grad():
        parts = np.array_split(images, max(1, len(images) // 500))
        return torch.cat([model(_inputs(part)).argmax(1) for part in parts])


def _inputs(images: NDArray[np.uint8]) -> Tensor:
    """Pixels as the network's inputs: [images, 3, side, side]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    return inputs.contiguous(memory_format=torch.channels_last)


def _augmented(inputs: Tensor, draws: torch.Generator) -> Tensor:
    """Half of the images mirrored, all of them shifted."""
    mirrored = torch.rand(len(inputs), 1, 1, 1, generator=draws) < 0.5
    padded = F.pad(torch.where(mirrored, inputs.flip(-1), inputs), (SHIFT,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * SHIFT + 1, (2,), generator=draws).tolist()
    side = inputs.shape[-1]
    return padded[:, :, down : down + side, right : right + side]


if __name__ == "__main__":
    main()
