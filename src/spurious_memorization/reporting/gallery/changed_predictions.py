"""The gallery of each selected set: images whose prediction changes with the edit, and top-activating images.

Each selected set is shown with one of its matched controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...datasets.pseudo_minority import with_pseudo_minority
from ...datasets.samples import Dataset
from ...datasets.sources import Images
from ...errors import UserError
from ...runs.run import Run
from ...settings import Execution
from ...studies.study import Study
from ..inputs import FinishedStudy, ReportInputs
from .top_activating import stored_top_activating


@dataclass(frozen=True, kw_only=True, eq=False)
class ChangedPredictions:
    """The predictions that an edit changes.

    Arguments:
        units: the edited units.
        sample, before, after: every sample whose prediction changes, and both predictions. Minority groups come first,
            then samples that become wrong, then the others.
        measured: number of measured samples of each group.
    """

    units: tuple[str, ...]
    sample: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    measured: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class GalleryItem:
    """A selected set and one of its matched controls.

    Arguments:
        place: the columns by which a reader chooses it: run, study, edit, criterion, size.
        unit: kind of the units.
        split: of the samples.
        data: the data set of the samples, with the study's groups.
        selected: predictions that the set changes, on all samples.
        control: the same of the control that was drawn first, so that nobody picked it; None without controls.
        n_changed_on_control_samples: predictions that the set changes on the control's samples.
        top_activating: for each channel of both, samples and activations, the largest activation first.
        n_searched: training images that were searched for them.
    """

    place: Mapping[str, str]
    unit: str
    split: str
    data: Dataset
    selected: ChangedPredictions
    control: ChangedPredictions | None
    n_changed_on_control_samples: int
    top_activating: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    n_searched: int = 0

    @property
    def n_minority(self) -> int:
        """Changed predictions of minority samples."""
        return int(np.isin(self.data.g[self.selected.sample], self.data.minority).sum())


def images_of(run: Run, folder: Path | None) -> Dataset:
    """The images of a run.

    Raises:
        UserError: the data are gone, have changed, or are not images.
    """
    data = run.read_data(folder)
    if not isinstance(data.source, Images):
        raise UserError("the data are not images")
    return data


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Images of all studies.

    Arguments:
        items: of each study with images; those that change the most minority predictions come first.
        reasons: for each run without images, the reason.
    """

    items: tuple[GalleryItem, ...]
    reasons: Mapping[str, str]


def make_gallery(inputs: ReportInputs, data_folder: Path | None = None, execution: Execution | None = None) -> Gallery:
    """The images of every study, and for each run without images the reason.

    Arguments:
        inputs: runs and studies.
        data_folder: where the runs' data are now, if they were moved.
        execution: of the pass over the training images.
    """
    found: list[GalleryItem] = []
    reasons: dict[str, str] = {}
    opened: dict[str, Dataset] = {}
    for run in inputs.runs:
        try:
            record = run.record.data.model_dump_json()
            if record not in opened:
                opened[record] = images_of(run, data_folder)
            data = opened[record]
            for study in inputs.studies:
                if study.run is run:
                    found += gallery_items(study, data, execution)
        except UserError as error:
            reasons[str(run.path)] = str(error)
    return Gallery(items=tuple(found), reasons=reasons)


def gallery_items(finished: FinishedStudy, data: Dataset, execution: Execution | None = None) -> list[GalleryItem]:
    """Every selected set of a study whose units are listed, those that change the most minority predictions first.

    Arguments:
        finished: the study and its run.
        data: the run's data, with images.
        execution: of the pass over the training images.
    """
    study = finished.study
    pseudo = study.record["settings"]["pseudo_minority"]
    data = data if pseudo is None else with_pseudo_minority(data, pseudo)
    effects, variants = finished.effects(), study.variants()
    split = "train" if (effects["split"] == "train").any() else str(effects["split"].iloc[0])
    selected = variants[(variants["family"] == "selected") & (variants["fold"] == -1) & (variants["repeat"] == 0)]
    selected = selected[selected["units"].notna()]
    controls = {row.variant: _control(row, variants) for row in selected.itertuples()}
    wanted = [-1, *selected["variant"], *(number for number in controls.values() if number is not None)]
    predictions = _predictions(study, split, wanted)
    units_of = variants.set_index("variant")["units"]
    about = effects.drop_duplicates("selected_set").set_index("selected_set")
    found_images = _top_activating(finished, data, selected, controls, units_of, execution)
    found = []
    for row in selected.itertuples():
        first, control = about.loc[row.selected_set], controls[row.variant]
        changed = _changed(data, predictions, row.variant, row.units)
        of_control, control_samples = None, set()
        if control is not None and control in predictions:
            of_control = _changed(data, predictions, control, units_of[control])
            control_samples = set(predictions[control].index)
        channels = [*changed.units, *(of_control.units if of_control else ())]
        found.append(
            GalleryItem(
                place={**finished.place, "edit": first["edit"], "criterion": first["criterion"], "size": row.size},
                unit=row.unit,
                split=split,
                data=data,
                selected=changed,
                control=of_control,
                n_changed_on_control_samples=len(set(changed.sample.tolist()) & control_samples),
                top_activating={unit: found_images[unit] for unit in channels if unit in found_images},
                n_searched=found_images.n_searched,
            )
        )
    return sorted(found, key=lambda item: -item.n_minority)


class _TopActivating(dict[str, list[tuple[int, float]]]):
    """Samples and activations of each channel."""

    n_searched = 0


def _top_activating(
    finished: FinishedStudy,
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
    frame = stored_top_activating(finished.run, finished.study, data, units, execution)
    activating.n_searched = int(frame["n_seen"].max())
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


def _predictions(study: Study, split: str, variants: Sequence[int]) -> dict[int, pd.Series]:
    """Predicted class of each sample, for some variants."""
    folder = study.path / "outcomes"
    files = [*folder.glob(f"{split}_selected*.parquet"), *folder.glob(f"{split}_random*.parquet")]
    columns = ["variant", "sample", "predicted"]
    wanted = [("variant", "in", list(variants))]
    frame = pd.concat([pd.read_parquet(file, columns=columns, filters=wanted) for file in sorted(files)])
    frame = frame.drop_duplicates(["variant", "sample"])
    return {int(number): rows.set_index("sample")["predicted"] for number, rows in frame.groupby("variant")}


def _changed(
    data: Dataset, predictions: Mapping[int, pd.Series], variant: int, units: str
) -> ChangedPredictions:
    after = predictions[variant].sort_index()
    before = predictions[-1].reindex(after.index)
    index = after.index[before != after].to_numpy(np.int64)
    old, new = before[index].to_numpy(np.int64), after[index].to_numpy(np.int64)
    order = np.lexsort((index, new == data.y[index], ~np.isin(data.g[index], data.minority)))
    counts = np.bincount(data.g[after.index.to_numpy(np.int64)], minlength=len(data.groups))
    measured = {name: int(n) for name, n in zip(data.groups.names, counts, strict=True) if n}
    return ChangedPredictions(
        units=tuple(units.split(",")), sample=index[order], before=old[order], after=new[order], measured=measured
    )
