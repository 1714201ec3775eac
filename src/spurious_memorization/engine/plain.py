"""The plain engine: every edited network by a full forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ..datasets.samples import Samples
from ..edits.apply import edited_tensors
from ..edits.edit import Edit
from ..networks.forward import autocast, choose_device, logits, moved, working_copy
from ..networks.losses import LOSSES, margin
from ..networks.names import LossName, Precision
from ..settings import Execution
from .outcomes import Block, Engine


def plain_engine(
    model: nn.Module,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
    why: str = "",
) -> Engine:
    """An engine that passes every sample through every edited network, batch by batch; arguments as for `evaluate`,
    and why it is taken."""
    execution = execution or Execution()
    device = choose_device(execution.device)
    network = working_copy(model, device)

    def run(edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        shape = (len(rows), len(samples))
        predicted, losses = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
        margins = np.zeros(shape, np.float32)
        start = 0
        with torch.no_grad(), autocast(device, precision):
            for batch in samples.batches(execution.eval_batch_size, execution.workers or 0):
                inputs, y = moved(batch.inputs, device), batch.y.to(device)
                here = slice(start, start + len(y))
                for position, row in enumerate(rows):
                    changed = edited_tensors(network, edits[row]) if row >= 0 else {}
                    output = logits(network, inputs, changed)
                    predicted[position, here] = output.argmax(1).cpu().numpy()
                    losses[position, here] = LOSSES[loss](output, y).cpu().numpy()
                    margins[position, here] = margin(output, y).cpu().numpy()
                start += len(y)
        return Block(np.array(rows), samples.index, predicted, losses, margins)

    def pass_seconds(samples: Samples, precision: Precision = precision) -> float:
        batch = samples.part(range(min(execution.eval_batch_size, 32))).batch()
        inputs = moved(batch.inputs, device)
        with torch.no_grad(), autocast(device, precision):
            started = time.perf_counter()
            logits(network, inputs).sum().item()  # waits for an accelerator
        return (time.perf_counter() - started) / len(batch.y)

    return Engine(
        run,
        f"plain: {why}" if why else "plain",
        lambda edits: np.ones(len(edits)),
        pass_seconds,
        None if precision == "float32" else lambda samples: pass_seconds(samples, "float32"),
    )
