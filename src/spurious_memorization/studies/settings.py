"""Settings of tracing and of a study: the flags of `spurmem trace` and `spurmem study`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..criteria.names import Preset, criterion_name
from ..errors import UserError
from ..networks.names import LossName, Precision, Reach, UnitKind
from ..settings import MAX_COUNT, MAX_SEED, Settings, whole_number

MAX_SIZES = 10_000

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
    """How units are scored. The preset fills in what is None."""

    criterion: Criteria = Field(
        ("weight_norm", "gradient"),
        description="weight_norm (or magnitude), gradient, taylor, ablation, random, module:function",
    )
    group: tuple[str, ...] = Field(
        (), description="trace on the hardest samples of this group; on each minority group by default"
    )
    traced_on: SplitName = Field("train", description="split of the samples that are traced")
    pseudo_minority: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="replace the minority groups by random subsets of the majority, drawn with this seed",
    )
    memorized_in: Path | None = Field(
        None, description="folder with memorization scores: of the minority groups, use memorized training samples only"
    )
    min_score: float = Field(0.25, ge=-1, le=1, description="the least memorization score of these samples")
    n_hardest: int = Field(
        200, ge=1, le=MAX_COUNT, description="use at most this number of the hardest samples of a group"
    )
    unit: UnitKind = Field("channel", description="channel, head, feature or weight")
    tensors: Words = Field((), description="patterns of tensors to keep, such as 'layer3.*'; all by default")
    exclude: Words = Field((), description="patterns of tensors to leave out")
    layers: Words = Field((), description="kinds of layer: conv, linear; set by the preset by default")
    with_bias: bool | None = Field(None, description="a unit includes its bias; set by the preset by default")
    loss: LossName | None = Field(None, description="loss of a sample; set by the preset by default")
    epoch: str = Field("last", description="best, last or a number")
    screen: int | None = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="ablation: measure only this number of units, the first by taylor; all by default",
    )
    precision: Precision = Field("float32", description="of edited networks: float32 or bf16")
    preset: Preset = Field("standard", description="standard, or paper: the arithmetic of the research code")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="of every random draw")


class StudySettings(TraceSettings):
    """A study: rankings x sizes x edits x repeats on some splits, compared with random units, with verdicts."""

    size: Words = Field(("1..3",), description="sizes of the selected set: 1..3, 5 or, for weights, 0.1%")
    edit: tuple[str, ...] = Field(
        ("zero",),
        description="zero, mean, mean:over=unseen, random_init:std=S, random_noise:std=S, rewind:epochs=N or "
        "transplant:from=RUN@EPOCH",
    )
    split: Words = Field(("train", "test"), description="splits to measure on")
    repeats: int = Field(10, ge=1, le=MAX_COUNT, description="repeats of each random edit, each with its own draws")
    controls: int = Field(
        999,
        ge=0,
        le=100_000,
        description="null sets per ranking, at most: fewer are drawn where the answer is clear; 0 gives no verdicts",
    )
    controls_from: Reach = Field(
        "layer", description="where null sets are drawn from: layer, stage (in a transformer: block) or network"
    )
    controls_on: Words = Field(
        (), description="splits on which controls are measured; all splits of --split by default"
    )
    every_question: bool = Field(False, description="ask the third question of every set, not only of selective ones")
    cross_fit: bool = Field(True, description="select on one half of the samples and test on the other, and vice versa")
    per_group: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="measure controls on this number of samples per group; on all by default"
    )
    other_epochs: Words = Field((), description="apply the same edits to the networks of these epochs: 0, 5, best")
    strongest: int = Field(
        0,
        ge=0,
        le=MAX_COUNT,
        description="search the strongest edit of each selected set, and of this number of random sets",
    )
    agreement_with: tuple[str, ...] = Field(
        (), description="other runs whose rankings are compared, such as those of other seeds"
    )
    groupings: bool = Field(
        True, description="repeat the study of candidate groups with the groups of each seed of the discovery alone"
    )
    smallest: bool = Field(False, description="select the smallest scores instead of the largest")
    threshold_everywhere: bool | None = Field(
        None, description="single weights by a threshold on every parameter; set by the preset by default"
    )
    dropout_p: float = Field(0.0, ge=0, lt=1, description="probability that a selected weight is left unedited")
    units: Words = Field((), description="study these units, such as layer3.0.conv2:17, instead of a criterion's")
    noise: Literal["normal", "uniform"] | None = Field(
        None, description="noise of random edits; set by the preset by default"
    )

    @property
    def asks_other_groupings(self) -> bool:
        """Whether the study of candidate groups is repeated. It is not if the study changes the groups by itself."""
        return self.groupings and self.pseudo_minority is None and self.memorized_in is None


def parse_sizes(texts: tuple[str, ...], unit: UnitKind) -> list[int | float]:
    """Sizes from "1..3", "5" or "0.1%", without duplicates, in the given order.

    Raises:
        UserError: a size is malformed or not positive, or a fraction is given for channels or heads.
    """
    sizes: list[int | float] = []
    for text in texts:
        if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
            first, last = (whole_number(digits, MAX_COUNT, "size") for digits in match.groups())
            if last - first >= MAX_SIZES:
                raise UserError(f"size {text} stands for {last - first + 1} sizes: choose at most {MAX_SIZES}")
            sizes += range(first, last + 1)
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)%", text):
            if unit != "weight":
                raise UserError(f"size {text}: fractions are for weights; give {unit}s as counts, such as 1..3")
            sizes.append(float(match[1]) / 100)
        elif text.isdecimal():
            sizes.append(whole_number(text, MAX_COUNT, "size"))
        else:
            raise UserError(f"size {text!r}: write 1..3, 5 or, for weights, 0.1%")
    if not sizes or min(sizes) <= 0:
        raise UserError(f"sizes {', '.join(texts)}: a selected set needs at least one unit")
    if any(isinstance(size, float) and size > 1 for size in sizes):
        raise UserError(f"sizes {', '.join(texts)}: a fraction can't be over 100 %")
    return list(dict.fromkeys(sizes))
