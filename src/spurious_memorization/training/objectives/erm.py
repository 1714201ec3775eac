"""Empirical risk minimization."""

from __future__ import annotations

from typing import Literal

from ..objective import Objective
from ..objective_settings import ObjectiveSettings


class ErmSettings(ObjectiveSettings):
    """Empirical risk minimization has no options."""

    name: Literal["erm"] = "erm"


class Erm(Objective[ErmSettings]):
    """Empirical risk minimization: the mean loss over all training samples, in a new order every epoch."""
