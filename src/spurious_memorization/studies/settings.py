"""Settings of tracing and of a study: what `spurmem trace` and `spurmem study` take as flags."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from torch import nn

from ..criteria.names import criterion_name
from ..criteria.presets import Preset, TracingRules, tracing_rules
from ..datasets.samples import SPLITS, Dataset
from ..edits.edit import KINDS, EditSpec, parse_edit
from ..errors import UserError
from ..networks.forward import Precision
from ..networks.losses import LossName
from ..networks.units import Selection, UnitKind
from ..settings import Settings
from ..user_functions import named_function
from .ablation_map import AblationSettings
from .rankings import RankingSettings, needs_group

SplitName = Literal["train", "val", "test"]


def _words(value: Any) -> Any:
    """Split "a,b" into its words, so that flags and YAML take lists in either form."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(word.strip() for v in value for word in v.split(",") if word.strip())
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Criteria = Annotated[Words, AfterValidator(lambda names: tuple(map(criterion_name, names)))]


class TraceSettings(Settings):
    """How units are scored. What is None is filled in by the preset."""

    criterion: Criteria = Field(
        ("weight_norm", "gradient"), description="magnitude, gradient, taylor, ablation, random, module:function"
    )
    group: tuple[str, ...] = Field(
        (), description="trace on the hardest samples of this group; minorities if not given"
    )
    traced_on: SplitName = Field("train", description="split whose hardest samples are traced")
    pseudo_minority: int | None = Field(
        None, ge=0, description="take random subsets of the majority, drawn with this seed, in the minority's place"
    )
    n_hardest: int = Field(200, ge=1, description="at most so many hardest samples a group")
    unit: UnitKind = Field("channel", description="channel, head or weight")
    tensors: Words = Field((), description="patterns of tensors to keep, such as 'layer3.*'; all if not given")
    exclude: Words = Field((), description="patterns of tensors to leave out")
    layers: Words = Field((), description="kinds of layer: conv, linear; by the preset if not given")
    with_bias: bool | None = Field(None, description="a unit takes its bias along; by the preset if not given")
    loss: LossName | None = Field(None, description="loss of a sample; by the preset if not given")
    epoch: str = Field("last", description="best, last or a number")
    screen: int | None = Field(
        None, ge=1, description="ablation of so many units alone, the first by taylor; of all if not given"
    )
    precision: Precision = Field("float32", description="of edited networks: float32 or bf16")
    preset: Preset = Field("standard", description="standard, or paper: the research code's arithmetic")
    seed: int = Field(0, ge=0, description="of every draw")


class StudySettings(TraceSettings):
    """A study: rankings x sizes x edits x repeats on some splits, beside matched controls, with verdicts."""

    size: Words = Field(("1..3",), description="sizes of the selected set: 1..3, 5 or, for weights, 0.1%")
    edit: tuple[str, ...] = Field(
        ("zero",), description="zero, mean, random_init:std=S, random_noise:std=S, rewind:epochs=N"
    )
    split: Words = Field(("train", "test"), description="splits to measure on")
    repeats: int = Field(10, ge=1, description="of each random edit, each with its own draws")
    controls: int = Field(99, ge=0, description="matched random controls of each ranking; without any no verdicts")
    controls_on: Words = Field(
        (), description="splits on which controls are measured; all that --split names if not given"
    )
    cross_fit: bool = Field(True, description="select on one half of the samples and test on the other, and vice versa")
    per_group: int | None = Field(
        None, ge=1, description="measure controls on so many samples a group; all if not given"
    )
    other_epochs: Words = Field((), description="the same edits in these epochs' networks too: 0, 5, best")
    agreement_with: tuple[str, ...] = Field(
        (), description="other runs, such as those of other seeds, whose rankings are compared"
    )
    smallest: bool = Field(False, description="select the smallest scores instead of the largest")
    threshold_everywhere: bool | None = Field(
        None, description="single weights by a threshold on every parameter; by the preset if not given"
    )
    dropout_p: float = Field(0.0, ge=0, lt=1, description="probability with which a selected weight is spared")
    units: Words = Field((), description="study these units, such as layer3.0.conv2:17, instead of a criterion's")
    noise: Literal["normal", "uniform"] | None = Field(None, description="of random edits; by the preset if not given")


def rules_of(settings: TraceSettings, criterion: str, model: nn.Module) -> TracingRules:
    """The preset's rules for a criterion, with what the user states in their place.

    Raises:
        UserError: a kind of layer is unknown, or the threshold is asked for of channels or heads.
    """
    if others := set(settings.layers) - {"conv", "linear"}:
        raise UserError(f"layers {min(others)!r}: choose among conv and linear")
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
    stated = {
        "select": Selection(**select.model_dump()),
        "loss": settings.loss or rules.loss,
        "threshold_everywhere": rules.threshold_everywhere if everywhere is None else everywhere,
    }
    return rules.model_copy(update=stated)


def rankings_of(settings: TraceSettings, model: nn.Module, data: Dataset, epoch: int) -> list[RankingSettings]:
    """Every ranking that the settings ask for: each criterion, those that look at samples once a group.

    Raises:
        UserError: a group is unknown, or none is given and the data have no minority.
    """
    if not settings.criterion:
        raise UserError("no criterion is given: choose one with --criterion, or units with --units")
    rankings = []
    for criterion in settings.criterion:
        rules = rules_of(settings, criterion, model)
        common = {
            "criterion": criterion,
            "select": rules.select,
            "epoch": epoch,
            "pseudo_minority": settings.pseudo_minority,
            "seed": settings.seed,
        }
        if not needs_group(criterion):
            rankings.append(RankingSettings(**common))
            continue
        groups = _groups(settings, rules, data)
        if criterion == "ablation":
            measured = AblationSettings(
                select=rules.select,
                epoch=epoch,
                split=settings.traced_on,
                groups=tuple(groups),
                screen=settings.screen,
                loss=rules.loss,
                precision=settings.precision,
                seed=settings.seed,
                pseudo_minority=settings.pseudo_minority,
            )
            rankings += [
                RankingSettings(**common, group=group, split=settings.traced_on, loss=rules.loss, ablation=measured)
                for group in groups
            ]
            continue
        for group in groups:
            data.samples(settings.traced_on).of_group(group)
            rankings.append(
                RankingSettings(
                    **common, group=group, split=settings.traced_on, n_hardest=settings.n_hardest, loss=rules.loss
                )
            )
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


def parse_sizes(texts: tuple[str, ...], unit: UnitKind) -> list[int | float]:
    """Sizes from "1..3", "5" or "0.1%", without duplicates, in the order given.

    Raises:
        UserError: a size is malformed or not positive, or a fraction is asked of channels or heads.
    """
    sizes: list[int | float] = []
    for text in texts:
        if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
            sizes += range(int(match[1]), int(match[2]) + 1)
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)%", text):
            if unit != "weight":
                raise UserError(f"size {text}: fractions are for weights; give {unit}s as counts, such as 1..3")
            sizes.append(float(match[1]) / 100)
        elif text.isdecimal():
            sizes.append(int(text))
        else:
            raise UserError(f"size {text!r}: write 1..3, 5 or, for weights, 0.1%")
    if not sizes or min(sizes) <= 0:
        raise UserError(f"sizes {', '.join(texts)}: a selected set needs at least one unit")
    if any(isinstance(size, float) and size > 1 for size in sizes):
        raise UserError(f"sizes {', '.join(texts)}: a fraction can't be over 100 %")
    return list(dict.fromkeys(sizes))


def parse_edits(settings: StudySettings, rules: TracingRules) -> list[EditSpec]:
    """The edits of a study, random ones with the noise of the rules where none is stated.

    Raises:
        UserError: an edit is malformed or unknown.
    """
    if not settings.edit:
        raise UserError("no edit is given: choose one with --edit, such as zero")
    specs = [parse_edit(text) for text in settings.edit]
    for spec in specs:
        if spec.kind not in KINDS:
            named_function(spec.kind)
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
        UserError: one is unknown or empty, or controls are to be measured on another one.
    """
    if not settings.split:
        raise UserError(f"no split is given: choose among {', '.join(data.splits)} with --split")
    for split in settings.split:
        data.samples(split)
    if others := set(settings.controls_on) - set(settings.split):
        raise UserError(f"--controls-on {min(others)}: it is no split of the study ({', '.join(settings.split)})")
    return [split for split in SPLITS if split in settings.split]
