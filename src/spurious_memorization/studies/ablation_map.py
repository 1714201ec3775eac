"""The ablation map of a network: measured block by block and kept in a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from torch import nn

from ..console import log
from ..datasets.samples import Dataset, Samples
from ..engine.ablation import SUMS, SingleEdits, ablated_units, map_frame, sums
from ..engine.evaluate import engine_for
from ..errors import UserError
from ..networks.selection import Selection
from ..networks.units import sites
from ..settings import Execution
from ..stored_files import checked_record
from .block_workers import block_workers
from .blocks import Part, announce_engine, measured_blocks
from .ranking_settings import RankingSettings
from .store import REMEDY, FolderStore, Store

RECORD_FILE = "ablation.json"


class MapSettings(BaseModel):
    """The settings of a stored ablation map that a figure names. The others are there, too."""

    model_config = ConfigDict(extra="allow")

    select: Selection
    epoch: int
    split: str
    precision: str


class MapRecord(BaseModel):
    """What a map's `ablation.json` holds.

    Arguments:
        settings: of the map.
        engine: how the outcomes were measured.
        left_out: number of units that were not measured.
    """

    model_config = ConfigDict(extra="forbid")

    settings: MapSettings
    engine: str
    left_out: int


def stored_map(store: FolderStore) -> tuple[pd.DataFrame, MapSettings]:
    """A finished ablation map, and its settings.

    Arguments:
        store: the map's folder.

    Raises:
        UserError: a file is missing or broken.
    """
    frame, record = store.frame("map"), _record(store)
    if frame is None or record is None:
        missing = "map.parquet" if frame is None else RECORD_FILE
        raise UserError(f"{store.path / missing} is missing: delete its folder and run the same command again")
    return frame, record.settings


def _record(store: Store) -> MapRecord | None:
    content = store.record("ablation")
    if content is None or not isinstance(store, FolderStore):
        return None if content is None else MapRecord.model_validate(content)
    return checked_record(store.path / RECORD_FILE, content, MapRecord, REMEDY)


def stored_ablation_map(
    model: nn.Module, data: Dataset, ranking: RankingSettings, store: Store, execution: Execution | None = None
) -> pd.DataFrame:
    """The ablation map from the store, or else measured now and saved there. A stopped measurement continues.

    The map of all samples and those of both halves come from the same outcomes, so they are saved together. With
    `screen`, each half has outcomes of its own.

    Arguments:
        model: the network of the ranking's epoch.
        data: where the samples come from.
        ranking: by `ablation`; its settings say what is measured.
        store: of the network's ablation maps.
        execution: device, workers, batch size; changes no result.

    Returns:
        The columns of `ablation_map`.

    Raises:
        UserError: a group has no samples, there are too many units, or a stored block is broken.
    """
    frame_name = map_frame_name(ranking)
    known = store.frame(frame_name)
    if known is not None:
        return known
    store_of_map, execution = store.below(ranking.map_name), execution or Execution()
    source = data.samples(ranking.split).of_half(ranking.half if ranking.screen else None, ranking.seed)
    samples = with_others_of_label(source, ranking.ablated_with, ranking.seed)
    units = ablated_units(model, samples, ranking.select, loss=ranking.loss, screen=ranking.screen)
    n = sum(site.n for site in sites(model, ranking.select).values())
    if len(units) < n:
        log(f"ablation of the first {len(units)} of {n} {ranking.select.unit}s by taylor; {n - len(units)} left out")
    part = Part(f"ablation, {ranking.split}", SingleEdits(units), samples)
    engine = engine_for(model, samples, loss=ranking.loss, precision=ranking.precision, execution=execution)
    record = _record(store_of_map)
    if record is not None:
        execution = execution.model_copy(update={"compile": record.engine.endswith("compiled")})
    name = f"outcomes/{ranking.split}"
    engine, time_to_go = announce_engine(engine, {name: part}, execution)
    store_of_map.save_record(
        "ablation",
        {"settings": ranking.map_settings, "engine": engine.description, "left_out": n - len(units)},
    )
    rankings = [ranking] if ranking.screen else [ranking.model_copy(update={"half": half}) for half in (None, 0, 1)]
    counted = [samples.of_half(one.half, one.seed) for one in rankings]
    totals = np.zeros((len(rankings), len(units), len(data.groups), len(SUMS)))
    with block_workers(engine, model, samples, loss=ranking.loss, execution=execution) as workers:
        for before, after in measured_blocks(store_of_map, name, workers, part, time_to_go):
            for number, samples_of_map in enumerate(counted):
                totals[number, after.edits] += sums(before, after, samples_of_map)
    frames = {
        map_frame_name(one): map_frame(units, total, of)
        for one, total, of in zip(rankings, totals, counted, strict=True)
    }
    for name, frame in frames.items():
        store.save_frame(name, frame)
    return frames[frame_name]


def map_frame_name(ranking: RankingSettings) -> str:
    """Name of the frame of an ablation map in the store. Each half of the samples has its own frame."""
    return f"{ranking.map_name}/map" if ranking.half is None else f"{ranking.map_name}/map_of_half_{ranking.half}"


def with_others_of_label(samples: Samples, groups: Sequence[str], seed: int) -> Samples:
    """All samples of some groups and the same number of other samples of the same labels, drawn at random.

    Raises:
        UserError: a group is unknown, or has no sample here.
    """
    numbers = [samples.dataset.groups.index(group) for group in groups]
    rng = np.random.default_rng([seed, 0xAB1A])
    label_of = samples.dataset.groups.label_of
    chosen = [samples.of_group(number).index for number in numbers]
    for label in sorted({label_of(number) for number in numbers}):
        wanted = sum(len(c) for c, number in zip(chosen, numbers, strict=False) if label_of(number) == label)
        others = samples.index[(samples.y == label) & ~np.isin(samples.g, numbers)]
        chosen.append(rng.permutation(others)[:wanted])
    return samples.at(np.sort(np.concatenate(chosen)))
