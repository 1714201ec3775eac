"""Names that settings of training choose among. This module imports no torch."""

from __future__ import annotations

from typing import Literal

Recipe = Literal["standard", "paper-readme", "paper-script", "paper-pruning"]
"""Named sets of settings; `recipes` has their values."""

Balance = Literal["class", "group"]
"""What a method balances: the classes, or the groups."""
