"""Pruning of the units that memorize, with a new head."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from ...console import log
from ...controls.null_sets import null_sets
from ...criteria.scores import top
from ...datasets.samples import Dataset
from ...edits.apply import edited_tensors
from ...edits.edit import Edit, zero
from ...engine.ablation import ablation
from ...errors import UserError
from ...networks.units import Units, parse_units
from ...runs.epochs import run_and_epoch
from ...settings import MAX_COUNT
from ...stored_files import read_frame
from ..gradient_steps import GradientSteps
from ..heads import Features, Head, HeadObjective, HeadSettings
from ..objective_settings import SplitAtPlus
from .dfr import DfrSettings, check_group_samples, fit_head


class PruneCriticalSettings(HeadSettings):
    """Options of prune-critical.

    Arguments:
        fit_on, select_by: as for every head.
        study: a finished study of the run from which this one starts. All units of its memorizing sets are pruned.
        units: the units that are pruned, as TENSOR:NUMBER.
        n: without `study` and `units`: how many channels are pruned, those whose ablation alone lowers the margins of
            the minority's training samples most.
        random: prune random units of the same layers instead, as many in each: the control.
        draw: number of the random draw.
        refit: fit a new head by DFR. Otherwise the network keeps its head.
    """

    trains_linear_head: ClassVar[bool] = False

    name: Literal["prune-critical"] = "prune-critical"
    study: str | None = None
    units: Annotated[tuple[str, ...], SplitAtPlus] = ()
    n: int = Field(3, ge=1, le=MAX_COUNT)
    random: bool = False
    draw: int = Field(0, ge=0, le=MAX_COUNT)
    refit: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> PruneCriticalSettings:
        if self.study and self.units:
            raise ValueError("study and units both name what is pruned: give one of them")
        return self


class PruneCritical(HeadObjective[PruneCriticalSettings]):
    """Zero the units that memorize, and fit a new head on the features that are left.

    The units are those of a study's memorizing sets, or those that the user names, or the first of an ablation map. The
    head is fitted by DFR (`fit_head`). The control differs only in the units: `random=true` prunes random units of the
    same layers. Only a difference between both shows that the choice of the units matters. This repair is this tool's
    own.
    """

    @classmethod
    def check_data(cls, settings: PruneCriticalSettings, data: Dataset) -> None:
        super().check_data(settings, data)
        if not settings.study and not settings.units and not data.minority:
            raise UserError("prune-critical needs a minority group: name one with --minority, or give units=")

    def begin(self) -> None:
        super().begin()
        if self.settings.refit:
            check_group_samples(self.fitting_samples(), self.settings.name)
        if self.settings.study or self.settings.units:
            self._named_units()

    def run_epoch(self, epoch: int, steps: GradientSteps) -> None:
        model, edit = self.training.model, self.edit()
        log(f"prune-critical: {'random units' if self.settings.random else 'the units'} {edit.units} are zeroed")
        with torch.no_grad():
            for name, values in edited_tensors(model, edit).items():
                model.get_parameter(name).copy_(values)
        if self.settings.refit:
            super().run_epoch(epoch, steps)

    def fit(self, fitting: Features, selecting: Features, head: Head) -> Head:
        settings = DfrSettings(select_by=self.settings.select_by)
        return fit_head(fitting, selecting, settings, self.training.config.seed)[0]

    def passes(self, epoch: int) -> int:
        return super().passes(epoch) if self.settings.refit else 0

    def edit(self) -> Edit:
        """The edit that prunes: of the chosen units, or of random ones."""
        settings, model = self.settings, self.training.model
        named = settings.study or settings.units
        chosen = zero(self._named_units() if named else self._first_by_ablation())
        if not settings.random:
            return chosen
        drawn = null_sets(model, chosen, settings.draw + 1, seed=self.training.config.seed)
        if len(drawn) <= settings.draw:
            raise UserError(f"prune-critical: there are only {len(drawn)} random sets: give a smaller draw")
        return drawn[settings.draw]

    def _named_units(self) -> Units:
        """The units that the user names, or those of the study's memorizing sets.

        Raises:
            UserError: the network lacks one; there is no such study, or it has no memorizing set.
        """
        settings, model = self.settings, self.training.model
        if settings.study is None:
            return parse_units(model, settings.units)
        path, _ = run_and_epoch(str(self.training.config.start))
        file, remedy = path / "studies" / settings.study / "effects.parquet", "finish the study, or name another one"
        effects = read_frame(file, {"units": "text or none", "verdict": "text", "unit": "text"}, remedy)
        memorizing = effects[(effects["verdict"] == "memorizing") & effects["units"].notna()]
        if memorizing.empty:
            raise UserError(
                f"study {settings.study} of {path} calls no set memorizing: leave study= out to prune by ablation"
            )
        if set(memorizing["unit"]) != {"channel"}:
            raise UserError(f"study {settings.study} of {path} is not about channels, which prune-critical needs")
        return parse_units(model, list(dict.fromkeys(",".join(memorizing["units"]).split(","))))

    def _first_by_ablation(self) -> Units:
        train = self.training.data.train
        minority = train.at(train.index[np.isin(train.g, self.training.data.minority)])
        return top(ablation(self.training.model, minority, loss=self.training.config.loss), self.settings.n)
