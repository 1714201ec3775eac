"""The strongest edit at the selected units and at random units: success of an edit is no proof of its place."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from torch import nn

from ..console import progress
from ..controls.null_sets import NullSets
from ..datasets.samples import Dataset
from ..edits.strongest import strongest_edit
from ..engine.evaluate import evaluate
from ..networks.names import LossName
from ..networks.units import Units
from ..settings import Execution
from .plan import Variant
from .settings import StudySettings


def strongest_edits(
    model: nn.Module,
    data: Dataset,
    selected: Sequence[Variant],
    settings: StudySettings,
    *,
    loss: LossName,
    execution: Execution,
) -> pd.DataFrame:
    """Search the strongest edit of each selected set, and of random sets of its layers, for each minority group.

    All searches for one selected set have the same norm: that of the change that `zero` makes to it. Each edit is
    searched on one half of the group's training samples and measured on the other half. See `strongest_edit` (Wang and
    Veitch 2025).

    Arguments:
        model: the network.
        data: the data set.
        selected: the selected variants. Those whose units were selected on all samples count, each set once.
        settings: of the study; `strongest` is the number of random sets.
        loss: that is raised.
        execution: device, workers, batch size; changes no result.

    Returns:
        One row per selected set, minority group and set of units: selected_set, group, group_name, control (-1 for the
        selected units, otherwise the number of the random set), units and accuracy_change.
    """
    rows = []
    searches = _searches(selected, data)
    for one, group in progress(searches, len(searches), "strongest edits"):
        samples = data.train.of_group(group)
        searched, measured = (samples.of_half(half, settings.seed) for half in (0, 1))
        if not len(searched) or not len(measured):
            continue
        own = strongest_edit(model, one.edit.units, searched, seed=settings.seed, loss=loss)
        norm = float(own.parameters["norm"])
        random = [
            strongest_edit(model, units, searched, norm=norm, seed=settings.seed, loss=loss)
            for units in _random_sets(model, one.edit.units, settings)
        ]
        edits = [own, *random]
        outcomes = evaluate(model, edits, measured, loss=loss, precision=settings.precision, execution=execution)
        right = outcomes.after.predicted == measured.y
        changes = right.mean(1) - (outcomes.before.predicted == measured.y).mean()
        about = {"selected_set": one.selected_set, "group": group, "group_name": data.groups.names[group]}
        rows += [
            {**about, "control": place - 1, "units": str(edit.units), "accuracy_change": float(change)}
            for place, (edit, change) in enumerate(zip(edits, changes, strict=True))
        ]
    return pd.DataFrame(rows, columns=["selected_set", "group", "group_name", "control", "units", "accuracy_change"])


def _searches(selected: Sequence[Variant], data: Dataset) -> list[tuple[Variant, int]]:
    """Each selected set once, with each minority group that has training samples and on which it was selected."""
    once = {variant.selected_set: variant for variant in reversed(selected) if variant.half is None}
    groups = [group for group in data.minority if data.train_counts[group]]
    return [
        (variant, group)
        for _, variant in sorted(once.items())
        for group in groups
        if variant.group in (None, data.groups.names[group])
    ]


def _random_sets(model: nn.Module, units: Units, settings: StudySettings) -> list[Units]:
    null = NullSets(model, [units], reach=settings.controls_from, seed=settings.seed)
    n = settings.strongest if null.n is None else min(null.n, settings.strongest)
    return [null.draw(control)[0] for control in range(n)]
