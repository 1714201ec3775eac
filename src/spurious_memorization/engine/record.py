"""How logits become a block of outcomes, alike for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..datasets.samples import Samples
from ..datasets.sources import Inputs
from ..networks.forward import moved
from ..networks.losses import LOSSES, margin
from ..networks.names import LossName
from .outcomes import Block


def record_block(
    rows: range,
    samples: Samples,
    logits_of: Callable[[Inputs], Iterable[tuple[int, Tensor]]],
    *,
    loss: LossName,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Block:
    """Pass all samples through an engine, batch by batch, and record predicted class, loss and margin.

    Arguments:
        rows: positions of the edits; -1 is the network before any edit.
        samples: where the outcomes are measured.
        logits_of: takes the inputs of a batch, on the device. It gives (position of the edit, logits
            [samples, classes]), once for each position in `rows`, in any order.
        loss: name of the loss to record.
        batch_size: samples per batch.
        workers: processes that read samples; 0 reads in this process.
        device: where the network is.

    Returns:
        One row per position in `rows`, one column per sample.
    """
    shape = (len(rows), len(samples))
    predicted, losses = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
    margins = np.zeros(shape, np.float32)
    start = 0
    for batch in samples.batches(batch_size, workers):
        y = batch.y.to(device)
        columns = slice(start, start + len(y))
        for row, logits in logits_of(moved(batch.inputs, device)):
            at = row - rows.start
            predicted[at, columns] = logits.argmax(1).cpu().numpy()
            losses[at, columns] = LOSSES[loss](logits, y).cpu().numpy()
            margins[at, columns] = margin(logits, y).cpu().numpy()
        start += len(y)
    return Block(edits=np.array(rows), index=samples.index, predicted=predicted, loss=losses, margin=margins)
