"""The positive and the negative control: the tool is asked about two networks whose answer is known.

A *positive control* holds memory in planted channels; the tool has to find it. A *negative control* has a layer that
was never trained; the tool must not call any set of its channels memorizing or critical. Both are asked about with the
same settings, and the tool is not told which channels are planted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ..atomic import write_text
from ..errors import UserError
from ..seeds import derived_seed
from ..statistics.verdicts import VERDICTS
from ..stored_files import checked_record, read_json
from ..studies.pipeline import study_in_memory
from ..studies.settings import StudySettings
from ..studies.study import Study
from .networks import Family, on_one_thread
from .plants import FIRST_LAYER, KnownNetwork, memory_plant, never_trained

FAMILY: Family = "deit"
POINTS = 60
"""Accuracy points of the minority group that the planted channels hold."""

MAX_ATTEMPTS = 5
"""Networks that are trained for the positive control, until the measured accuracies say that one holds its plant."""

SETTINGS = StudySettings(criterion=("ablation",), size=("1..3",), controls=99, controls_on=("train",), per_group=30)
"""How both networks are asked about: one minority group of each. The negative control is asked about the layer that was
never trained."""

REMEDY = "make it again with `spurmem demo --controls-only`"


class KnownAnswer(BaseModel):
    """What the tool said about a network whose answer is known.

    Arguments:
        control: positive or negative.
        seed: of the network.
        layer: the layer with the planted channels, or the layer that was never trained.
        planted: the planted channels; none in the negative control.
        group: the minority group of the strongest set.
        n_tests: tests of the study: selected sets and minority groups.
        verdict: the strongest of all verdicts.
        units: the set that got it; of several, the one with the largest drop.
        train_change, unseen_change: the change of the group's accuracy without these units, in training on the samples
            that did not select them, and on unseen samples.
        null_changes: the same in training, for each null set.
        p_memorizing: of the last question; None if it was not asked.
    """

    model_config = ConfigDict(extra="forbid")

    control: Literal["positive", "negative"]
    seed: int
    layer: str
    planted: tuple[str, ...]
    group: str
    n_tests: int = Field(ge=1)
    verdict: Literal["none", "no verdict", "selective", "influential", "critical", "memorizing"]
    units: tuple[str, ...] = Field(min_length=1)
    train_change: float = Field(ge=-1, le=1)
    unseen_change: float = Field(ge=-1, le=1)
    null_changes: tuple[float, ...] = Field(min_length=1)
    p_memorizing: float | None

    @property
    def n_found(self) -> int:
        """How many units of the set are planted ones."""
        return len(set(self.units) & set(self.planted))

    @property
    def is_right(self) -> bool:
        """Whether the tool gave the known answer.

        Planted memory is found if the verdict is memorizing and at least half of the set's units are planted ones.
        """
        if self.control == "positive":
            return self.verdict == "memorizing" and 2 * self.n_found >= len(self.units)
        return self.verdict not in ("critical", "memorizing")


class KnownAnswers(BaseModel):
    """The answers on both controls, as the demo's `controls.json` holds them."""

    model_config = ConfigDict(extra="forbid")

    seed: int
    positive: KnownAnswer
    negative: KnownAnswer

    @classmethod
    def read(cls, file: Path) -> KnownAnswers:
        """The stored answers.

        Raises:
            UserError: the file is missing or broken.
        """
        return checked_record(file, read_json(file, REMEDY), cls, REMEDY)

    def write(self, file: Path) -> None:
        """Store the answers.

        Raises:
            UserError: the file can't be written.
        """
        write_text(file, self.model_dump_json(indent=2) + "\n")


def positive_control(seed: int) -> KnownAnswer:
    """Ask the tool about a network in which one to five channels hold memory of a minority group.

    Arguments:
        seed: of the network. If the measured accuracies say that the planting failed, another one is trained.

    Raises:
        UserError: the planting failed in every attempt.
    """
    for attempt in range(MAX_ATTEMPTS):
        planted = derived_seed(seed, "positive control", attempt) % 2**31
        known = memory_plant(FAMILY, planted, POINTS)
        if known.is_accepted:
            return _asked("positive", known, planted, SETTINGS)
    raise UserError(f"no memory could be planted in {MAX_ATTEMPTS} networks: choose another --seed")


def negative_control(seed: int) -> KnownAnswer:
    """Ask the tool about the first layer of a network that was trained without this layer.

    Arguments:
        seed: of the network.
    """
    random = derived_seed(seed, "negative control") % 2**31
    known = never_trained(FAMILY, random)
    group = known.data.groups.names[known.data.minority[0]]
    of_layer = SETTINGS.model_copy(update={"tensors": (FIRST_LAYER[FAMILY][0],), "group": (group,)})
    return _asked("negative", known, random, of_layer)


def _asked(
    control: Literal["positive", "negative"], known: KnownNetwork, seed: int, settings: StudySettings
) -> KnownAnswer:
    with on_one_thread():
        study = study_in_memory(known.model, known.data, settings.model_copy(update={"seed": seed}))
    if known.units is None:
        raise ValueError(f"a network of kind {known.kind} has no known channels")
    channels = tuple(str(known.units).split(","))
    effects = study.effects()
    tests = effects[(effects["split"] == "train") & effects["minority"]]
    first = _strongest(tests)
    unseen = effects[
        (effects["split"] == "test")
        & (effects["selected_set"] == first["selected_set"])
        & (effects["group"] == first["group"])
    ]
    return KnownAnswer(
        control=control,
        seed=seed,
        layer=channels[0].rpartition(":")[0],
        planted=channels if control == "positive" else (),
        group=first["group_name"],
        n_tests=len(tests),
        verdict=first["verdict"],
        units=tuple(first["units"].split(",")),
        train_change=first["tested_accuracy_change"],
        unseen_change=unseen["tested_accuracy_change"].item(),
        null_changes=_null_changes(study, first),
        p_memorizing=None if pd.isna(first["p_memorizing"]) else first["p_memorizing"],
    )


def _strongest(tests: pd.DataFrame) -> pd.Series:
    """The test with the strongest verdict; of several, that with the largest drop."""
    ranked = tests.assign(rank=[VERDICTS.index(verdict) for verdict in tests["verdict"]])
    return ranked.sort_values(["rank", "tested_accuracy_change"], kind="stable").iloc[0]


def _null_changes(study: Study, first: pd.Series) -> tuple[float, ...]:
    changes = study.control_changes()
    of_set = changes[
        (changes["selected_set"] == first["selected_set"])
        & (changes["split"] == "train")
        & (changes["group"] == first["group"])
    ]
    return tuple(of_set["accuracy_change"].tolist())
