"""One step of fine-tuning with pruning, compared with the research code's: `python -m benchmarks.training`.

The research code's step is written here from its description. It uses float32, contiguous memory, Adam and batches of
16. It makes three forward passes: dense without gradients, pruned, and dense. Masks multiply the pruned weights, and
each pass updates batch norm's running statistics. The loss is NT-Xent of probabilities.

Our step is the objective `pruned-contrast` with the same settings: two passes, channels last, in bf16 and in float32.
Images are in memory on both sides, so that decoding does not count.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

import spurious_memorization as sm
from spurious_memorization.networks.forward import Precision, autocast, moved
from spurious_memorization.training.masks import parameter_masks
from spurious_memorization.training.objectives.pruned_contrast import PrunedContrastSettings, finetuning_loss

BATCH = 16
SETTINGS = PrunedContrastSettings(
    mask="magnitude-smallest", contrast="probabilities", running_statistics="dense-pruned-dense"
)
Step = Callable[[], None]


def main() -> None:
    for line in rows():
        print(line, flush=True)


def rows(steps: int = 4) -> list[str]:
    """One line per step: its speed, and how many times faster it is than the research code's step."""
    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=2)
    x, y = torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % 2
    masks = parameter_masks(
        model, sm.pruned_units(model, "magnitude-smallest", 0.01, select=sm.Selection(unit="weight"))
    )
    variants: dict[str, Step] = {
        "three passes, float32, contiguous (the research code's)": _reference(copy.deepcopy(model), masks, x, y),
        "pruned-contrast, float32": _ours(copy.deepcopy(model), masks, x, y, "float32"),
        "pruned-contrast, bf16": _ours(copy.deepcopy(model), masks, x, y, "bf16"),
    }
    seconds = _interleaved(variants, steps)
    reference = seconds[next(iter(variants))]
    floors = {"pruned-contrast, bf16": "at least 3x"}
    return [
        f"ResNet-50 fine-tuning step, batch {BATCH}: {name:<56} {BATCH / s:5.1f} images/s, {reference / s:.1f}x "
        f"{floors.get(name, '')}".rstrip()
        for name, s in seconds.items()
    ]


def _interleaved(variants: Mapping[str, Step], steps: int) -> dict[str, float]:
    """Seconds per step: the smallest of several.

    The variants take turns, so that a change of the machine's speed affects them all.
    """
    for step in variants.values():
        step()
    seconds = {name: float("inf") for name in variants}
    for _ in range(steps):
        for name, step in variants.items():
            started = time.perf_counter()
            step()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def _reference(model: nn.Module, masks: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Step:
    model.train()
    optimizer, parameters = Adam(model.parameters(), lr=2e-4), dict(model.named_parameters())

    def contrast(one: Tensor, two: Tensor) -> Tensor:
        views = torch.cat([one, two])
        alike = F.cosine_similarity(views[:, None], views[None], dim=2) / 0.5
        alike = alike.masked_fill(torch.eye(len(views), dtype=torch.bool), -torch.inf)
        return F.cross_entropy(alike, torch.arange(len(views)).roll(len(one)))

    def step() -> None:
        with torch.no_grad():
            fixed = model(x).softmax(1)
        changed = {name: parameters[name] * mask for name, mask in masks.items()}
        pruned = torch.func.functional_call(model, changed, (x,)).softmax(1)
        dense = model(x).softmax(1)
        loss = contrast(fixed, pruned) + contrast(dense, pruned.detach()) + 0.2 * F.cross_entropy(dense, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _ours(model: nn.Module, masks: Mapping[str, Tensor], x: Tensor, y: Tensor, precision: Precision) -> Step:
    model.train().to(memory_format=torch.channels_last)
    optimizer = Adam(model.parameters(), lr=2e-4)
    inputs, device = moved(x, torch.device("cpu")), torch.device("cpu")
    laid_out = {name: torch.empty_like(model.get_parameter(name)).copy_(mask).detach() for name, mask in masks.items()}

    def step() -> None:
        with autocast(device, precision):
            loss = finetuning_loss(model, laid_out, inputs, y, SETTINGS, "cross_entropy_on_probabilities")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
