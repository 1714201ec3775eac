"""The plain engine: every edited network by a full forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from ..console import progress
from ..data.samples import Samples
from ..edits.apply import edited_tensors
from ..edits.edit import Edit
from ..losses import LOSSES, LossName, margin
from ..networks.forward import Precision, autocast, choose_device, logits, moved, working_copy
from ..settings import Execution
from .outcomes import Block, Outcomes, assemble, block_plan

Engine = Callable[[Sequence[Edit], range, Samples], Block]
"""Runs one block: all the edits of a study, the range of those to run now (-1: no edit), and the samples."""


def evaluate(
    model: nn.Module,
    edits: Sequence[Edit],
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Outcomes:
    """What every edited network answers on every sample, and the network before any edit.

    Arguments:
        model: the network, which stays as it is.
        edits: the changes, each applied alone.
        samples: where they are measured.
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Raises:
        UserError: a picture is missing or broken, an edit doesn't fit the network.

    Example:
        ```python
        result = sm.evaluate(model, [sm.zero(units)], data.train)
        result.after.predicted  # [edits, samples]
        ```
    """
    run = plain_engine(model, loss=loss, precision=precision, execution=execution)
    plan = list(block_plan(len(edits), len(samples)))
    blocks = [run(edits, rows, samples.part(columns)) for rows, columns in progress(plan, len(plan), "edited networks")]
    return assemble(edits, blocks)


def plain_engine(
    model: nn.Module,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Engine:
    """An engine that passes every sample through every edited network, batch by batch; arguments as for `evaluate`."""
    execution = execution or Execution()
    device = choose_device(execution.device)
    network = working_copy(model, device)

    def run(edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        shape = (len(rows), len(samples))
        predicted, losses = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
        margins = np.zeros(shape, np.float32)
        start = 0
        with torch.no_grad(), autocast(device, precision):
            for batch in samples.batches(execution.eval_batch_size, execution.workers):
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

    return run
