"""An edit: one change of a network, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.units import Units, owner


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of a network.

    Arguments:
        kind: "zero", "mean", "random_init", "random_noise", "rewind", "transplant", "optimized" (only from
            `strongest_edit`), or a user's own `module:function`.
        units: what is changed.
        parameters: of the kind, plain numbers and words.
        tensors: values that the edit puts in: the older parameters for `rewind`, those of the other network for
            `transplant`, the means for `mean`, the new parameters for `optimized` (NaN outside the units).
        seed: of the noise.
        matched_to: for a control, the digest of the edit with which it is compared.
    """

    kind: str
    units: Units
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    seed: int = 0
    matched_to: str | None = None

    def on(self, units: Units, **changes: Any) -> Edit:
        """The same edit on other units."""
        return replace(self, units=units, **changes)

    def digest(self) -> str:
        """SHA-256 of kind, units, parameters, seed and the values put into the units, 16 hex digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        parts = (self.kind, self.units.digest(), json.dumps(dict(self.parameters), sort_keys=True), self.seed)
        digest = hashlib.sha256(repr(parts).encode())
        layers = tuple(map(owner, self.units.by_name()))
        for name in sorted(self.tensors):
            if f"{name}.".startswith(layers):
                numbers = self.tensors[name].detach().cpu().contiguous().flatten()
                digest.update(f"\0{name}\0".encode() + numbers.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def __str__(self) -> str:
        """As `--edit` takes it: "random_noise:std=0.02"."""
        return _as_text(self.kind, self.parameters)


def zero(units: Units) -> Edit:
    """Set the units' weights to 0. The channel of a filter then is constant: batch norm sets its value.

    Arguments:
        units: of any kind.
    """
    return Edit("zero", checked_units(units))


def mean(units: Units, means: Mapping[str, Tensor]) -> Edit:
    """Hold each channel or feature at its mean over some samples, instead of the constant that zeroed weights leave.

    Arguments:
        units: channels, heads or features.
        means: {layer name: mean output of each channel, [channels]}, as `channel_means` returns it. For features
            {name of the head: mean of each feature, [features]}, as `feature_means` returns it.

    Raises:
        UserError: the units are single weights, which have no output of their own.
    """
    if checked_units(units).kind == "weight":
        raise UserError("edit mean is for channels, heads and features: a single weight has no mean that it could keep")
    return Edit("mean", units, tensors=_checked_tensors(means, "mean", "{layer name: means}, from channel_means"))


def random_init(units: Units, std: float, *, noise: str = "normal", seed: int = 0) -> Edit:
    """Replace the units' weights by noise times `std`.

    Arguments:
        units: of any kind.
        std: factor of the noise.
        noise: "normal" (standard normal) or "uniform" (from 0 to 1, as the research code's threshold study draws).
        seed: of the draws.

    Raises:
        UserError: `std` is negative or the noise unknown.
    """
    return Edit("random_init", checked_units(units), _noise_parameters(std, noise), seed=seed)


def random_noise(units: Units, std: float, *, noise: str = "normal", seed: int = 0) -> Edit:
    """Add noise times `std` to the units' weights.

    Arguments:
        units: of any kind.
        std: factor of the noise.
        noise: "normal" (standard normal) or "uniform" (from 0 to 1).
        seed: of the draws.

    Raises:
        UserError: `std` is negative or the noise unknown.
    """
    return Edit("random_noise", checked_units(units), _noise_parameters(std, noise), seed=seed)


def rewind(units: Units, older: Mapping[str, Tensor] | nn.Module, epochs: int | None = None) -> Edit:
    """Set the units' weights back to those of an older checkpoint.

    Arguments:
        units: of any kind.
        older: state dict of the older network, {parameter name: tensor}, or the older network.
        epochs: number of epochs by which it is older; only recorded.

    Raises:
        UserError: `older` is neither.
    """
    older = checked_network(older).state_dict() if isinstance(older, nn.Module) else older
    tensors = _checked_tensors(older, "rewind", "a state dict {parameter name: tensor}")
    return Edit("rewind", checked_units(units), {} if epochs is None else {"epochs": epochs}, tensors=tensors)


def transplant(units: Units, twin: Mapping[str, Tensor] | nn.Module, source: str | None = None) -> Edit:
    """Set the units' weights to those of a twin, which continued from the same checkpoint without some samples.

    If the units hold these samples, this takes the samples away and little else. Units that both trainings left as they
    were don't change at all.

    Arguments:
        units: of any kind.
        twin: state dict of the twin, {parameter name: tensor}, or the twin.
        source: RUN@EPOCH of the twin; only recorded.

    Raises:
        UserError: `twin` is neither.
    """
    twin = checked_network(twin).state_dict() if isinstance(twin, nn.Module) else twin
    tensors = _checked_tensors(twin, "transplant", "a state dict {parameter name: tensor}")
    return Edit("transplant", checked_units(units), {} if source is None else {"from": source}, tensors=tensors)


def checked_edits(edits: object) -> list[Edit]:
    """A list of edits, also from one edit.

    Raises:
        UserError: something in it is no edit.
    """
    if isinstance(edits, Edit):
        return [edits]
    if isinstance(edits, Units) or not isinstance(edits, Iterable):
        raise UserError(f"the edits are {_a(edits)}: give a list of edits, such as [sm.edits.zero(units)]")
    every = list(edits)
    for number, edit in enumerate(every):
        if not isinstance(edit, Edit):
            raise UserError(f"edit {number} is {_a(edit)}: make an edit of it, such as sm.edits.zero(units)")
    return every


def checked_units(units: object) -> Units:
    """The units of an edit.

    Raises:
        UserError: they are something else, such as scores.
    """
    if not isinstance(units, Units):
        raise UserError(f"the units are {_a(units)}: choose some by sm.top(scores, n), or name them by sm.parse_units")
    return units


def _checked_tensors(tensors: object, kind: str, wanted: str) -> Mapping[str, Tensor]:
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"edit {kind} takes {wanted}, not {_a(tensors)}")
    return tensors


def _a(value: object) -> str:
    return f"a {type(value).__name__}"


RANDOM_KINDS = ("random_init", "random_noise")
PARAMETERS = {
    "mean": {"over"},
    "random_init": {"std", "noise"},
    "random_noise": {"std", "noise"},
    "rewind": {"epochs"},
    "transplant": {"from"},
}
KINDS = ("zero", "mean", *RANDOM_KINDS, "rewind", "transplant")
MAX_DIGITS = 18
"""A longer number is no whole number that an edit could mean."""

NOISES = ("normal", "uniform")


@dataclass(frozen=True)
class EditSpec:
    """An edit without units, as `--edit` gives it.

    Arguments:
        kind: of edit.
        parameters: of the kind.
    """

    kind: str
    parameters: Mapping[str, Any]

    def __str__(self) -> str:
        return _as_text(self.kind, self.parameters)

    @property
    def is_random(self) -> bool:
        return self.kind in RANDOM_KINDS


def parse_edit(text: str) -> EditSpec:
    """Read an edit such as "zero", "random_noise:std=0.02", "mean:over=unseen", "rewind:epochs=5" or
    "transplant:from=runs/twin@last".

    A user's own kind is written "module:function", with its parameters behind "?": "module:function?name=value,...".

    Raises:
        UserError: the kind or a parameter is unknown, missing or of the wrong type.
    """
    if text.split(":")[0] not in KINDS:
        kind, _, options = text.partition("?")
        if ":" not in kind:
            raise UserError(f"unknown edit {text!r}: choose among {', '.join(KINDS)}, or module:function")
        return EditSpec(kind, _pairs(text, options))
    kind, _, options = text.partition(":")
    parameters = _pairs(text, options)
    allowed = PARAMETERS.get(kind, set())
    if unknown := set(parameters) - allowed:
        takes = ", ".join(sorted(allowed)) or "no parameters"
        raise UserError(f"edit {kind} has no parameter {min(unknown)!r}: it takes {takes}")
    if kind in RANDOM_KINDS:
        if not isinstance(parameters.get("std"), int | float):
            raise UserError(f"edit {kind} needs a number std, such as {kind}:std=0.02")
        parameters = _noise_parameters(float(parameters["std"]), str(parameters.get("noise", "normal")))
    if kind == "mean" and parameters.get("over", "unseen") != "unseen":
        raise UserError("edit mean takes means over the training samples, or over the others by mean:over=unseen")
    if kind == "rewind" and not (isinstance(parameters.get("epochs"), int) and parameters["epochs"] > 0):
        raise UserError("edit rewind needs a whole number of epochs, such as rewind:epochs=5")
    if kind == "transplant":
        if "from" not in parameters:
            raise UserError("edit transplant needs the run of the twin, such as transplant:from=runs/twin@last")
        parameters = {"from": str(parameters["from"])}
    return EditSpec(kind, parameters)


def _as_text(kind: str, parameters: Mapping[str, Any]) -> str:
    options = ",".join(f"{name}={value}" for name, value in parameters.items())
    return f"{kind}{'?' if ':' in kind else ':'}{options}" if options else kind


def _pairs(text: str, options: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise UserError(f"edit {text!r}: write parameters as name=value, such as random_noise:std=0.02")
        pairs[name.strip()] = _number(value.strip())
    return pairs


def _number(text: str) -> int | float | str:
    try:
        return int(text) if len(text) <= MAX_DIGITS else float(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _noise_parameters(std: float, noise: str) -> dict[str, Any]:
    if not 0 <= std < float("inf"):
        raise UserError(f"std {std} must be a number from 0 up")
    if noise not in NOISES:
        raise UserError(f"noise {noise!r}: choose among {', '.join(NOISES)}")
    return {"std": std} if noise == "normal" else {"std": std, "noise": noise}
