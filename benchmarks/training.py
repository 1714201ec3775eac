"""Training steps of a ResNet-50, compared with plain ones: `python -m benchmarks.training`.

The research code's fine-tuning step is written here from its description. It uses float32, contiguous memory, Adam and
batches of 16. It makes three forward passes: dense without gradients, pruned, and dense. Masks multiply the pruned
weights, and each pass updates batch norm's running statistics. The loss is NT-Xent of probabilities.

Our step is that of the objective `pruned-contrast`: two passes, channels last, in float32 and in bf16. The step of
`erm` is compared with a plain step of PyTorch. Images are in memory on both sides, so that decoding does not count.

The reference has a process of its own, so that neither side uses the other's memory or threads. Both take turns, so
that a change of the machine's speed affects both. A ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Batch, Inputs
from spurious_memorization.engine.cpu.kernels import reused_memory
from spurious_memorization.networks.dataflow import LAYERS
from spurious_memorization.networks.losses import LOSSES
from spurious_memorization.networks.names import Precision
from spurious_memorization.training.gradient_steps import BatchLoss, GradientSteps
from spurious_memorization.training.masks import Mask, parameter_masks
from spurious_memorization.training.objectives.pruned_contrast import PrunedContrastSettings, finetuning_loss
from spurious_memorization.training.optimizers import build_optimizer, build_schedule

from .rates import matrix_product_rate

BATCH = 16
TURNS = 4
FRACTIONS: dict[Mask, float] = {"magnitude-smallest": 0.01, "gradient": 0.002}
"""Fraction of the units that each mask prunes. With random weights, 1 % of the channels would be all of conv1."""

PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
Step = Callable[[], object]
Masks = Mapping[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", action="store_true", help="take reference steps as standard input names them")
    if parser.parse_args().reference:
        answer_with_reference_steps()
        return
    for line in rows():
        print(line, flush=True)


def rows(turns: int = TURNS) -> Iterator[str]:
    """One line per step: its speed, and how many times faster it is than the reference."""
    model, batch = _network_and_batch()
    masks: dict[str, Masks] = {mask: _masks(model, mask, batch) for mask in FRACTIONS}
    ours = {precision: _our_steps(model, masks, batch, precision) for precision in PRECISIONS}
    with _reference_process() as reference_seconds, reused_memory():
        for kind in ("erm", *FRACTIONS):
            seconds: dict[str, list[float]] = {name: [] for name in ("reference", *PRECISIONS)}
            for turn in range(1 + turns):  # the first one doesn't count
                taken = {"reference": reference_seconds(kind)}
                taken |= {precision: _seconds(ours[precision][kind]) for precision in PRECISIONS}
                for name, value in taken.items():
                    seconds[name].extend([value] if turn else [])
            yield from _lines(kind, seconds, _share_before(model, masks[kind]) if kind in masks else None)


def _lines(kind: str, seconds: Mapping[str, list[float]], untouched: float | None) -> Iterator[str]:
    """The lines of one kind of step: the reference, and ours in both precisions."""
    theirs = "a plain step" if untouched is None else f"{kind}, three passes"
    yield _line(f"{theirs}, float32, contiguous", f"{BATCH / min(seconds['reference']):5.1f} images/s, 1.0x", "")
    for precision in PRECISIONS:
        pairs = zip(seconds["reference"], seconds[precision], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        name = "erm" if untouched is None else f"{kind}, pruned-contrast"
        before = "" if untouched is None else f"; {untouched:.0%} of a pass before the first masked layer"
        measured = f"{BATCH / min(seconds[precision]):5.1f} images/s, {ratio:.1f}x{before}"
        yield _line(f"{name}, {precision}", measured, _floor(precision) if untouched is not None else "")


def _line(name: str, measured: str, floor: str) -> str:
    return f"ResNet-50 step, batch {BATCH}: {name:<60} {measured} {floor}".rstrip()


def _floor(precision: Precision) -> str:
    """The least ratio that fine-tuning should reach in the precision that is faster here."""
    is_quick = matrix_product_rate(torch.bfloat16) > 1.5 * matrix_product_rate(torch.float32)
    if precision != ("bf16" if is_quick else "float32"):
        return ""
    return f"at least {3 if is_quick else 2}x, since bf16 is {'quick' if is_quick else 'slow'} here"


def _network_and_batch() -> tuple[nn.Module, Batch]:
    """The same in each process."""
    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=2)
    return model, Batch(torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % 2, torch.arange(BATCH))


def _masks(model: nn.Module, mask: Mask, batch: Batch) -> Masks:
    unit = sm.Selection(unit="channel" if mask == "gradient" else "weight")
    return parameter_masks(model, sm.pruned_units(model, mask, FRACTIONS[mask], batch, select=unit))


def _share_before(model: nn.Module, masks: Masks) -> float:
    """Share of a pass's multiplications that lie before the first masked layer."""
    counts: list[tuple[bool, float]] = []
    named: dict[nn.Module, str] = {module: name for name, module in model.named_modules() if isinstance(module, LAYERS)}

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        is_masked = any(f"{named[module]}.{name}" in masks for name in ("weight", "bias"))
        counts.append((is_masked, output[0].numel() * weight[0].numel()))

    hooks = [module.register_forward_hook(count) for module in named]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    first = [is_masked for is_masked, _ in counts].index(True)
    return sum(n for _, n in counts[:first]) / sum(n for _, n in counts)


def _our_steps(model: nn.Module, masks: Mapping[str, Masks], batch: Batch, precision: Precision) -> dict[str, Step]:
    """Our steps by their kind, all on one network in this precision."""
    network = timm.create_model("resnet50", num_classes=2)
    network.load_state_dict(model.state_dict())
    network.train().to(memory_format=torch.channels_last)
    config = sm.TrainSettings(optimizer="adam", lr=2e-4, precision=precision, loss="cross_entropy_on_probabilities")
    optimizer = build_optimizer(config, network)
    steps = GradientSteps(
        config=config,
        model=network,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer),
        device=torch.device("cpu"),
        execution=sm.TrainExecution(),
    )

    def erm(inputs: Inputs, y: Tensor, _: Tensor) -> Tensor:
        return LOSSES["cross_entropy"](network(inputs), y).mean()

    def fine_tuning(mask: Mask) -> BatchLoss:
        settings = PrunedContrastSettings(mask=mask, contrast="probabilities", running_statistics="dense-pruned-dense")
        laid_out = {
            name: torch.empty_like(network.get_parameter(name)).copy_(value).detach()
            for name, value in masks[mask].items()
        }
        return lambda inputs, y, _: finetuning_loss(network, laid_out, inputs, y, settings, config.loss)

    losses: dict[str, BatchLoss] = {"erm": erm, **{mask: fine_tuning(mask) for mask in FRACTIONS}}
    return {kind: partial(steps.step, batch, loss) for kind, loss in losses.items()}


def _seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


@contextmanager
def _reference_process() -> Iterator[Callable[[str], float]]:
    """A process of its own that takes a reference step of a kind when asked, and says how many seconds it took."""
    command = [sys.executable, "-m", "benchmarks.training", "--reference"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def seconds(kind: str) -> float:
            print(kind, file=asked, flush=True)
            return float(answers.readline())

        yield seconds
        asked.close()


def answer_with_reference_steps() -> None:
    """For each kind that standard input names, take a step and print its seconds."""
    model, batch = _network_and_batch()
    masks: dict[str, Masks] = {mask: _masks(model, mask, batch) for mask in FRACTIONS}
    steps = reference_steps(model, masks, batch)
    for line in sys.stdin:
        print(_seconds(steps[line.strip()]), flush=True)


def reference_steps(model: nn.Module, masks: Mapping[str, Masks], batch: Batch) -> dict[str, Step]:
    """A plain step, and the research code's step with each mask, all on one network."""
    x, y = batch.inputs, batch.y
    assert isinstance(x, Tensor)
    model.train()
    optimizer, parameters = Adam(model.parameters(), lr=2e-4), dict(model.named_parameters())

    def contrast(one: Tensor, two: Tensor) -> Tensor:
        views = torch.cat([one, two])
        alike = F.cosine_similarity(views[:, None], views[None], dim=2) / 0.5
        alike = alike.masked_fill(torch.eye(len(views), dtype=torch.bool), -torch.inf)
        return F.cross_entropy(alike, torch.arange(len(views)).roll(len(one)))

    def descend(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def fine_tuning(mask: Mask) -> None:
        with torch.no_grad():
            fixed = model(x).softmax(1)
        changed = {name: parameters[name] * value for name, value in masks[mask].items()}
        pruned = torch.func.functional_call(model, changed, (x,)).softmax(1)
        dense = model(x).softmax(1)
        descend(contrast(fixed, pruned) + contrast(dense, pruned.detach()) + 0.2 * F.cross_entropy(dense, y))

    steps: dict[str, Step] = {mask: partial(fine_tuning, mask) for mask in FRACTIONS}
    return {"erm": lambda: descend(F.cross_entropy(model(x), y)), **steps}


if __name__ == "__main__":
    main()
