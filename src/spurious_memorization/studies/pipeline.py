"""A study of a run: planned, measured block by block, counted, and compared with its controls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..atomic import write_text
from ..console import say
from ..criteria.scores import Scores
from ..datasets.pseudo_minority import with_pseudo_minority
from ..datasets.samples import Dataset
from ..engine.evaluate import engine_for
from ..engine.outcomes import Block
from ..networks.forward import choose_device
from ..runs.edited import tensors_for
from ..runs.run import Run, check_same_settings, write_parquet
from ..settings import Execution
from ..statistics.agreement import agreement, first_units, norm_rankings
from .blocks import Part, measured_blocks, ready_engine
from .measure import measure, parts_of
from .other_epochs import at_other_epochs
from .plan import check_memory, plan, variants_frame
from .rankings import RankingSettings, stored_ranking, trace
from .selected_sets import study_effects
from .selection import ranked_units
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

    def _repr_html_(self) -> str:
        from ..reporting.notebook import study_html

        return study_html(self)

    def variants(self) -> pd.DataFrame:
        """One row an edited network."""
        return pd.read_parquet(self.path / "variants.parquet")

    def results(self) -> pd.DataFrame:
        """Counts: one row a variant, split, subset, half and group."""
        return pd.read_parquet(self.path / "results.parquet")

    def effects(self) -> pd.DataFrame:
        """Accuracy changes beside controls, and verdicts: one row a selected set, split and group."""
        return pd.read_parquet(self.path / "effects.parquet")

    def other_epochs(self) -> pd.DataFrame | None:
        """The same edits in other epochs: one row a selected set, epoch, split and group; None if not asked for."""
        file = self.path / "other_epochs.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    def agreement(self) -> pd.DataFrame | None:
        """How far rankings agree: one row a pair of them; None for single weights and where units were stated."""
        file = self.path / "agreement.parquet"
        return pd.read_parquet(file) if file.is_file() else None

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


def studies_of(run: Run) -> list[Study]:
    """The studies that a run holds, finished or not, by name."""
    return [Study(file.parent) for file in sorted(run.path.glob("studies/*/study.json"))]


def study(
    run: Run,
    settings: StudySettings | None = None,
    *,
    name: str | None = None,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Study:
    """Edit a run's network in many ways, each beside matched controls, and count what becomes of every group.

    Outcomes are stored block by block: a stopped study continues where it was when it is asked for again, and a
    finished one is only read.

    Arguments:
        run: whose network is studied.
        settings: rankings, sizes, edits, repeats, splits, controls.
        name: of the study; made from the settings if not given.
        data_folder: where the run's data are now, if they were moved.
        execution: device, workers, batch size; changes no result.

    Returns:
        The study, whose frames are read by `effects()`, `results()`, `variants()` and `outcomes()`.

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
    rules = rules_of(settings, settings.criterion[0] if settings.criterion else "weight_norm", model)
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
            check_same_settings(stored, record, f"study {result.path.name}")
            execution = execution.model_copy(update={"compile": path.endswith("compiled")})
        if result.is_complete:
            say(f"study {result.path.name} is finished: reading its results")
            return result
        tensors = {str(spec): tensors_for(run, model, data, spec, epoch, settings.unit) for spec in specs}

        def scores_of(ranking: RankingSettings) -> Scores:
            return stored_ranking(run, model, data, ranking, execution)

        ranked = ranked_units(model, data, settings, rankings, rules, scores_of)
        check_memory(ranked, settings.controls)
        variants = plan(
            model, ranked, specs, tensors, repeats=settings.repeats, controls=settings.controls, seed=settings.seed
        )
        frame = variants_frame(variants, epoch=epoch, selected_on=settings.traced_on, precision=settings.precision)
        engine = engine_for(
            model, data.samples(splits[0]), loss=rules.loss, precision=settings.precision, execution=execution
        )
        parts = {split: parts_of(variants, data.samples(split), settings) for split in splits}
        engine = ready_engine(engine, [part for here in parts.values() for part in here.values()], execution)
        write_text(result.path / "study.json", json.dumps({**record, "engine": engine.description}, indent=2) + "\n")
        write_parquet(result.path / "variants.parquet", frame)

        def blocks(name: str, part: Part) -> Iterator[tuple[Block, Block]]:
            return measured_blocks(result.path / "outcomes", name, engine, part)

        counted, measured = measure(parts, blocks, data, settings)
        write_parquet(result.path / "results.parquet", counted)
        if settings.other_epochs:
            outcomes = result.path / "outcomes"
            later = at_other_epochs(run, data, variants, settings, rules.loss, outcomes, execution)
            write_parquet(result.path / "other_epochs.parquet", later)
        if rankings and settings.unit != "weight":
            write_parquet(result.path / "agreement.parquet", _agreement(run, data, settings, rankings, scores_of))
        found = study_effects(data, frame, counted, measured, seed=settings.seed)
        write_parquet(result.path / "effects.parquet", found)
    return result


def _name(settings: StudySettings, record: Mapping[str, Any]) -> str:
    """Readable, and different for different settings."""
    what = "units" if settings.units else "-".join(c.replace(":", ".") for c in settings.criterion)
    kinds = "-".join(dict.fromkeys(edit.split(":")[0] for edit in settings.edit))
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return f"{what}_{settings.unit}_{kinds}_{digest}"


def _agreement(
    run: Run,
    data: Dataset,
    settings: StudySettings,
    rankings: Sequence[RankingSettings],
    scores_of: Callable[[RankingSettings], Scores],
) -> pd.DataFrame:
    """Agreement of the study's rankings, of raw and folded norms, and of the same rankings in other runs."""
    compared = {ranking.label: scores_of(ranking) for ranking in rankings}
    first = compared[rankings[0].label]
    k = first_units(first, parse_sizes(settings.size, settings.unit))
    norms = norm_rankings(run.network(rankings[0].epoch), rankings[0].select)
    norms = {name: of for name, of in norms.items() if name not in compared}
    frames = [agreement({**compared, **norms}, k)]
    for place in settings.agreement_with:
        other = Run(Path(place))
        epoch = other.choose_epoch(settings.epoch)
        network = other.network(epoch)
        for ranking in rankings:
            there = trace(network, data, ranking.model_copy(update={"epoch": epoch}))
            frames.append(agreement({ranking.label: compared[ranking.label], f"{ranking.label} in {place}": there}, k))
    return pd.concat(frames, ignore_index=True)
