"""Objectives by name, each with its own options: what `--objective` takes and what a run stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, TypeAdapter

from ...criteria.names import Order
from ...settings import Settings

By = Literal["class", "group"]
Mask = Literal["gradient", "magnitude-smallest", "magnitude-largest", "random", "none"]
Layer = Literal["conv", "linear"]


def _listed(value: Any) -> Any:
    """Split "a+b" into its words: commas already part the options of an objective."""
    return tuple(value.split("+")) if isinstance(value, str) else value


class NamedObjective(Settings):
    """The base of all."""

    name: str

    def __str__(self) -> str:
        """As `--objective` takes it, without the options that have their default: "pruned-contrast:mask=none"."""
        differing = {
            name: value
            for name, value in self
            if name != "name" and value is not None and value != type(self).model_fields[name].default
        }
        stated = ",".join(f"{name}={_as_text(value)}" for name, value in differing.items())
        return f"{self.name}:{stated}" if stated else self.name


class ErmSettings(NamedObjective):
    """Empirical risk minimization: the mean loss over all samples."""

    name: Literal["erm"] = "erm"


class ErmContinueSettings(NamedObjective):
    """ERM continued from another run: the control of pruned-contrast, equal to it but for the contrast.

    Arguments:
        cross_entropy_weight: of the mean loss, as in pruned-contrast.
    """

    name: Literal["erm-continue"] = "erm-continue"
    cross_entropy_weight: float = Field(0.2, gt=0)


class PrunedContrastSettings(NamedObjective):
    """Fine-tuning that contrasts a network with its pruned copy.

    Arguments:
        mask: which units are pruned: those with the largest gradients on the hardest samples, the smallest or largest
            weights, random ones, or none.
        fraction: share of the units that is pruned, rounded up.
        refresh: choose the units anew before every epoch; otherwise once.
        contrast: what is contrasted: penultimate "features", "logits" or "probabilities".
        temperature: of the contrast.
        contrast_weight, cross_entropy_weight: of the two parts of the loss.
        running_statistics: which passes move batch norm's running statistics: the "dense" one, or
            "dense-pruned-dense", as three passes in this order would.
        unit: what is pruned; for None single weights by magnitude and channels otherwise.
        layers: kinds of layer whose units are considered; both for None.
        with_bias: a channel takes its bias along; so it does for None.
        strictly_beyond: prune what lies strictly beyond the last selected weight of magnitude-largest: one fewer.
        n_hardest: at most so many hardest samples, chosen without regard to groups, for the gradient.
        order: what is worst: the "highest_loss", or, as in the research code, the "lowest_loss".
    """

    name: Literal["pruned-contrast"] = "pruned-contrast"
    mask: Mask = "gradient"
    fraction: float = Field(0.01, ge=0, lt=1)
    refresh: bool = True
    contrast: Literal["features", "logits", "probabilities"] = "features"
    temperature: float = Field(0.5, gt=0)
    contrast_weight: float = Field(1.0, ge=0)
    cross_entropy_weight: float = Field(0.2, ge=0)
    running_statistics: Literal["dense", "dense-pruned-dense"] = "dense"
    unit: Literal["channel", "weight"] | None = None
    layers: Annotated[tuple[Layer, ...] | None, BeforeValidator(_listed)] = None
    with_bias: bool | None = None
    strictly_beyond: bool = False
    n_hardest: int = Field(200, ge=1)
    order: Order = "highest_loss"


class ReweightingSettings(NamedObjective):
    """Losses weighted so that every class, or every group, counts alike."""

    name: Literal["reweighting"] = "reweighting"
    by: By = "group"


class BalancedSamplingSettings(NamedObjective):
    """Samples drawn so that every class, or every group, comes up alike."""

    name: Literal["balanced-sampling"] = "balanced-sampling"
    by: By = "group"


class SubsamplingSettings(NamedObjective):
    """As many samples of every class, or of every group, as the smallest one has."""

    name: Literal["subsampling"] = "subsampling"
    by: By = "group"


class GroupDroSettings(NamedObjective):
    """GroupDRO.

    Arguments:
        step: of the groups' weights.
        adjustment: added to the loss of a group, over the root of its size.
        balanced: draw the samples so that every group comes up alike.
    """

    name: Literal["group-dro"] = "group-dro"
    step: float = Field(0.01, gt=0)
    adjustment: float = Field(0.0, ge=0)
    balanced: bool = True


class JttSettings(NamedObjective):
    """Just Train Twice.

    Arguments:
        errors_of: RUN@EPOCH, whose errors on the training samples are upweighted.
        upweight: how often each of them comes up in an epoch.
    """

    name: Literal["jtt"] = "jtt"
    errors_of: str
    upweight: int = Field(20, ge=1)


class ExampleTiedDropoutSettings(NamedObjective):
    """Example-tied dropout.

    Arguments:
        generalizing: share of a layer's channels that every sample uses.
        memorizing: share of the other channels that one sample uses.
    """

    name: Literal["example-tied-dropout"] = "example-tied-dropout"
    generalizing: float = Field(0.2, gt=0, lt=1)
    memorizing: float = Field(0.1, gt=0, le=1)


class DfrSettings(NamedObjective):
    """Deep feature reweighting: a new head on the features of another run.

    Arguments:
        draws: balanced draws whose heads are averaged.
        strengths: candidates for the inverse strength of the L1 penalty; the best on the half for selecting is taken.
    """

    name: Literal["dfr"] = "dfr"
    draws: int = Field(10, ge=1)
    strengths: Annotated[tuple[float, ...], BeforeValidator(_listed), Field(min_length=1)] = (
        1.0,
        0.7,
        0.3,
        0.1,
        0.07,
        0.03,
        0.01,
    )


AnyObjective = (
    ErmSettings
    | ErmContinueSettings
    | PrunedContrastSettings
    | ReweightingSettings
    | BalancedSamplingSettings
    | SubsamplingSettings
    | GroupDroSettings
    | JttSettings
    | ExampleTiedDropoutSettings
    | DfrSettings
)

KINDS: dict[str, type[NamedObjective]] = {kind.model_fields["name"].default: kind for kind in get_args(AnyObjective)}


def _read(value: Any) -> Any:
    """Read "pruned-contrast:mask=none,fraction=0.05"; anything but text stays as it is."""
    if not isinstance(value, str):
        return value
    name, _, stated = value.partition(":")
    if name not in KINDS:
        raise ValueError(f"unknown objective {name!r}: choose among {', '.join(KINDS)}")
    options = {"name": name}
    for part in filter(None, stated.split(",")):
        option, equals, text = part.partition("=")
        takes = ", ".join(field for field in KINDS[name].model_fields if field != "name") or "none"
        if not equals or option.strip().replace("-", "_") not in set(KINDS[name].model_fields) - {"name"}:
            raise ValueError(f"objective {name} has no option {part!r}: write {name}:option=value with one of {takes}")
        options[option.strip().replace("-", "_")] = text.strip()
    return options


def _token(_: type, tokens: Any) -> Any:
    """What the command line gives, as it is: the field's own validation reads it."""
    return tokens[0].value


ObjectiveSettings = Annotated[
    AnyObjective,
    Field(discriminator="name"),
    BeforeValidator(_read),
    Parameter(converter=_token, accepts_keys=False, n_tokens=1, metavar="OBJECTIVE"),
]
"""An objective with its options; text such as "group-dro:step=0.1" is read."""


def objective_from(stated: str | Mapping[str, Any]) -> AnyObjective:
    """An objective from text such as "group-dro:step=0.1", or from the block that a run stores.

    Raises:
        pydantic.ValidationError: the objective or an option is unknown or out of range.
    """
    adapter: TypeAdapter[AnyObjective] = TypeAdapter(ObjectiveSettings)
    return adapter.validate_python(stated)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
