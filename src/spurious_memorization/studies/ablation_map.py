"""The ablation map of a run: measured block by block, stored, and read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import nn

from ..atomic import write_text
from ..console import say
from ..datasets.samples import Dataset, Samples
from ..engine.evaluate import engine_for
from ..networks.forward import Precision
from ..networks.losses import LossName
from ..networks.units import Selection, sites
from ..runs.run import Run, write_parquet
from ..settings import Execution, Settings
from .ablation import SUMS, ablated_units, map_of, single_edits, sums
from .blocks import Part, measured_blocks, ready_engine


class AblationSettings(Settings):
    """An ablation map: which units of which network are zeroed one by one, and where the effect is measured.

    Arguments:
        select: the units.
        epoch: of the network.
        split: where the samples come from.
        groups: groups of which all samples are taken, and as many of the other samples of the same labels.
        screen: measure only so many units, the first by `taylor`.
        loss: of the screening, and recorded.
        precision: of the edited networks.
        half: the half of the samples that the effect is summed over; all of them if not given. Where units are
            screened, also the half that the screening looks at.
        seed: of the draw of the other samples, and of the halves.
        pseudo_minority: as of `RankingSettings`.
    """

    select: Selection
    epoch: int
    split: Literal["train", "val", "test"] = "train"
    groups: tuple[str, ...]
    screen: int | None = None
    loss: LossName = "cross_entropy"
    precision: Precision = "float32"
    half: int | None = None
    seed: int = 0
    pseudo_minority: int | None = None

    @property
    def measured(self) -> AblationSettings:
        """The settings of what is measured and stored: without screening one map for both halves."""
        return self if self.screen is not None else self.model_copy(update={"half": None})


def stored_ablation(
    run: Run, model: nn.Module, data: Dataset, settings: AblationSettings, execution: Execution | None = None
) -> pd.DataFrame:
    """The ablation map from the run (columns: `sm.ablation_map`), measured and stored there first where it is not yet.

    Stopped, it continues where it was when it is asked for again.

    Arguments:
        model: the run's network of the settings' epoch.

    Raises:
        UserError: a group has no samples, there are too many units, a stored block is broken.
    """
    folder, execution = ablation_folder(run, settings), execution or Execution()
    file = folder / ("map.parquet" if settings.half is None else f"map_of_half_{settings.half}.parquet")
    if file.is_file():
        return pd.read_parquet(file)
    whole = settings.measured
    source = data.samples(whole.split).of_half(whole.half, whole.seed)
    samples = beside_others(source, settings.groups, settings.seed)
    units = ablated_units(model, samples, settings.select, loss=settings.loss, screen=settings.screen)
    n = sum(site.n for site in sites(model, settings.select).values())
    if len(units) < n:
        say(f"ablation of the first {len(units)} of {n} {settings.select.unit}s by taylor: {n - len(units)} left out")
    part = Part(f"ablation, {settings.split}", single_edits(units), samples)
    engine = engine_for(model, samples, loss=settings.loss, precision=settings.precision, execution=execution)
    record = folder / "ablation.json"
    if record.is_file():
        path = str(json.loads(record.read_text(encoding="utf-8"))["engine"])
        execution = execution.model_copy(update={"compile": path.endswith("compiled")})
    engine = ready_engine(engine, [part], execution)
    stated = {"settings": whole.model_dump(mode="json"), "engine": engine.description, "left_out": n - len(units)}
    write_text(record, json.dumps(stated, indent=2) + "\n")
    counted = samples.of_half(settings.half, settings.seed)
    totals = np.zeros((len(units), len(data.groups), len(SUMS)))
    for before, after in measured_blocks(folder / "outcomes", settings.split, engine, part):
        totals[after.edits] += sums(before, after, counted)
    frame = map_of(units, [totals], counted)
    write_parquet(file, frame)
    return frame


def ablation_folder(run: Run, settings: AblationSettings) -> Path:
    """Where a map is stored: named by kind of unit and epoch, and a digest of all settings."""
    digest = hashlib.sha256(settings.measured.model_dump_json().encode()).hexdigest()[:8]
    return run.path / "ablations" / f"{settings.select.unit}_epoch_{settings.epoch:03d}_{digest}"


def beside_others(samples: Samples, groups: Sequence[str], seed: int) -> Samples:
    """All samples of some groups, and as many others of the same labels, drawn at random; in the order of indices.

    Raises:
        UserError: a group is unknown or empty here.
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
