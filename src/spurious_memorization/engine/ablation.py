"""Ablation: the measured effect of each unit alone, in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from ..criteria.gradients import taylor
from ..criteria.scores import Scores, top
from ..datasets.samples import Samples, checked_samples
from ..datasets.sources import Batch
from ..datasets.tensors import as_batch, from_tensors
from ..edits.edit import Edit, zero
from ..errors import UserError
from ..lazy_sequences import LazySequence
from ..networks.checked import checked_network
from ..networks.names import LossName, Precision
from ..networks.selection import Selection
from ..networks.units import Units, sites
from ..settings import Execution
from .evaluate import outcome_blocks
from .outcomes import Block

MAX_UNITS = 1_000_000


def ablation(
    model: nn.Module,
    batch: Batch | Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
    screen: int | None = None,
) -> Scores:
    """How far the mean margin of the batch drops when each unit alone is zeroed.

    Arguments:
        model: the network, which stays as it is.
        batch: the samples, usually of one group.
        select: the units to score; every channel but the classifier head's if not given.
        loss: name of the loss of the screening.
        screen: measure only this number of units, the first by `taylor`; the others score minus infinity.

    Returns:
        Scores of every unit.
    """
    model, batch, select = checked_network(model), as_batch(batch), select or Selection()
    samples = (
        batch if isinstance(batch, Samples) else from_tensors(batch.inputs, batch.y, np.zeros(len(batch.y), int)).train
    )
    frame = ablation_map(model, samples, select=select, loss=loss, screen=screen)
    return ablation_scores(model, select, frame)


def ablation_map(
    model: nn.Module,
    samples: Samples,
    *,
    select: Selection | None = None,
    loss: LossName = "cross_entropy",
    screen: int | None = None,
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> pd.DataFrame:
    """What zeroing each unit alone does to each group.

    Arguments:
        model: the network, which stays as it is.
        samples: where it is measured.
        select: the units; every channel but the classifier head's if not given.
        loss: name of the loss of the screening.
        screen: measure only this number of units, the first by `taylor` on the samples.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Returns:
        One row per unit and group that has samples: tensor, index, group, n, correct_before, correct_after,
        margin_before, margin_after (sums), accuracy change (of accuracy), margin_change (of the mean margin).

    Raises:
        UserError: there are too many units, and no screening.

    Example:
        ```python
        effects = sm.ablation_map(model, data.train, select=sm.Selection(tensors=("layer4.*",)))
        effects.sort_values("margin_change").head()
        ```
    """
    model, samples = checked_network(model), checked_samples(samples)
    units = ablated_units(model, samples, select or Selection(), loss=loss, screen=screen)
    total = np.zeros((len(units), len(samples.dataset.groups), len(SUMS)))
    blocks = outcome_blocks(model, SingleEdits(units), samples, loss=loss, precision=precision, execution=execution)
    for before, after in blocks:
        total[after.edits] += sums(before, after, samples)
    return map_frame(units, total, samples)


def ablated_units(
    model: nn.Module,
    samples: Samples,
    select: Selection,
    *,
    loss: LossName = "cross_entropy",
    screen: int | None = None,
) -> Units:
    """The units that are zeroed one by one: all, or the first `screen` by `taylor` on the samples.

    Raises:
        UserError: there are too many, and no screening.
    """
    there = sites(model, select)
    n = sum(site.n for site in there.values())
    if screen is not None and screen < n:
        return top(taylor(model, samples, select=select, loss=loss), screen)
    if n > MAX_UNITS:
        raise UserError(f"an ablation of {n} {select.unit}s would take as many edited networks: give --screen")
    place = np.repeat(np.arange(len(there)), [site.n for site in there.values()])
    index = np.concatenate([np.arange(site.n) for site in there.values()])
    return Units(select.unit, tuple(there), place, index, select.with_bias)


class SingleEdits(LazySequence[Edit]):
    """Zero each unit alone.

    Arguments:
        units: of any kind.
    """

    def __init__(self, units: Units) -> None:
        self._units = units

    def __len__(self) -> int:
        return len(self._units)

    def make(self, position: int) -> Edit:
        of, one = self._units, slice(position, position + 1)
        name = of.names[int(of.place[position])]
        return zero(Units(of.kind, (name,), np.zeros(1, np.int64), of.index[one], of.with_bias))


SUMS = ("n", "correct_before", "correct_after", "margin_before", "margin_after")


def sums(before: Block, after: Block, samples: Samples) -> NDArray[np.float64]:
    """Sums over the samples of each group, [edits, groups, SUMS]; outcomes of other samples don't count."""
    member = np.eye(len(samples.dataset.groups))[samples.at(after.index).g]
    member *= np.isin(after.index, samples.index)[:, None]
    y = samples.dataset.y[after.index]
    parts = (
        np.ones_like(after.margin),
        np.broadcast_to(before.predicted == y, after.predicted.shape),
        after.predicted == y,
        np.broadcast_to(before.margin, after.margin.shape),
        after.margin,
    )
    return np.stack([part.astype(np.float64) @ member for part in parts], axis=-1)


def map_frame(units: Units, total: NDArray[np.float64], samples: Samples) -> pd.DataFrame:
    """The table of `ablation_map` from sums, [units, groups, SUMS]."""
    groups = np.flatnonzero(total[0, :, 0] > 0) if len(total) else np.zeros(0, int)
    names = np.array(samples.dataset.groups.names)[groups]
    columns = dict(zip(SUMS, np.moveaxis(total[:, groups].reshape(-1, len(SUMS)), 1, 0), strict=True))
    tensors = np.array(units.names, dtype=object)[units.place]
    frame = pd.DataFrame(
        {
            "tensor": np.repeat(tensors, len(groups)),
            "index": np.repeat(units.index, len(groups)),
            "group": np.tile(names, len(units)),
            **columns,
        }
    ).astype(dict.fromkeys(SUMS[:3], np.int64))
    frame["accuracy_change"] = (frame["correct_after"] - frame["correct_before"]) / frame["n"]
    frame["margin_change"] = (frame["margin_after"] - frame["margin_before"]) / frame["n"]
    return frame


def ablation_scores(model: nn.Module, select: Selection, frame: pd.DataFrame, group: str | None = None) -> Scores:
    """Scores from the table of `ablation_map`: the drop of the mean margin, of one group or of all samples; minus
    infinity for units that were not measured.

    Raises:
        UserError: the group has no sample there.
    """
    rows = frame if group is None else frame[frame["group"] == group]
    if rows.empty:
        raise UserError(f"group {group!r} was not measured: choose among {', '.join(frame['group'].unique())}")
    per_unit = rows.groupby(["tensor", "index"], sort=False)[["n", "margin_before", "margin_after"]].sum()
    drop = (per_unit["margin_before"] - per_unit["margin_after"]) / per_unit["n"]
    there = sites(model, select)
    values = {name: np.full(site.n, -np.inf, np.float32) for name, site in there.items()}
    for (name, index), value in drop.items():
        values[name][index] = value
    found = {name: torch.from_numpy(values[name]).reshape(site.shape) for name, site in there.items()}
    return Scores(found, select.unit, select.with_bias)
