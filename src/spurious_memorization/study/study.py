"""A study of a run: planned, measured block by block, counted, and compared with its controls."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ..atomic import write_text
from ..console import progress, say
from ..data.samples import Dataset, Samples
from ..edits.edit import Edit
from ..engine.outcomes import Block, block_plan
from ..engine.plain import Engine, plain_engine
from ..errors import UserError
from ..networks.forward import choose_device
from ..presets import TracingRules
from ..run import Run, refuse_other_settings, write_parquet
from ..settings import Execution
from ..units import Selection, parse_units
from .counts import COUNTS, compare, count
from .edited_run import tensors_for
from .plan import Ranked, Variant, plan, refuse_too_many, select, variants_frame
from .rankings import RankingSettings, stored_ranking
from .settings import StudySettings, parse_edits, parse_sizes, parse_splits, rankings_of, rules_of

OUTCOME_COLUMNS = ("variant", "sample", "predicted", "loss", "margin")


@dataclass(frozen=True)
class Study:
    """A stored study: RUN/studies/NAME."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """`study.json`: settings, expanded rankings, epoch, sizes of the samples."""
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
        if result.exists:
            refuse_other_settings(result.record, record, f"study {result.path.name}")
        if result.is_complete:
            say(f"study {result.path.name} is finished: reading its results")
            return result
        tensors = {str(spec): tensors_for(run, model, data, spec, epoch, settings.unit) for spec in specs}
        ranked = _ranked(run, model, data, settings, rankings, rules)
        refuse_too_many(ranked, settings.controls)
        variants = plan(
            model, ranked, specs, tensors, repeats=settings.repeats, controls=settings.controls, seed=settings.seed
        )
        frame = variants_frame(variants, epoch=epoch, selected_on=settings.traced_on, precision=settings.precision)
        write_text(result.path / "study.json", json.dumps(record, indent=2) + "\n")
        write_parquet(result.path / "variants.parquet", frame)
        engine = plain_engine(model, loss=rules.loss, precision=settings.precision, execution=execution)
        results = [_measure(result, engine, variants, data.samples(split), settings) for split in splits]
        counted = pd.concat(results, ignore_index=True)
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
) -> list[Ranked]:
    if settings.units:
        units = parse_units(model, settings.units, Selection(unit=settings.unit, with_bias=rules.select.with_bias))
        return [Ranked("given", None, {len(units): units}, {len(units): "given"})]
    sizes = parse_sizes(settings.size, settings.unit)
    return [
        select(
            model,
            stored_ranking(run, model, data, ranking),
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


def _measure(
    result: Study, engine: Engine, variants: Sequence[Variant], samples: Samples, settings: StudySettings
) -> pd.DataFrame:
    """Counts of every variant on one split: selected sets on all samples, and on the controls' samples."""
    subset = samples if settings.per_group is None else samples.per_group(settings.per_group, settings.seed)
    name = "all" if settings.per_group is None else f"per_group_{settings.per_group}"
    families = {family: [v.edit for v in variants if v.family == family] for family in ("selected", "random")}
    say(
        f"{samples.split}: {len(families['selected'])} edited networks on {len(samples)} samples, "
        f"{len(families['random'])} controls on {len(subset)}"
    )
    counted = []
    for family, edits, where in (("selected", families["selected"], samples), ("random", families["random"], subset)):
        if not edits:
            continue
        offset = 0 if family == "selected" else len(families["selected"])
        sums: dict[str, list[pd.DataFrame]] = {"all": [], name: []}
        for before, after in _blocks(result, engine, edits, where, family, offset):
            here = where.at(before.index)
            views = {name: here} if family == "random" else {"all": here, name: _within(here, subset)}
            for view, part in views.items():
                if len(part):
                    sums[view].append(count(before, after, part))
        for view, parts in sums.items():
            if parts:
                total = pd.concat(parts).groupby(["edit", "group"], as_index=False)[list(COUNTS)].sum()
                counted.append(total.rename(columns={"edit": "variant"}).assign(split=samples.split, subset=view))
    return pd.concat(counted, ignore_index=True)


def _within(samples: Samples, subset: Samples) -> Samples:
    return samples.at(samples.index[np.isin(samples.index, subset.index)])


def _blocks(
    result: Study, engine: Engine, edits: Sequence[Edit], samples: Samples, family: str, offset: int
) -> Iterator[tuple[Block, Block]]:
    """Run or read every block; give, for each part of the samples, the outcomes before and after the edits."""
    steps = list(block_plan(len(edits), len(samples)))
    label = f"{samples.split}, {'edited networks' if family == 'selected' else 'controls'}"
    before: Block | None = None
    started, told = time.monotonic(), False
    for number, (rows, columns) in enumerate(progress(steps, len(steps), label)):
        file = result.path / "outcomes" / f"{samples.split}_{family}_{number:05d}.parquet"
        part = samples.part(columns)
        if file.is_file():
            block = _read_block(file, rows, part)
        else:
            block = engine(edits, rows, part)
            write_parquet(file, _block_frame(block, offset))
            if not told and number + 1 < len(steps):
                say(f"{label}: about {(time.monotonic() - started) * (len(steps) - number - 1):.0f} s to go")
                told = True
        if rows.start == -1:
            before = _rows(block, slice(0, 1))
            block = _rows(block, slice(1, None))
        if before is not None and len(block.edits):
            yield before, Block(block.edits + offset, block.index, block.predicted, block.loss, block.margin)


def _rows(block: Block, rows: slice) -> Block:
    return Block(block.edits[rows], block.index, block.predicted[rows], block.loss[rows], block.margin[rows])


def _block_frame(block: Block, offset: int) -> pd.DataFrame:
    variants = np.where(block.edits < 0, -1, block.edits + offset)
    columns = (
        np.repeat(variants, len(block.index)).astype(np.int32),
        np.tile(block.index, len(variants)).astype(np.int32),
        block.predicted.ravel(),
        block.loss.ravel(),
        block.margin.ravel(),
    )
    return pd.DataFrame(dict(zip(OUTCOME_COLUMNS, columns, strict=True)))


def _read_block(file: Path, rows: range, part: Samples) -> Block:
    try:
        frame = pd.read_parquet(file)
        shape = (len(rows), len(part))
        arrays = [frame[name].to_numpy().reshape(shape) for name in ("predicted", "loss", "margin")]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is broken: delete it and run the same command again") from error
    return Block(np.array(rows), part.index, *arrays)


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
