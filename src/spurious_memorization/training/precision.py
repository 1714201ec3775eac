"""The faster precision of a training, measured on a few of its own steps."""

from __future__ import annotations

import copy
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..console import log
from ..datasets.samples import Samples
from ..datasets.sources import Inputs
from ..engine.cpu.kernels import reused_memory
from ..networks.forward import autocast, logits, moved
from ..networks.names import Precision

MAX_SAMPLES = 16
"""Maximum number of samples per measured step."""

MIN_GAIN = 1.1
"""bf16 rounds more, so it is chosen only if it is this many times faster."""

REPEATS = 3


def faster_precision(model: nn.Module, samples: Samples, device: torch.device) -> Precision:
    """Measure forward and backward passes in float32 and in bf16, and say which one is chosen.

    The first pass of each precision doesn't count. Then they take turns, and the fastest of each counts.

    Arguments:
        model: the network, which stays as it is.
        samples: of a batch; at most `MAX_SAMPLES` are used.
        device: where the training takes place.
    """
    batch = samples.part(range(MAX_SAMPLES)).batch()
    network = copy.deepcopy(model).train().to(device).to(memory_format=torch.channels_last)
    inputs, y = moved(batch.inputs, device), batch.y.to(device)
    seconds: dict[Precision, float] = {"float32": math.inf, "bf16": math.inf}
    with torch.random.fork_rng(), reused_memory():
        for turn in range(1 + REPEATS):
            for precision in seconds:
                taken = _seconds_of_pass(network, inputs, y, precision)
                seconds[precision] = min(seconds[precision], taken if turn else math.inf)
    chosen: Precision = "bf16" if seconds["float32"] > MIN_GAIN * seconds["bf16"] else "float32"
    log(
        f"precision {chosen}: forward and backward passes of {len(y)} samples take {seconds['float32']:.2g} s in "
        f"float32 and {seconds['bf16']:.2g} s in bf16"
    )
    return chosen


def _seconds_of_pass(network: nn.Module, inputs: Inputs, y: Tensor, precision: Precision) -> float:
    """Seconds of a forward and backward pass."""
    device = y.device
    _wait_for(device)
    started = time.perf_counter()
    with autocast(device, precision):
        loss = F.cross_entropy(logits(network, inputs), y)
    network.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    """Wait until an accelerator has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
