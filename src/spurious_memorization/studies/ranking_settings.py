"""Settings of one ranking."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from ..criteria.names import Order, needs_samples
from ..networks.names import LossName, Precision
from ..networks.selection import Selection
from ..settings import Settings


class RankingSettings(Settings):
    """One ranking: which units are scored, by which criterion, on which samples.

    Arguments:
        criterion: name, or `module:function`.
        select: the units.
        epoch: of the network.
        group: name of the group whose samples are used; None for all groups together, and for criteria that need no
            samples.
        split: of the samples.
        n_hardest: at most this number of the hardest samples is used; `ablation` uses all.
        order: which samples count as the hardest.
        loss: by which samples are ordered, and whose gradient is taken.
        half: of the samples, as in `Dataset.halves`; None for all.
        seed: of the criterion `random`, and of the halves.
        pseudo_minority: seed of the random subsets of the majority that replace the minority groups; None for none.
        left_out: names the samples that take no part because of their memorization scores; None for none.
        ablated_with: only for `ablation`: all groups that are measured for the same ablation map. All samples of these
            groups are measured, and the same number of other samples of the same labels.
        screen: only for `ablation`: measure only this number of units, the first by `taylor`.
        precision: only for `ablation`: of the edited networks.
    """

    criterion: str
    select: Selection
    epoch: int
    group: str | None = None
    split: Literal["train", "val", "test"] = "train"
    n_hardest: int = 200
    order: Order = "highest_loss"
    loss: LossName = "cross_entropy"
    half: int | None = None
    seed: int = 0
    pseudo_minority: int | None = None
    left_out: str | None = None
    ablated_with: tuple[str, ...] = ()
    screen: int | None = None
    precision: Precision = "float32"

    @property
    def needs_samples(self) -> bool:
        """Whether the units are selected by what the network does on samples."""
        return needs_samples(self.criterion)

    @property
    def label(self) -> str:
        """For tables: "gradient (waterbird on land)"."""
        return f"{self.criterion} ({self.group})" if self.group else self.criterion

    @property
    def name(self) -> str:
        """Name in the store: criterion, kind of unit, epoch and group, and a digest of all settings."""
        words = (self.criterion, self.select.unit, f"epoch_{self.epoch:03d}", self.group or "")
        readable = "_".join(re.sub(r"[^\w.-]+", "-", word) for word in words if word)
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]
        return f"rankings/{readable}_{digest}"

    @property
    def map_settings(self) -> dict[str, Any]:
        """For `ablation`: the settings of the ablation map from which the scores are read.

        Rankings of several groups share a map. Without screening both halves of the samples share it, too.
        """
        left_out = {"criterion", "group", "n_hardest", "order", *(() if self.screen else ("half",))}
        return self.model_dump(mode="json", exclude=left_out)

    @property
    def map_name(self) -> str:
        """For `ablation`: name of the map in the store: kind of unit and epoch, and a digest of all settings."""
        digest = hashlib.sha256(json.dumps(self.map_settings).encode()).hexdigest()[:8]
        return f"ablations/{self.select.unit}_epoch_{self.epoch:03d}_{digest}"

    def on_half(self, half: int) -> RankingSettings:
        """The same ranking by one half of the samples."""
        return self.model_copy(update={"half": half})
