"""Edited networks and training steps on a GPU, beside plain PyTorch: `python -m benchmarks --only gpu`.

Images are random numbers in memory, so that decoding does not count. What is compared takes turns, and the median of
the turns counts. The networks have random weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for, passes_needed
from spurious_memorization.networks.forward import autocast, exact_float32, moved, repeatable_gradients, working_copy
from spurious_memorization.networks.names import Precision
from spurious_memorization.training.gradient_steps import GradientSteps
from spurious_memorization.training.objective import Training, build_objective
from spurious_memorization.training.optimizers import build_optimizer, build_schedule

from . import measures

NETWORKS = {"ResNet-50": "resnet50", "DeiT-small": "deit_small_patch16_224"}
IMAGES = 200
EDITS = 60
BATCHES = (16, 128)
TURNS = 3
STEP_IMAGES = 640
"""Images per turn of a training."""

LR = 1e-4

Row = Callable[[str, str], None]
Work = Callable[[], None]


def add_rows(row: Row, device: str = "cuda") -> None:
    """Measure everything, and add a row for each comparison; one row says so where there is no GPU.

    Arguments:
        row: adds a row: what was measured, and the result.
        device: name of the device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        row("on a GPU", "skipped: torch.cuda finds none here")
        return
    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if device == "cuda" else device
    row("GPU", f"{name}, PyTorch {torch.__version__}")
    for label, architecture in NETWORKS.items():
        torch.manual_seed(0)
        model = timm.create_model(architecture, num_classes=2).eval()
        _edited_networks(row, label, model, where)
        for batch_size in BATCHES:
            for precision in ("float32", "bf16"):
                _training_steps(row, f"{label}, batch {batch_size}, {precision}", model, where, batch_size, precision)


def _edited_networks(row: Row, label: str, model: nn.Module, device: torch.device) -> None:
    """The engine on single channels, beside full passes of the same network."""
    samples = _samples(IMAGES)
    edits = measures.uniform_channels(model, EDITS)
    network, inputs = working_copy(model, device), moved(samples.batch().inputs, device)
    modes: dict[str, tuple[Precision, AbstractContextManager[object]]] = {
        "float32": ("float32", exact_float32()),
        "float32 with TF32 (PyTorch's default)": ("float32", nullcontext()),
        "bf16": ("bf16", nullcontext()),
    }
    plain = {
        name: IMAGES / _seconds({name: _passes(network, inputs, precision)}, device, within)[name]
        for name, (precision, within) in modes.items()
    }
    for name, speed in plain.items():
        row(f"{label}: full passes, {name}", f"{speed:.0f} images/s")
    for precision in ("float32", "bf16"):
        engine = engine_for(model, samples, precision=precision, execution=sm.Execution(device=str(device)))
        assert engine.description == "shared prefix"
        saved = 1 - passes_needed(engine, edits, IMAGES) / ((EDITS + 1) * IMAGES)
        run = {precision: lambda engine=engine: engine.run(edits, range(len(edits)), samples)}
        speed = EDITS * IMAGES / _seconds(run, device)[precision]
        row(
            f"{label}: {EDITS} single channels, {precision}",
            f"{speed:.0f} networks x images/s, {speed / plain[precision]:.1f}x full passes; {saved:.0%} saved",
        )


def _training_steps(
    row: Row, label: str, model: nn.Module, device: torch.device, batch_size: int, precision: Precision
) -> None:
    """Gradient steps of two objectives, beside plain PyTorch."""
    samples = _samples(batch_size)
    order = samples.at(np.tile(samples.index, max(1, STEP_IMAGES // batch_size)))
    works: dict[str, Work] = {"plain PyTorch": _plain_training(model, samples, len(order), device, precision)}
    for name, objective in (("erm", "erm"), ("pruned-contrast", "pruned-contrast:mask=magnitude-smallest")):
        works[name] = _our_training(model, order, device, batch_size, precision, objective)
    seconds = _seconds(works, device)
    speeds = {name: len(order) / taken for name, taken in seconds.items()}
    plain = speeds.pop("plain PyTorch")
    row(f"{label}: plain PyTorch", f"{plain:.0f} images/s")
    for name, speed in speeds.items():
        row(f"{label}: {name}", f"{speed:.0f} images/s, {speed / plain:.2f}x")


def _samples(n: int) -> sm.Samples:
    torch.manual_seed(1)
    return sm.from_tensors(torch.randn(n, 3, 224, 224), np.arange(n) % 2, np.arange(n) // 2 % 2).train


def _passes(network: nn.Module, inputs: Tensor, precision: Precision) -> Work:
    def work() -> None:
        with torch.no_grad(), autocast(inputs.device, precision):
            network(inputs)

    return work


def _plain_training(
    model: nn.Module, samples: sm.Samples, n_images: int, device: torch.device, precision: Precision
) -> Work:
    network = _on(model, device)
    optimizer, batch = Adam(network.parameters(), lr=LR), samples.batch()

    def work() -> None:
        for _ in range(n_images // len(batch.y)):
            inputs, y = moved(batch.inputs, device), batch.y.to(device)
            with autocast(device, precision):
                loss = F.cross_entropy(network(inputs), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return work


def _our_training(
    model: nn.Module, order: sm.Samples, device: torch.device, batch_size: int, precision: Precision, objective: str
) -> Work:
    network = _on(model, device)
    config = sm.TrainSettings(
        objective=objective, batch_size=batch_size, augment=False, precision=precision, optimizer="adam", lr=LR
    )
    config = config.model_copy(update={"objective": config.objective.expanded("standard", network)})
    execution = sm.TrainExecution(device=str(device), workers=0)
    data = order.dataset
    training = Training(
        run=sm.Run(Path("unused")), config=config, data=data, measured=data, model=network, execution=execution
    )
    optimizer, trained = build_optimizer(config, network), build_objective(training)
    steps = GradientSteps(
        config=config,
        model=network,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer),
        device=device,
        execution=execution,
    )
    trained.begin()
    trained.begin_epoch(1)

    @repeatable_gradients()
    def work() -> None:
        steps.run(1, order, trained.loss)

    return work


def _on(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in training mode on the device, channels last."""
    network = working_copy(model, device).requires_grad_(True)
    return network.train()


def _seconds(
    works: Mapping[str, Work], device: torch.device, within: AbstractContextManager[object] | None = None
) -> dict[str, float]:
    """Median seconds of each work, which take turns after a first time that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    with within or nullcontext():
        for turn in range(1 + TURNS):
            for name, work in works.items():
                _wait_for(device)
                started = time.perf_counter()
                work()
                _wait_for(device)
                if turn:
                    taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
