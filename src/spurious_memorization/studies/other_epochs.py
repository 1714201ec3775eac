"""The same edits in the networks of other epochs: did training make these units matter?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..edits.edit import EditSpec
from ..engine.evaluate import engine_for
from ..networks.names import LossName
from ..settings import Execution
from ..statistics.counts import COUNTS, count
from ..statistics.effects import compare_with_controls
from .block_workers import block_workers
from .blocks import Part, measured_blocks
from .network import StudiedNetwork
from .plan import Variant
from .settings import StudySettings
from .store import Store
from .time_to_go import TimeToGo


def effects_at_other_epochs(
    networks: Iterable[StudiedNetwork],
    variants: Sequence[Variant],
    settings: StudySettings,
    *,
    loss: LossName,
    store: Store,
    execution: Execution,
) -> pd.DataFrame:
    """What the edits that were selected in one epoch's network do to the networks of other epochs.

    Epoch 0 is the network before training: untrained, or as it was downloaded.

    Arguments:
        networks: of the other epochs.
        variants: of the study.
        settings: of the study.
        loss: which is recorded.
        store: where outcomes are kept.
        execution: device, workers, batch size; changes no result.

    Returns:
        One row per selected set, epoch, split and group, with the columns of `compare_with_controls` up to the margin
        change.

    Raises:
        UserError: the run lacks the checkpoint to which a `rewind` goes back from one of the epochs.
    """
    chosen = [(number, v) for number, v in enumerate(variants) if v.family == "selected" and v.half is None]
    numbers = np.array([number for number, _ in chosen])
    sets = {number: v.selected_set for number, v in chosen}
    frames, time_to_go = [], TimeToGo()
    for network in networks:
        tensors = {
            str(v.edit): network.tensors_of(EditSpec(v.edit.kind, v.edit.parameters), settings.unit) for _, v in chosen
        }
        edits = [replace(v.edit, tensors=tensors[str(v.edit)]) for _, v in chosen]
        for split in settings.split:
            samples = network.data.samples(split)
            engine = engine_for(network.model, samples, loss=loss, precision=settings.precision, execution=execution)
            part = Part(f"epoch {network.epoch}, {split}, edited networks", edits, samples, numbers)
            with block_workers(engine, network.model, samples, loss=loss, execution=execution) as workers:
                name = f"outcomes/{split}_epoch_{network.epoch:03d}"
                blocks = measured_blocks(store, name, workers, part, time_to_go)
                counts = [count(before, after, samples.at(before.index)) for before, after in blocks]
            counted = pd.concat(counts).groupby(["edit", "group"], as_index=False)[list(COUNTS)].sum()
            counted["selected_set"] = counted["edit"].map(sets)
            for number, rows in counted.groupby("selected_set"):
                table = compare_with_controls(rows, pd.DataFrame())
                table = table[[name for name in table if not name.startswith(("control", "n_"))]]
                frames.append(table.assign(selected_set=number, epoch=network.epoch, split=split))
            names = network.data.groups.names
    result = pd.concat(frames, ignore_index=True)
    result["group_name"] = [names[g] for g in result["group"]]
    return result
