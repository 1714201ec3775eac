"""How logits become a block of outcomes, alike for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ..datasets.samples import Samples
from ..datasets.sources import Inputs
from ..edits.edit import Edit
from ..errors import UserError
from ..networks.build import MAX_CLASSES
from ..networks.forward import moved
from ..networks.losses import BROKEN_NETWORK, LOSSES, check_classes, finite, margin
from ..networks.names import LossName
from ..networks.units import short_name
from .outcomes import Block

UNITS_NAMED = 3


def record_block(
    edits: Sequence[Edit],
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
        edits: all edits.
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

    Raises:
        UserError: a logit is NaN or infinite, before or after an edit, or there are too many classes.
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
            _check(logits, batch.index, samples, edits[row] if row >= 0 else None)
            predicted[at, columns] = logits.argmax(1).cpu().numpy()
            losses[at, columns] = LOSSES[loss](logits, y).cpu().numpy()
            margins[at, columns] = margin(logits, y).cpu().numpy()
        start += len(y)
    return Block(edits=np.array(rows), index=samples.index, predicted=predicted, loss=losses, margin=margins)


def _check(logits: Tensor, index: Tensor, samples: Samples, edit: Edit | None) -> None:
    if logits.shape[1] > MAX_CLASSES:
        raise UserError(f"the network has {logits.shape[1]} outputs: edited networks may have at most {MAX_CLASSES}")
    check_classes(logits, samples.dataset)
    network, remedy = "the network", BROKEN_NETWORK
    if edit is not None:
        named = ",".join(f"{short_name(name)}:{number}" for name, number in islice(edit.units, UNITS_NAMED))
        more = ",..." if len(edit.units) > UNITS_NAMED else ""
        network, remedy = f"the network with the edit {edit} of {named}{more}", "choose a smaller edit, or other units"
    finite(logits, index, network, source=samples.dataset.source, remedy=remedy)
