"""The gallery of each selected set: images whose prediction changes with the edit, and top-activating images.

Each selected set is shown with one of its null sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...datasets.pseudo_minority import with_pseudo_minority
from ...datasets.samples import Dataset
from ...datasets.sources import Images
from ...datasets.texts import Texts
from ...errors import UserError
from ...runs.run import Run
from ...settings import Execution
from ...statistics.effects import tested_split
from ...stored_files import StoredFileError
from ...studies.network import network_of_run
from ...studies.selected_sets import SelectedSet
from ...studies.study import Study
from ..inputs import FinishedStudy, ReportInputs
from .group_images import GroupGallery, group_galleries
from .most_memorized import MemorizedImage, most_memorized_images
from .top_activating import stored_top_activating
from .word_changes import WordChange, edit_of, word_changes

TEXTS_OF_EACH_GROUP = 6
"""Changed texts of each group whose words are marked."""


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
    """A selected set and one of its null sets.

    Arguments:
        place: the columns by which a reader chooses it: run, study, edit, criterion, size.
        unit: kind of the units.
        split: of the samples.
        data: the data set of the samples, with the study's groups.
        selected: predictions that the set changes, on all samples.
        control: the same of the null set that was drawn first, so that nobody picked it; None without null sets.
        n_changed_on_control_samples: predictions that the set changes on the null set's samples.
        words: of the texts that are shown first for the selected set, those on which the edit acts most.
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
    words: Mapping[int, tuple[WordChange, ...]] = field(default_factory=dict)
    top_activating: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    n_searched: int = 0

    @property
    def n_minority(self) -> int:
        """Changed predictions of minority samples."""
        return int(np.isin(self.data.g[self.selected.sample], self.data.minority).sum())


def images_of(run: Run, folder: Path | None) -> Dataset:
    """The images or texts of a run.

    Raises:
        UserError: the data are gone, have changed, or are neither images nor texts.
    """
    data = run.read_data(folder)
    if not isinstance(data.source, Images | Texts):
        raise UserError("the data are neither images nor texts")
    return data


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Images of all studies.

    Arguments:
        groups: what the groups look like, for runs with images.
        items: of each study with images; those that change the most minority predictions come first.
        memorized: the training images with the highest memorization scores, with the data set that has them.
        reasons: for each run without images, the reason.
    """

    groups: tuple[GroupGallery, ...]
    items: tuple[GalleryItem, ...]
    memorized: tuple[tuple[MemorizedImage, Dataset], ...]
    reasons: Mapping[str, str]


def make_gallery(inputs: ReportInputs, data_folder: Path | None = None, execution: Execution | None = None) -> Gallery:
    """The images of every group and of every study, and for each run without images the reason.

    Arguments:
        inputs: runs and studies.
        data_folder: where the runs' data are now, if they were moved.
        execution: of the pass over the training images.
    """
    found: list[GalleryItem] = []
    reasons: dict[str, str] = {}
    opened: dict[str, Dataset] = {}
    with_images: list[tuple[Run, Dataset]] = []
    for run in inputs.runs:
        try:
            record = run.record.data.model_dump_json()
            if record not in opened:
                opened[record] = images_of(run, data_folder)
            data = opened[record]
            for study in inputs.studies:
                if study.run is run:
                    found += gallery_items(study, data, execution)
            with_images.append((run, data))
        except StoredFileError:
            raise
        except UserError as error:
            reasons[run.place] = str(error)
    memorized: tuple[tuple[MemorizedImage, Dataset], ...] = ()
    if inputs.memorization is not None and opened:
        data = next(iter(opened.values()))
        memorized = tuple((image, data) for image in most_memorized_images(inputs.memorization, data))
    return Gallery(groups=group_galleries(with_images), items=tuple(found), memorized=memorized, reasons=reasons)


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
    effects, units_of = finished.effects(), study.variants().set_index("variant")["units"]
    split = tested_split(effects)
    listed = [one for one in study.selected_sets() if isinstance(one.about["units"], str)]
    controls = {one.number: one.null_sets.first_variant for one in listed}
    variants = [*(int(one.about["variant"]) for one in listed), *filter(None, controls.values())]
    predictions = _predictions(study, data, split, variants)
    about = effects.drop_duplicates("selected_set").set_index("selected_set")
    images = _top_activating(finished, data, listed, [units_of[variant] for variant in variants], execution)
    found = []
    for one in listed:
        row, first, control = one.about, about.loc[one.number], controls[one.number]
        changed = _changed(data, predictions, int(row["variant"]), row["units"])
        of_control, control_samples = None, set()
        if control is not None and control in predictions:
            of_control = _changed(data, predictions, control, units_of[control])
            control_samples = set(predictions[control].index)
        channels = [*changed.units, *(of_control.units if of_control else ())]
        found.append(
            GalleryItem(
                place={**finished.place, "edit": first["edit"], "criterion": first["criterion"], "size": row["size"]},
                unit=row["unit"],
                split=split,
                data=data,
                selected=changed,
                control=of_control,
                n_changed_on_control_samples=len(set(changed.sample.tolist()) & control_samples),
                words=_words(finished, data, row, changed, execution) if isinstance(data.source, Texts) else {},
                top_activating={unit: images[unit] for unit in channels if unit in images},
                n_searched=images.n_searched,
            )
        )
    return sorted(found, key=lambda item: -item.n_minority)


def _words(
    finished: FinishedStudy, data: Dataset, variant: pd.Series, changed: ChangedPredictions, execution: Execution | None
) -> Mapping[int, tuple[WordChange, ...]]:
    """The words on which the edit acts, in the texts that are shown first."""
    samples = changed.sample[first_of_each_group(changed, data, TEXTS_OF_EACH_GROUP)].tolist()
    if not samples:
        return {}
    studied = network_of_run(finished.run, data, finished.study.record["epoch"], execution=execution)
    return word_changes(studied, edit_of(studied, variant), samples, execution)


def first_of_each_group(changed: ChangedPredictions, data: Dataset, n: int) -> NDArray[np.int64]:
    """Positions of the first `n` changed samples of each group."""
    groups = pd.Series(data.g[changed.sample])
    return np.flatnonzero((groups.groupby(groups).cumcount() < n).to_numpy())


class _TopActivating(dict[str, list[tuple[int, float]]]):
    """Samples and activations of each channel."""

    n_searched = 0


def _top_activating(
    finished: FinishedStudy,
    data: Dataset,
    listed: Sequence[SelectedSet],
    unit_lists: Sequence[object],
    execution: Execution | None,
) -> _TopActivating:
    """Top-activating images of every channel in the lists; of none if other units than channels were selected."""
    units = list(dict.fromkeys(unit for text in unit_lists if isinstance(text, str) for unit in text.split(",")))
    images = _TopActivating()
    if not units or any(one.about["unit"] != "channel" for one in listed):
        return images
    frame = stored_top_activating(finished.run, finished.study, data, units, execution)
    images.n_searched = int(frame["n_searched"].max()) if len(frame) else 0
    for unit, here in frame.groupby("unit", sort=False):
        images[str(unit)] = list(zip(here["sample"].tolist(), here["activation"].tolist(), strict=True))
    return images


def _predictions(study: Study, data: Dataset, split: str, variants: Sequence[int]) -> dict[int, pd.Series]:
    """Predicted class of each sample, for some variants and for the unedited network (-1).

    Raises:
        UserError: outcomes are missing, or are those of other data.
    """
    outcomes = study.outcomes(split, variants=variants)
    found = {int(number): rows.set_index("sample")["predicted"] for number, rows in outcomes.groupby("variant")}
    before = found.get(-1, pd.Series(dtype=int))
    there = outcomes["sample"] < len(data), outcomes["predicted"] < len(data.groups.classes)
    if (
        not all(values.all() for values in there)
        or not found.keys() >= set(variants)
        or not outcomes["sample"].isin(before.index).all()
    ):
        place = study.path
        raise StoredFileError(
            f"{place / 'outcomes'} is not complete or of other data: delete {place / 'effects.parquet'} and run the "
            "same study again"
        )
    return found


def _changed(data: Dataset, predictions: Mapping[int, pd.Series], variant: int, units: str) -> ChangedPredictions:
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
