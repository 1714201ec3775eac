"""What a study's settings mean for one network and data set: rankings, edits and splits."""

from __future__ import annotations

from torch import nn

from ..criteria.names import needs_samples
from ..criteria.presets import TracingRules, tracing_rules
from ..datasets.samples import SPLITS, Dataset
from ..edits.edit import KINDS, EditSpec, parse_edit
from ..errors import UserError
from ..memorization.only_memorized import left_out_digest
from ..networks.selection import Selection
from ..user_functions import load_user_function
from .ranking_settings import RankingSettings
from .settings import StudySettings, TraceSettings


def rules_of(settings: TraceSettings, criterion: str, model: nn.Module) -> TracingRules:
    """The preset's rules for a criterion; what the user sets replaces them.

    Raises:
        UserError: a kind of layer is unknown, or a threshold is asked for with channels or heads.
    """
    if unknown := set(settings.layers) - {"conv", "linear"}:
        raise UserError(f"layers {min(unknown)!r}: choose among conv and linear")
    everywhere = getattr(settings, "threshold_everywhere", None)
    if everywhere and settings.unit != "weight":
        raise UserError("--threshold-everywhere is for single weights: add --unit weight, or leave it out")
    rules = tracing_rules(settings.preset, criterion, settings.unit, model)
    select = rules.select.model_copy(
        update={
            "layers": settings.layers or rules.select.layers,
            "tensors": settings.tensors,
            "exclude": (*rules.select.exclude, *settings.exclude),
            "with_bias": rules.select.with_bias if settings.with_bias is None else settings.with_bias,
        }
    )
    changed = {
        "select": Selection(**select.model_dump()),
        "loss": settings.loss or rules.loss,
        "threshold_everywhere": rules.threshold_everywhere if everywhere is None else everywhere,
    }
    return rules.model_copy(update=changed)


def rankings_of(settings: TraceSettings, model: nn.Module, data: Dataset, epoch: int) -> list[RankingSettings]:
    """Every ranking that the settings ask for: one per criterion, and per group if the criterion needs samples.

    Raises:
        UserError: a group is unknown or empty, or no group is given and the data have no minority group.
    """
    if not settings.criterion:
        raise UserError("no criterion is given: choose one with --criterion, or units with --units")
    rankings = []
    for criterion in settings.criterion:
        rules = rules_of(settings, criterion, model)
        common = RankingSettings(
            criterion=criterion,
            select=rules.select,
            epoch=epoch,
            pseudo_minority=settings.pseudo_minority,
            left_out=None if settings.memorized_in is None else left_out_digest(data),
            seed=settings.seed,
        )
        if not needs_samples(criterion):
            rankings.append(common)
            continue
        groups = _groups(settings, rules, data)
        by_criterion = (
            {"ablated_with": tuple(groups), "screen": settings.screen, "precision": settings.precision}
            if criterion == "ablation"
            else {"n_hardest": settings.n_hardest}
        )
        for group in groups:
            data.samples(settings.traced_on).of_group(group)
            on_group = {"group": group, "split": settings.traced_on, "loss": rules.loss}
            rankings.append(common.model_copy(update={**on_group, **by_criterion}))
    return rankings


def _groups(settings: TraceSettings, rules: TracingRules, data: Dataset) -> list[str]:
    names = data.groups.names
    if settings.group:
        return [names[data.groups.index(group)] for group in settings.group]
    if rules.every_group:
        counts = data.train_counts
        return [name for g, name in enumerate(names) if counts[g]]
    if not data.minority:
        raise UserError("the data have no minority group (none has a lift under 0.5): name one with --group")
    return [names[g] for g in data.minority]


def parse_edits(settings: StudySettings, rules: TracingRules) -> list[EditSpec]:
    """The edits of a study. Random edits get the noise of the rules if they name none.

    Raises:
        UserError: an edit is malformed or unknown.
    """
    if not settings.edit:
        raise UserError("no edit is given: choose one with --edit, such as zero")
    specs = [parse_edit(text) for text in settings.edit]
    for spec in specs:
        if spec.kind not in KINDS:
            load_user_function(spec.kind)
    noise = settings.noise or rules.noise
    return [
        EditSpec(spec.kind, {**spec.parameters, "noise": noise})
        if spec.is_random and noise != "normal" and "noise" not in spec.parameters
        else spec
        for spec in specs
    ]


def parse_splits(settings: StudySettings, data: Dataset) -> list[str]:
    """The splits of a study.

    Raises:
        UserError: a split is unknown or empty, or controls are to be measured on a split that the study leaves out.
    """
    if not settings.split:
        raise UserError(f"no split is given: choose among {', '.join(data.splits)} with --split")
    for split in settings.split:
        data.samples(split)
    if others := set(settings.controls_on) - set(settings.split):
        raise UserError(f"--controls-on {min(others)}: this split is not in the study ({', '.join(settings.split)})")
    return [split for split in SPLITS if split in settings.split]
