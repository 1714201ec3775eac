"""A study of a run: planned, measured block by block, counted, and compared with its controls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ..atomic import write_text
from ..console import say
from ..data.samples import Dataset, Samples
from ..engine.evaluate import engine_for
from ..engine.outcomes import Engine
from ..networks.forward import choose_device
from ..presets import TracingRules
from ..run import Run, refuse_other_settings, write_parquet
from ..settings import Execution
from ..units import Selection, parse_units
from .blocks import Part, measured_blocks, ready_engine
from .counts import COUNTS, compare, count
from .edited_run import tensors_for
from .plan import Ranked, Variant, plan, refuse_too_many, select, variants_frame
from .rankings import RankingSettings, stored_ranking
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
        """Counts: one row a variant, split, subset and group."""
        return pd.read_parquet(self.path / "results.parquet")

    def effects(self) -> pd.DataFrame:
        """Shifts beside controls: one row a selected set, split and group."""
        return pd.read_parquet(self.path / "effects.parquet")

    def outcomes(self, split: str, family: str = "selected") -> pd.DataFrame:
        """Predicted class, loss and margin: one row a variant (-1: before any edit) and sample."""
        files = sorted((self.path / "outcomes").glob(f"{split}_{family}_*.parquet"))
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
        engine = ready_engine(engine, [part for both in parts.values() for part in both.values()], execution)
        write_text(result.path / "study.json", json.dumps({**record, "engine": engine.path}, indent=2) + "\n")
        write_parquet(result.path / "variants.parquet", frame)
        counted = pd.concat(
            [_measure(result, engine, split, both, _subset_name(settings)) for split, both in parts.items()],
            ignore_index=True,
        )
        write_parquet(result.path / "results.parquet", counted)
        write_parquet(result.path / "effects.parquet", _effects(frame, counted, data))
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
        )
        for ranking in rankings
    ]


def _parts(variants: Sequence[Variant], samples: Samples, settings: StudySettings) -> dict[str, Part]:
    """What is measured on one split: selected sets on all samples, their controls on some where so set."""
    n = settings.per_group
    subset = samples if n is None else samples.per_group(n, settings.seed)
    places = {"selected": ("edited networks", samples), "random": ("controls", subset)}
    edits = {family: [v.edit for v in variants if v.family == family] for family in places}
    return {
        family: Part(f"{samples.split}, {words}", edits[family], where)
        for family, (words, where) in places.items()
        if edits[family]
    }


def _measure(result: Study, engine: Engine, split: str, parts: Mapping[str, Part], subset_name: str) -> pd.DataFrame:
    """Counts of every variant on one split: selected sets on all samples, and on the controls' samples."""
    subset = parts.get("random", parts["selected"]).samples
    counted = []
    for family, part in parts.items():
        offset = 0 if family == "selected" else len(parts["selected"].edits)
        sums: dict[str, list[pd.DataFrame]] = {"all": [], subset_name: []}
        for before, after in measured_blocks(result.path / "outcomes", f"{split}_{family}", engine, part, offset):
            here = part.samples.at(before.index)
            views = {subset_name: here} if family == "random" else {"all": here, subset_name: _within(here, subset)}
            for view, counted_here in views.items():
                if len(counted_here):
                    sums[view].append(count(before, after, counted_here))
        for view, counts in sums.items():
            if counts:
                total = pd.concat(counts).groupby(["edit", "group"], as_index=False)[list(COUNTS)].sum()
                counted.append(total.rename(columns={"edit": "variant"}).assign(split=split, subset=view))
    return pd.concat(counted, ignore_index=True)


def _subset_name(settings: StudySettings) -> str:
    return "all" if settings.per_group is None else f"per_group_{settings.per_group}"


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])


def _effects(variants: pd.DataFrame, results: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """`effects.parquet`: every selected set on every split and group, beside its controls on the same samples."""
    named = results.merge(
        variants[["variant", "family", "selected_set", "control"]], on="variant", how="left", validate="many_to_one"
    )
    about = variants[variants["family"] == "selected"].drop_duplicates("selected_set").set_index("selected_set")
    frames = []
    for (number, split), rows in named.groupby(["selected_set", "split"], sort=False):
        selected, controls = rows[rows["family"] == "selected"], rows[rows["family"] == "random"]
        subset = controls["subset"].iloc[0] if len(controls) else "all"
        controls = controls.drop(columns="group").assign(edit=controls["control"], group=controls["group"])
        whole = compare(selected[selected["subset"] == "all"], controls.iloc[:0])
        beside = compare(selected[selected["subset"] == subset], controls)
        columns = ["group", "shift", "control_low", "control_median", "control_high", "n_controls", "n_as_large"]
        table = whole.drop(columns=columns[2:]).merge(
            beside[columns].rename(columns={"shift": "shift_beside_controls"}), on="group"
        )
        what = about.loc[number]
        frames.append(
            table.assign(
                selected_set=number,
                split=split,
                controls_on=subset,
                criterion=what["criterion"],
                traced_on=what["group"],
                size=what["size"],
                kind=what["kind"],
                parameters=what["parameters"],
                unit=what["unit"],
                n_units=what["n_units"],
                units=what["units"],
            )
        )
    effects = pd.concat(frames, ignore_index=True)
    effects["group_name"] = [data.groups.names[g] for g in effects["group"]]
    effects["minority"] = effects["group"].isin(data.minority)
    return effects
