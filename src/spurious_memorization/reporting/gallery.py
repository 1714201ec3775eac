"""The gallery: for every selected set, the images whose answer changes with the edit and those that excite its
channels most, beside one of its matched controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.pseudo_minority import with_pseudo_minority
from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..errors import UserError
from ..runs.run import Run
from ..settings import Execution
from ..studies.study import Study
from .subjects import Studied, Subjects
from .top_activating import stored_top_activating


@dataclass(frozen=True, eq=False)
class Changed:
    """What an edit does to the answers.

    Arguments:
        units: that are edited.
        sample, before, after: every sample whose answer changes, and both answers; minority groups first, then those
            that become wrong, in the order of the samples.
        measured: number of samples measured, for each group.
    """

    units: tuple[str, ...]
    sample: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    measured: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """A selected set beside one of its matched controls.

    Arguments:
        place: the columns by which a reader chooses it: run, study, edit, criterion, size.
        unit: kind of the units.
        split: of the samples.
        data: where the samples are from, with the study's groups.
        selected: on all samples.
        control: the first one that was drawn, so that nobody picked it; None without controls.
        selected_beside: number of changed answers of the set on the control's samples.
        top-activating: of each channel of both, samples and excitations, the most top-activating first.
        n_seen: training images that were looked at for that.
    """

    place: Mapping[str, str]
    unit: str
    split: str
    data: Dataset
    selected: Changed
    control: Changed | None
    selected_beside: int
    top_activating: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    n_seen: int = 0

    @property
    def n_minority(self) -> int:
        """Changed answers of minority samples."""
        return int(np.isin(self.data.g[self.selected.sample], self.data.minority).sum())


def images_of(run: Run, folder: Path | None) -> Dataset:
    """The data of a run, which must be images that are there.

    Raises:
        UserError: they are gone, others, or no images.
    """
    data = run.read_data(folder)
    if not isinstance(data.source, Images):
        raise UserError("the data are no images")
    return data


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images of all studies.

    Arguments:
        gallery items: of each study whose images are there, those that change most minority answers first.
        reasons: for each other run, why there are none.
    """

    items: tuple[GalleryItem, ...]
    reasons: Mapping[str, str]


def gallery(about: Subjects, data_folder: Path | None = None, execution: Execution | None = None) -> Gallery:
    """The images of every study, and why others have none."""
    found: list[GalleryItem] = []
    reasons: dict[str, str] = {}
    opened: dict[str, Dataset] = {}
    for run in about.runs:
        try:
            record = run.record.data.model_dump_json()
            if record not in opened:
                opened[record] = images_of(run, data_folder)
            data = opened[record]
            for studied in about.studies:
                if studied.run is run:
                    found += items(studied, data, execution)
        except UserError as error:
            reasons[str(run.path)] = str(error)
    return Gallery(tuple(found), reasons)


def items(studied: Studied, data: Dataset, execution: Execution | None = None) -> list[GalleryItem]:
    """Every selected set of a study whose units are listed; those that change most answers of the minority first.

    Arguments:
        studied: the study and its run.
        data: the run's data, with images.
        execution: of the pass over the training images.
    """
    study = studied.study
    pseudo = study.record["settings"]["pseudo_minority"]
    data = data if pseudo is None else with_pseudo_minority(data, pseudo)
    effects, variants = studied.effects(), study.variants()
    split = "train" if (effects["split"] == "train").any() else str(effects["split"].iloc[0])
    selected = variants[(variants["family"] == "selected") & (variants["fold"] == -1) & (variants["repeat"] == 0)]
    selected = selected[selected["units"].notna()]
    controls = {row.variant: _control(row, variants) for row in selected.itertuples()}
    wanted = [-1, *selected["variant"], *(number for number in controls.values() if number is not None)]
    answers = _answers(study, split, wanted)
    units_of = variants.set_index("variant")["units"]
    about = effects.drop_duplicates("selected_set").set_index("selected_set")
    looked_up = _top_activating(studied, data, selected, controls, units_of, execution)
    found = []
    for row in selected.itertuples():
        first, control = about.loc[row.selected_set], controls[row.variant]
        changed = _changed(data, answers, row.variant, row.units)
        beside, there = None, set()
        if control is not None and control in answers:
            beside = _changed(data, answers, control, units_of[control])
            there = set(answers[control].index)
        channels = [*changed.units, *(beside.units if beside else ())]
        found.append(
            GalleryItem(
                {**studied.place, "edit": first["edit"], "criterion": first["criterion"], "size": row.size},
                row.unit,
                split,
                data,
                changed,
                beside,
                len(set(changed.sample.tolist()) & there),
                {unit: looked_up[unit] for unit in channels if unit in looked_up},
                looked_up.n_seen,
            )
        )
    return sorted(found, key=lambda item: -item.n_minority)


class _TopActivating(dict[str, list[tuple[int, float]]]):
    """Samples and excitations of each channel."""

    n_seen = 0


def _top_activating(
    studied: Studied,
    data: Dataset,
    selected: pd.DataFrame,
    controls: Mapping[int, int | None],
    units_of: pd.Series,
    execution: Execution | None,
) -> _TopActivating:
    rows = [*selected["variant"], *(number for number in controls.values() if number is not None)]
    units = list(
        dict.fromkeys(unit for row in rows if isinstance(units_of[row], str) for unit in units_of[row].split(","))
    )
    activating = _TopActivating()
    if not units or (selected["unit"] != "channel").any():
        return activating
    frame = stored_top_activating(studied.run, studied.study, data, units, execution)
    activating.n_seen = int(frame["n_seen"].max())
    for unit, here in frame.groupby("unit", sort=False):
        activating[str(unit)] = list(zip(here["sample"].tolist(), here["activation"].tolist(), strict=True))
    return activating


def _control(row: Any, variants: pd.DataFrame) -> int | None:
    """The first control that was drawn for a selected set."""
    tested = variants[(variants["selected_set"] == row.selected_set) & (variants["pool"] >= 0)]
    if tested.empty:
        return None
    drawn = variants[
        (variants["family"] == "random")
        & (variants["pool"] == tested["pool"].iloc[0])
        & (variants["size"] == row.size)
        & (variants["kind"] == row.kind)
        & (variants["parameters"] == row.parameters)
        & (variants["control"] == 0)
        & (variants["repeat"] == 0)
    ]
    return None if drawn.empty else int(drawn["variant"].iloc[0])


def _answers(study: Study, split: str, variants: Sequence[int]) -> dict[int, pd.Series]:
    """Predicted class of each sample, for some variants."""
    folder = study.path / "outcomes"
    files = [*folder.glob(f"{split}_selected*.parquet"), *folder.glob(f"{split}_random*.parquet")]
    columns = ["variant", "sample", "predicted"]
    wanted = [("variant", "in", list(variants))]
    frame = pd.concat([pd.read_parquet(file, columns=columns, filters=wanted) for file in sorted(files)])
    frame = frame.drop_duplicates(["variant", "sample"])
    return {int(number): rows.set_index("sample")["predicted"] for number, rows in frame.groupby("variant")}


def _changed(data: Dataset, answers: Mapping[int, pd.Series], variant: int, units: str) -> Changed:
    after = answers[variant].sort_index()
    before = answers[-1].reindex(after.index)
    index = after.index[before != after].to_numpy(np.int64)
    old, new = before[index].to_numpy(np.int64), after[index].to_numpy(np.int64)
    order = np.lexsort((index, new == data.y[index], ~np.isin(data.g[index], data.minority)))
    counts = np.bincount(data.g[after.index.to_numpy(np.int64)], minlength=len(data.groups))
    measured = {name: int(n) for name, n in zip(data.groups.names, counts, strict=True) if n}
    return Changed(tuple(units.split(",")), index[order], old[order], new[order], measured)
