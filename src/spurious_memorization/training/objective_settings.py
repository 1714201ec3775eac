"""The base of every objective's settings: its options, and the facts that others need before a training starts.

This module imports no torch, so that the command line can show its help quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BeforeValidator

from ..settings import Settings
from .names import Balance, Recipe

if TYPE_CHECKING:
    from torch import nn


class ObjectiveSettings(Settings):
    """The options of one objective. Every file in `objectives` defines one subclass, and the `Objective` that uses it.

    The fields are the options: `--objective name:option=value,option=value`. The class variables and the methods below
    are the facts of the method. A subclass states those in which it differs from plain training.
    """

    continues: ClassVar[bool] = False
    """The method starts from the network of another run, which `--from` names."""

    prunes: ClassVar[bool] = False
    """The method has a pruned copy of the network, which `--keep-pruned` stores."""

    trains_linear_head: ClassVar[bool] = True
    """The method can train a linear head alone, on the features of a frozen encoder."""

    passes_per_sample: ClassVar[int] = 1
    """How often a step passes a sample through the network, forwards and backwards."""

    run_option: ClassVar[str | None] = None
    """The option that names another run as RUN@EPOCH, where the method uses the errors of that run's network."""

    fixed_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of the training that have only one sensible value for this method, such as its number of epochs."""

    name: str

    @property
    def balances(self) -> Balance | None:
        """What the method balances. Each class, or each group, must then have a training sample."""
        return None

    @property
    def fits_on_held_out(self) -> bool:
        """Whether the method fits on training samples that the network from which it starts has not seen."""
        return False

    @property
    def prototypes(self) -> int:
        """Number of prototypes of each class, if an ensemble of them replaces the head; 0 if it does not."""
        return 0

    @property
    def other_run(self) -> str | None:
        """The run, as RUN@EPOCH, whose errors the method uses."""
        return None if self.run_option is None else str(getattr(self, self.run_option))

    def expanded(self, recipe: Recipe, model: nn.Module) -> Self:
        """These settings with every value filled in that the user left open.

        Arguments:
            recipe: the recipe of the training.
            model: the network that is trained.
        """
        return self

    def __str__(self) -> str:
        """The text that `--objective` reads, without the options at their default: "pruned-contrast:mask=none"."""
        differing = {
            name: value
            for name, value in self
            if name != "name" and value is not None and value != type(self).model_fields[name].default
        }
        options = ",".join(f"{name}={_as_text(value)}" for name, value in differing.items())
        return f"{self.name}:{options}" if options else self.name


def _split(value: Any) -> Any:
    return tuple(value.split("+")) if isinstance(value, str) else value


SplitAtPlus = BeforeValidator(_split)
"""Reads "a+b" as a tuple of two values. A comma already separates the options of an objective."""


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
