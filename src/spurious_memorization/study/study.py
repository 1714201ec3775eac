"""A study of a run: planned, measured block by block, counted, and compared with its controls."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from ..atomic import write_text
from ..console import say
from ..data.pseudo import with_pseudo_minority
from ..data.samples import Dataset, Samples
from ..engine.evaluate import engine_for
from ..engine.outcomes import Engine
from ..networks.forward import choose_device
from ..presets import TracingRules
from ..run import Run, refuse_other_settings, write_parquet
from ..settings import Execution
from ..units import Selection, parse_units
from .blocks import Part, measured_blocks, ready_engine
from .counts import COUNTS, count
from .edited_run import tensors_for
from .effects import SampleEffects, joined, sample_effects, study_effects
from .plan import Ranked, Variant, plan, refuse_too_many, select, variants_frame
from .rankings import RankingSettings, on_half, stored_ranking
from .settings import StudySettings, parse_edits, parse_sizes, parse_splits, rankings_of, rules_of


@dataclass(frozen=True)
class Study:
    """A stored study: RUN/studies/NAME."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """`study.json`: settings, expanded rankings, epoch, and the path that the engine took."""
        stated: dict[str, Any] = json.loads((self.path / "study.json").read_text(encoding="utf-8"))
        return stated

    def variants(self) -> pd.DataFrame:
        """One row an edited network."""
        return pd.read_parquet(self.path / "variants.parquet")

    def results(self) -> pd.DataFrame:
        """Counts: one row a variant, split, subset, half and group."""
        return pd.read_parquet(self.path / "results.parquet")

    def effects(self) -> pd.DataFrame:
        """Shifts beside controls, and verdicts: one row a selected set, split and group."""
        return pd.read_parquet(self.path / "effects.parquet")

    def outcomes(self, split: str, part: str = "selected") -> pd.DataFrame:
        """Predicted class, loss and margin: one row a variant (-1: before any edit) and sample.

        Arguments:
            split: of the samples.
            part: "selected" or "random"; with "_0" or "_1" what was measured on one half of the samples alone.
        """
        files = sorted((self.path / "outcomes").glob(f"{split}_{part}_{'[0-9]' * 5}.parquet"))
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

    @property
    def exists(self) -> bool:
        return (self.path / "study.json").is_file()

    @property
    def is_complete(self) -> bool:
        return (self.path / "effects.parquet").is_file()


def study(
    run: Run,
    settings: StudySettings | None = None,
    *,
    name: str | None = None,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Study:
    """Edit a run's network in many ways, each beside random controls, and count what becomes of every group.

    Outcomes are stored block by block: a stopped study continues where it was when it is asked for again, and a
    finished one is only read.

    Arguments:
        run: whose network is studied.
        settings: rankings, sizes, edits, repeats, splits, controls.
        name: of the study; made from the settings if not given.
        data_folder: where the run's data are now, if they were moved.
        execution: device, workers, batch size.

    Raises:
        UserError: a setting doesn't fit network or data, a study of this name has other settings, another command is
            writing the run.

    Example:
        ```python
        result = sm.study(run, sm.StudySettings(criterion=("gradient",), size=("1..3",)))
        result.effects()
        ```
    """
    settings, execution = settings or StudySettings(), execution or Execution()
    data = run.read_data(data_folder)
    if settings.pseudo_minority is not None:
        data = with_pseudo_minority(data, settings.pseudo_minority)
    epoch = run.choose_epoch(settings.epoch)
    model = run.network(epoch).to(choose_device(execution.device))
    splits = parse_splits(settings, data)
    rules = rules_of(settings, settings.criterion[0] if settings.criterion else "magnitude", model)
    specs = parse_edits(settings, rules)
    rankings = [] if settings.units else rankings_of(settings, model, data, epoch)
    record = {
        "settings": settings.model_dump(mode="json"),
        "epoch": epoch,
        "rankings": [ranking.model_dump(mode="json") for ranking in rankings],
        "edits": [str(spec) for spec in specs],
        "loss": rules.loss,
        "threshold_everywhere": rules.threshold_everywhere,
    }
    result = Study(run.path / "studies" / (name or _name(settings, record)))
    with run.writing():
        stored = result.record if result.exists else None
        if stored is not None:
            path = stored.pop("engine", "")
            refuse_other_settings(stored, record, f"study {result.path.name}")
            execution = execution.model_copy(update={"compile": path.endswith("compiled")})
        if result.is_complete:
            say(f"study {result.path.name} is finished: reading its results")
            return result
        tensors = {str(spec): tensors_for(run, model, data, spec, epoch, settings.unit) for spec in specs}
        ranked = _ranked(run, model, data, settings, rankings, rules, execution)
        refuse_too_many(ranked, settings.controls)
        variants = plan(
            model, ranked, specs, tensors, repeats=settings.repeats, controls=settings.controls, seed=settings.seed
        )
        frame = variants_frame(variants, epoch=epoch, selected_on=settings.traced_on, precision=settings.precision)
        engine = engine_for(
            model, data.samples(splits[0]), loss=rules.loss, precision=settings.precision, execution=execution
        )
        parts = {split: _parts(variants, data.samples(split), settings) for split in splits}
        engine = ready_engine(engine, [part for here in parts.values() for part in here.values()], execution)
        write_text(result.path / "study.json", json.dumps({**record, "engine": engine.path}, indent=2) + "\n")
        write_parquet(result.path / "variants.parquet", frame)
        measured = {
            split: _measure(result, engine, split, here, _subset(data.samples(split), settings), settings)
            for split, here in parts.items()
        }
        counted = pd.concat([m.counts for m in measured.values()], ignore_index=True)
        write_parquet(result.path / "results.parquet", counted)
        found = study_effects(data, frame, counted, {s: m.effects for s, m in measured.items()}, seed=settings.seed)
        write_parquet(result.path / "effects.parquet", found)
    return result


def _name(settings: StudySettings, record: Mapping[str, Any]) -> str:
    """Readable, and different for different settings."""
    what = "units" if settings.units else "-".join(c.replace(":", ".") for c in settings.criterion)
    kinds = "-".join(dict.fromkeys(edit.split(":")[0] for edit in settings.edit))
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return f"{what}_{settings.unit}_{kinds}_{digest}"


def _ranked(
    run: Run,
    model: nn.Module,
    data: Dataset,
    settings: StudySettings,
    rankings: Sequence[RankingSettings],
    rules: TracingRules,
    execution: Execution,
) -> list[Ranked]:
    if settings.units:
        units = parse_units(model, settings.units, Selection(unit=settings.unit, with_bias=rules.select.with_bias))
        return [Ranked("given", None, {len(units): units}, {len(units): "given"})]
    sizes = parse_sizes(settings.size, settings.unit)
    return [
        select(
            model,
            stored_ranking(run, model, data, ranking, execution),
            sizes,
            criterion=ranking.criterion,
            group=ranking.group,
            everywhere=rules.threshold_everywhere and ranking.criterion == "magnitude",
            smallest=settings.smallest,
            spare=settings.spare,
            seed=settings.seed,
            half=ranking.half,
            is_tested=ranking.half is not None or not (settings.cross_fit and ranking.looks_at_samples),
        )
        for whole in rankings
        for ranking in _with_halves(whole, data, settings)
    ]


def _with_halves(ranking: RankingSettings, data: Dataset, settings: StudySettings) -> list[RankingSettings]:
    """A ranking and, for verdicts, the same by each half of the samples, where the group has samples in both."""
    if not (settings.cross_fit and settings.controls and ranking.looks_at_samples):
        return [ranking]
    samples = data.samples(ranking.split)
    there = samples if ranking.group is None else samples.of_group(ranking.group)
    return [ranking, *(on_half(ranking, half) for half in (0, 1))] if len(there) > 1 else [ranking]


def _subset(samples: Samples, settings: StudySettings) -> Samples:
    """The samples on which controls are measured."""
    return samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)


def _parts(variants: Sequence[Variant], samples: Samples, settings: StudySettings) -> dict[str, Part]:
    """What is measured on one split: selected sets on all samples, their controls on some where so set; what is of one
    half of the samples on that half alone."""
    places = {"selected": ("edited networks", samples), "random": ("controls", _subset(samples, settings))}
    found: dict[str, Part] = {}
    for name in dict.fromkeys(variant.part for variant in variants):
        here = [number for number, variant in enumerate(variants) if variant.part == name]
        first = variants[here[0]]
        if first.family == "random" and samples.split not in (settings.controls_on or settings.split):
            continue
        words, where = places[first.family]
        if len(first.halves) == 1:
            (half,) = first.halves
            where, words = where.of_half(half, settings.seed), f"{words}, half {half}"
        if len(where):
            edits = [variants[number].edit for number in here]
            found[name] = Part(f"{samples.split}, {words}", edits, where, np.array(here))
    return found


class _Measured(NamedTuple):
    """Counts of every variant on one split, and what each selected one does to each sample, by variant."""

    counts: pd.DataFrame
    effects: dict[int, SampleEffects]


def _measure(
    result: Study, engine: Engine, split: str, parts: Mapping[str, Part], subset: Samples, settings: StudySettings
) -> _Measured:
    """Measure every part; selected sets are counted on all their samples, and on the controls' samples."""
    halves, subset_name = subset.dataset.halves(settings.seed), _subset_name(settings)
    sums: list[pd.DataFrame] = []
    found: dict[int, list[SampleEffects]] = defaultdict(list)
    for name, part in parts.items():
        is_control = name.startswith("random")
        for before, after in measured_blocks(result.path / "outcomes", f"{split}_{name}", engine, part):
            here = part.samples.at(before.index)
            views = {subset_name: here} if is_control else {"all": here, subset_name: _within(here, subset)}
            for (view, samples), half in product(views.items(), (0, 1)):
                chosen = samples.at(samples.index[halves[samples.index] == half])
                if len(chosen):
                    sums.append(count(before, after, chosen).assign(subset=view, half=half))
            if not is_control:
                for row, variant in enumerate(after.edits.tolist()):
                    found[variant].append(sample_effects(before, after, row, halves, subset.dataset))
    keys = ["edit", "subset", "half", "group"]
    total = pd.concat(sums).groupby(keys, as_index=False)[list(COUNTS)].sum()
    counts = total.rename(columns={"edit": "variant"}).assign(split=split)
    return _Measured(counts, {variant: joined(several) for variant, several in found.items()})


def _subset_name(settings: StudySettings) -> str:
    return "all" if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])
