"""The same edits in other epochs of the same run: did training make these units matter?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset
from ..edits.edit import EditSpec
from ..engine.evaluate import engine_for
from ..networks.forward import choose_device
from ..networks.losses import LossName
from ..runs.edited import tensors_for
from ..runs.run import Run
from ..settings import Execution
from ..statistics.counts import COUNTS, count
from ..statistics.effects import beside_controls
from .blocks import Part, measured_blocks
from .plan import Variant
from .settings import StudySettings


def at_other_epochs(
    run: Run,
    data: Dataset,
    variants: Sequence[Variant],
    settings: StudySettings,
    loss: LossName,
    folder: Path,
    execution: Execution,
) -> pd.DataFrame:
    """What the edits that were selected in one epoch's network do to those of other epochs.

    Epoch 0 is the network before training: untrained, or as it was downloaded.

    Arguments:
        variants: of the study.
        settings: `other_epochs` names the epochs, `split` the samples.
        loss: to record.
        folder: where outcomes are stored.

    Returns:
        One row a selected set, epoch, split and group: the columns of `beside_controls` up to the margin change.

    Raises:
        UserError: the run has no checkpoint of an epoch, or of the one that a `rewind` goes back to from there.
    """
    chosen = [(number, v) for number, v in enumerate(variants) if v.family == "selected" and v.half is None]
    numbers = np.array([number for number, _ in chosen])
    sets = {number: v.selected_set for number, v in chosen}
    frames = []
    for epoch in dict.fromkeys(run.choose_epoch(wanted) for wanted in settings.other_epochs):
        model = run.network(epoch).to(choose_device(execution.device))
        tensors = {
            str(v.edit): tensors_for(run, model, data, EditSpec(v.edit.kind, v.edit.parameters), epoch, settings.unit)
            for _, v in chosen
        }
        edits = [replace(v.edit, tensors=tensors[str(v.edit)]) for _, v in chosen]
        for split in settings.split:
            samples = data.samples(split)
            engine = engine_for(model, samples, loss=loss, precision=settings.precision, execution=execution)
            part = Part(f"epoch {epoch}, {split}, edited networks", edits, samples, numbers)
            name = f"{split}_epoch_{epoch:03d}"
            parts = [
                count(before, after, samples.at(before.index))
                for before, after in measured_blocks(folder, name, engine, part)
            ]
            counted = pd.concat(parts).groupby(["edit", "group"], as_index=False)[list(COUNTS)].sum()
            counted["selected_set"] = counted["edit"].map(sets)
            for number, rows in counted.groupby("selected_set"):
                table = beside_controls(rows, pd.DataFrame())
                table = table[[name for name in table if not name.startswith(("control", "n_"))]]
                frames.append(table.assign(selected_set=number, epoch=epoch, split=split))
    result = pd.concat(frames, ignore_index=True)
    result["group_name"] = [data.groups.names[g] for g in result["group"]]
    return result
