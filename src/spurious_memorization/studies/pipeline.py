"""From settings to a study: rank units, plan the edits, measure them, compare them with random units.

One pipeline serves both a run (`study`, which keeps everything in the run's folder) and a user's own network
(`study_in_memory`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from ..console import log
from ..criteria.scores import Scores
from ..datasets.candidate_groups import groupings
from ..datasets.samples import Dataset, checked_dataset
from ..edits.apply import edited_tensors
from ..engine.evaluate import engine_for
from ..engine.outcomes import outcomes_per_block
from ..engine.protocol import Engine
from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.forward import outside_inference_mode
from ..networks.units import sites, touched
from ..runs.records import check_same_settings
from ..runs.run import Run
from ..settings import Execution
from ..statistics.agreement import agreement, first_units, norm_rankings
from ..statistics.sequential import LOOKS
from .block_workers import block_workers
from .blocks import Part, announce_engine
from .groupings import ALL_SEEDS, settings_of_grouping, verdicts_by_grouping
from .measure import Measured, parts_of, parts_of_variants
from .network import (
    StudiedNetwork,
    network_in_memory,
    network_of_other_run,
    network_of_run,
    network_to_trace,
    on_units,
    studied_data,
)
from .other_epochs import effects_at_other_epochs
from .plan import Edits, Variant, check_plan, pools_of, selected_variants
from .question_tests import tests_of_families
from .ranking_settings import RankingSettings
from .rankings import ranking_scores
from .rounds import draw_damage_matched_sets, draw_null_sets, first_null_sets
from .rules import parse_edits, parse_splits, rankings_of, rules_of
from .selection import select_units
from .settings import StudySettings, parse_sizes
from .shorter_study import suggest_subset
from .store import FolderStore, MemoryStore, Store
from .strongest import strongest_edits
from .study import Study, groups_of_study
from .study_effects import study_effects
from .time_to_go import TimeToGo

UNCHANGED = 1e-3
"""Units whose weights changed by less than this part of their norm are as they were before training."""


def study(
    run: Run,
    settings: StudySettings | None = None,
    *,
    name: str | None = None,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Study:
    """Edit a run's network in many ways, compare each edit with random units, and count the effect on every group.

    Outcomes are stored block by block. A stopped study continues if it is started again; a finished one is only read.

    Arguments:
        run: whose network is studied.
        settings: rankings, sizes, edits, repeats, splits, controls.
        name: of the study; made from the settings if not given.
        data_folder: where the run's data are now, if they were moved.
        execution: device, workers, batch size; changes no result.

    Returns:
        The study. Its frames are `effects()`, `results()`, `variants()` and `outcomes()`.

    Raises:
        UserError: a setting does not fit the network or the data, a study of this name has other settings, or another
            command is writing the run.

    Example:
        ```python
        result = sm.study(run, sm.StudySettings(criterion=("gradient",), size=("1..3",)))
        result.effects()
        ```
    """
    settings, execution = settings or StudySettings(), execution or Execution()
    if name is not None and (name in ("", "..") or name != Path(name).name or "\0" in name):
        raise UserError(f"--name {name!r} must be the name of a folder, without / and not empty")
    store = FolderStore(run.path)
    _ = run.record  # raises an error if this is no run
    with run.writing():
        network = network_to_trace(run, settings, data_folder=data_folder, execution=execution)
        found = _study(network, settings, store, name=name, engine=None, execution=execution)
        table = run.record.data.candidate_table
        if settings.asks_other_groupings and table is not None and not found.store.has_frame("groupings"):
            _repeat_with_other_groupings(found, network, settings, Path(table), execution)
        return found


@outside_inference_mode
def study_in_memory(
    model: nn.Module,
    data: Dataset,
    settings: StudySettings | None = None,
    *,
    older: Mapping[str, Tensor] | None = None,
    twin: Mapping[str, Tensor] | None = None,
    engine: Engine | None = None,
    execution: Execution | None = None,
) -> Study:
    """The same study of a user's own network and samples. It needs no run and writes no file.

    Arguments:
        model: the network, which stays as it is.
        data: samples with labels, attributes and splits.
        settings: as for `study`; `epoch` is not used, since there is no run.
        older: state dict of an older checkpoint, for `rewind`.
        twin: state dict of a network that continued without some samples, for `transplant`.
        engine: for this network, if there is one already.
        execution: device, workers, batch size; changes no result.

    Returns:
        The study, with the same frames as that of a run.

    Raises:
        UserError: a setting does not fit the network or the data, or needs a run (`other_epochs`).

    Example:
        ```python
        found = sm.study_in_memory(model, data, sm.StudySettings(criterion=("gradient",), size=("3",)))
        found.effects()[["traced_on", "split", "group_name", "accuracy_change", "p_adjusted", "verdict"]]
        ```
    """
    model, data = checked_network(model), checked_dataset(data)
    settings = settings or StudySettings()
    data = studied_data(data, settings)
    network = network_in_memory(model, data, older, twin)
    return _study(network, settings, MemoryStore(), name=None, engine=engine, execution=execution or Execution())


def _study(
    network: StudiedNetwork,
    settings: StudySettings,
    store: Store,
    *,
    name: str | None,
    engine: Engine | None,
    execution: Execution,
) -> Study:
    """The whole pipeline.

    Arguments:
        store: of the network's rankings, ablation maps and studies.
        engine: for the network; made here if not given.
    """
    whole, network = network, on_units(network, settings.unit, execution)
    model, data = network.model, network.data
    splits = parse_splits(settings, data)
    other_epochs = _other_epochs(network, settings)
    rules = rules_of(settings, settings.criterion[0] if settings.criterion else "weight_norm", model)
    specs = parse_edits(settings, rules)
    rankings = [] if settings.units else rankings_of(settings, model, data, network.epoch)
    _check_agreement_with(whole, settings, rankings)
    record = {
        "settings": settings.model_dump(mode="json"),
        "epoch": network.epoch,
        "rankings": [ranking.model_dump(mode="json") for ranking in rankings],
        "edits": [str(spec) for spec in specs],
        "loss": rules.loss,
        "threshold_everywhere": rules.threshold_everywhere,
    }
    result = Study(store.below(f"studies/{name or _name(settings, record)}"))
    own = result.store
    result.check_record()
    n_outcomes = None
    if result.exists:
        stored = result.record
        path, n_outcomes = str(stored.pop("engine", "")), stored.pop("outcomes_per_block", None)
        check_same_settings(stored, record, f"study {result.name}")
        execution = execution.model_copy(update={"compile": path.endswith("compiled")})
    if result.is_complete and all(own.has_frame(name) for name in ("variants", "results")):
        log(f"study {result.name} is finished: reading its results")
        return result

    tensors = {str(spec): network.tensors_of(spec, settings.unit) for spec in specs}

    def scores_of(ranking: RankingSettings) -> Scores:
        return ranking_scores(network, ranking, store, execution)

    ranked = select_units(model, data, settings, rankings, rules, scores_of)
    check_plan(ranked, specs, repeats=settings.repeats, controls=min(settings.controls, LOOKS[0]))
    edits = Edits(specs=specs, tensors=tensors, repeats=settings.repeats, seed=settings.seed)
    pools = pools_of(model, ranked, reach=settings.controls_from, seed=settings.seed) if settings.controls else []
    selected = selected_variants(ranked, edits, pools)
    _check_edits(model, selected)
    time_to_go = TimeToGo()
    if engine is None:
        engine = engine_for(
            model, data.samples(splits[0]), loss=rules.loss, precision=settings.precision, execution=execution
        )
        null_sets = first_null_sets(pools, selected, edits, settings.controls)
        planned = partial(_planned_parts, selected, null_sets, data, splits)
        engine, time_to_go = announce_engine(engine, planned(settings), execution)
        suggest_subset(engine, planned, data, settings, time_to_go)
    n_outcomes = n_outcomes or outcomes_per_block(engine.pass_multiplications)
    record["outcomes_per_block"] = n_outcomes
    own.save_record("study", {**record, "engine": engine.description})
    first = data.samples(splits[0])
    with (
        own.growing_frame("variants") as add_variants,
        own.growing_frame("results") as add_results,
        block_workers(engine, model, first, loss=rules.loss, execution=execution, n_outcomes=n_outcomes) as workers,
    ):
        measured = Measured(
            workers,
            data,
            settings,
            splits,
            network.epoch,
            own,
            time_to_go,
            add_variants=add_variants,
            add_results=add_results,
        )
        measured.add(selected)
        draw_null_sets(measured, pools, selected, edits)
        tests = tests_of_families(data, measured.sets.selected_sets(), measured.of_samples, seed=settings.seed)
        draw_damage_matched_sets(measured, model, selected, edits, tests)
        own.save_record("study", {**record, "engine": workers.description})  # it may have fallen back
    sets = measured.sets.selected_sets()
    unchanged: set[int] = set()
    if other_epochs and whole.run is not None:
        of_epochs = [network_of_run(whole.run, whole.data, epoch, execution=execution) for epoch in other_epochs]
        others = [on_units(other, settings.unit, execution) for other in of_epochs]
        unchanged = _unchanged_sets(network, others, selected)
        own.save_frame(
            "other_epochs",
            effects_at_other_epochs(others, selected, settings, loss=rules.loss, store=own, execution=execution),
        )
    if settings.strongest:
        searched = strongest_edits(model, data, selected, settings, loss=rules.loss, execution=execution)
        own.save_frame("strongest", searched)
    if rankings and settings.unit != "weight":
        scores = {ranking: scores_of(ranking) for ranking in rankings}
        own.save_frame("agreement", _agreement(whole, network.model, settings, scores, own, execution))
    own.save_frame("groups", groups_of_study(data, sets))
    effects = study_effects(data, sets, tests, measured.of_samples, seed=settings.seed, unchanged=unchanged)
    own.save_frame("effects", effects)
    return result


def _planned_parts(
    selected: Sequence[Variant],
    null_sets: Sequence[Variant],
    data: Dataset,
    splits: Sequence[str],
    settings: StudySettings,
) -> dict[str, Part]:
    """What is measured in any case, split by split."""
    parts = {**parts_of_variants(selected), **parts_of_variants(null_sets)}
    return {name: part for split in splits for name, part in parts_of(parts, data.samples(split), settings).items()}


def _repeat_with_other_groupings(
    main: Study, network: StudiedNetwork, settings: StudySettings, table: Path, execution: Execution
) -> None:
    """Do the same study with the candidate groups of each seed of the discovery alone, and store what each one says.

    Each has its own rankings, since other groups have other samples.
    """
    others = groupings(network.data, table)
    found: dict[str, Study | None] = {}
    for number, (name, data) in enumerate(others.items(), 1):
        log(f"grouping {number}/{len(others)}: the same study with the candidate groups of {name} alone")
        of_grouping = settings_of_grouping(settings, data)
        store = main.store.below(f"groupings/{name}")
        found[name] = (
            None
            if of_grouping is None
            else _study(
                replace(network, data=data), of_grouping, store, name=main.name, engine=None, execution=execution
            )
        )
    if others:
        table_of_all = {ALL_SEEDS: network.data, **others}
        main.store.save_frame("groupings", verdicts_by_grouping(table_of_all, {ALL_SEEDS: main, **found}))


def _check_edits(model: nn.Module, selected: Sequence[Variant]) -> None:
    """Check that each kind of edit can be made, before anything is stored.

    Raises:
        UserError: it can't.
    """
    one_of_each_kind = {str(variant.edit): variant.edit for variant in selected}
    for edit in one_of_each_kind.values():
        edited_tensors(model, edit)


def _unchanged_sets(network: StudiedNetwork, others: Sequence[StudiedNetwork], selected: Sequence[Variant]) -> set[int]:
    """Numbers of the selected sets whose units are as they were before training.

    It is known if the network before training, epoch 0, is among the other epochs.
    """
    start = next((other for other in others if other.epoch == 0), None)
    if start is None or network.epoch == 0:
        return set()
    before, after = (dict(of.model.named_parameters()) for of in (start, network))
    trained = {
        variant.selected_set
        for variant in selected
        for name, rows in touched(network.model, variant.edit.units).items()
        if _is_trained(before[name], after[name], rows, flat=variant.edit.units.are_flat)
    }
    return {variant.selected_set for variant in selected} - trained


def _is_trained(before: Tensor, after: Tensor, rows: Tensor, *, flat: bool) -> bool:
    old, new = (value.detach().cpu().flatten() if flat else value.detach().cpu() for value in (before, after))
    change = (new[rows] - old[rows]).norm()
    return bool(change > UNCHANGED * old[rows].norm())


def _name(settings: StudySettings, record: Mapping[str, Any]) -> str:
    """A readable name that differs for different settings."""
    what = "units" if settings.units else "-".join(c.replace(":", ".") for c in settings.criterion)
    kinds = "-".join(dict.fromkeys(edit.split(":")[0] for edit in settings.edit))
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return f"{what}_{settings.unit}_{kinds}_{digest}"


def _other_epochs(network: StudiedNetwork, settings: StudySettings) -> list[int]:
    """The other epochs of the settings, each once.

    Raises:
        UserError: the run lacks one of them, or there is no run.
    """
    if not settings.other_epochs:
        return []
    if network.run is None:
        raise UserError("other_epochs needs the checkpoints of a run: use `study`, or leave it out")
    return list(dict.fromkeys(network.run.choose_epoch(wanted) for wanted in settings.other_epochs))


def _check_agreement_with(
    network: StudiedNetwork, settings: StudySettings, rankings: Sequence[RankingSettings]
) -> None:
    """Check that the runs whose rankings will be compared have the same units.

    Raises:
        UserError: one is no run, or has no such epoch or other units.
    """
    for place in settings.agreement_with:
        other = network_of_other_run(place, network, settings.epoch, Execution(device="cpu"))
        for select in {ranking.select for ranking in rankings}:
            own = {name: site.n for name, site in sites(network.model, select).items()}
            try:
                others = {name: site.n for name, site in sites(other.model, select).items()}
            except UserError:
                others = {}
            if own != others:
                raise UserError(f"--agreement-with {place} has other {select.unit}s: give a run of the same network")


def _agreement(
    whole: StudiedNetwork,
    model: nn.Module,
    settings: StudySettings,
    scores: Mapping[RankingSettings, Scores],
    store: Store,
    execution: Execution,
) -> pd.DataFrame:
    """Agreement of the study's rankings, of raw and folded norms, and of the same rankings in other runs.

    What is measured in other runs is kept in the study's own store.

    Arguments:
        whole: the network of the study, with all its layers.
        model: the one whose units were ranked.
        scores: of its rankings.
    """
    labeled = {ranking.label: of for ranking, of in scores.items()}
    first, *_ = scores
    k = first_units(scores[first], parse_sizes(settings.size, settings.unit))
    norms = norm_rankings(model, first.select)
    frames = [agreement({**labeled, **{name: of for name, of in norms.items() if name not in labeled}}, k)]
    for number, place in enumerate(settings.agreement_with):
        other = on_units(network_of_other_run(place, whole, settings.epoch, execution), settings.unit, execution)
        for ranking, own_scores in scores.items():
            same = ranking.model_copy(update={"epoch": other.epoch})
            others_scores = ranking_scores(other, same, store.below(f"other_runs/{number}"), execution)
            frames.append(agreement({ranking.label: own_scores, f"{ranking.label} in {place}": others_scores}, k))
    return pd.concat(frames, ignore_index=True)
