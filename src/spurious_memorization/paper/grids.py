"""The grids of You et al. (2025), one settings file per study, data set and network, and their smaller scales."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml
from pydantic import Field

from ..criteria.names import needs_samples
from ..datasets.samples import SPLITS
from ..datasets.settings import SynthbirdsSettings
from ..edits.edit import parse_edit
from ..errors import UserError
from ..settings import Settings
from ..studies.settings import StudySettings, parse_sizes
from ..training.settings import TrainSettings, with_changes
from .settings import ScaleName
from .training_settings import starts_pretrained


class Grid(Settings):
    """One settings file: a study of the paper on one data set with one network.

    Arguments:
        about: what the paper's code does here, in one sentence.
        dataset: the data set that it needs.
        epoch: epoch of the network that is studied or fine-tuned, counted from 0 as in the research code.
        training: settings of training the network by ERM.
        studies: settings of the studies of that network.
        fine_tuning: settings of fine-tuning that network; None if the grid has no fine-tuning.
    """

    about: str
    dataset: Literal["waterbirds", "celeba"]
    epoch: int = Field(ge=0)
    training: TrainSettings
    studies: tuple[StudySettings, ...] = ()
    fine_tuning: TrainSettings | None = None

    @property
    def n_edited(self) -> int:
        """Number of edited networks that are measured, each on the samples of one split."""
        return sum(_edited(settings) for settings in self.studies)

    @property
    def starts_pretrained(self) -> bool:
        """Whether ERM training starts from published weights."""
        return starts_pretrained(self.training)

    def only(self, modes: tuple[str, ...], splits: tuple[str, ...]) -> Grid:
        """The grid with the studies of these kinds of edit on these splits only.

        Arguments:
            modes: kinds of edit; all if empty.
            splits: splits; all if empty.

        Raises:
            UserError: the grid has no such study.
        """
        kept = tuple(
            settings
            for settings in self.studies
            if (not modes or parse_edit(settings.edit[0]).kind in modes) and (not splits or settings.split[0] in splits)
        )
        if (modes or splits) and not kept:
            has = {f"{parse_edit(settings.edit[0]).kind} on {settings.split[0]}" for settings in self.studies}
            raise UserError(f"this grid has no such study: choose among {', '.join(sorted(has)) or 'none'}")
        return self.model_copy(update={"studies": kept})


class Scale(Settings):
    """A smaller version of the grids: generated images, a smaller network of the same family, fewer epochs.

    Arguments:
        images: images that are generated if no data folder is given.
        networks: {network of the paper: network to use instead}.
        training: settings of ERM training that replace the grid's.
        fine_tuning: settings of fine-tuning that replace the grid's.
        rewinds: {epochs to go back in the paper: epochs to use instead}.
        repeats: largest number of repeats of a random edit; None for the grid's number.
    """

    images: SynthbirdsSettings
    networks: dict[str, str]
    training: dict[str, Any]
    fine_tuning: dict[str, Any]
    rewinds: dict[int, int] = Field(default_factory=dict)
    repeats: int | None = None

    def apply_to(self, grid: Grid) -> Grid:
        """The grid at this scale."""
        network = self.networks[grid.training.model]
        fine_tuning = grid.fine_tuning and with_changes(grid.fine_tuning, **{**self.fine_tuning, "model": network})
        return grid.model_copy(
            update={
                "training": with_changes(grid.training, **{**self.training, "model": network}),
                "studies": tuple(self._study(settings) for settings in grid.studies),
                "fine_tuning": fine_tuning,
            }
        )

    def _study(self, settings: StudySettings) -> StudySettings:
        edits = [parse_edit(text) for text in settings.edit]
        changed = {
            "edit": tuple(
                f"rewind:epochs={self.rewinds.get(edit.parameters['epochs'], edit.parameters['epochs'])}"
                if edit.kind == "rewind"
                else str(edit)
                for edit in edits
            ),
            "repeats": min(settings.repeats, self.repeats or settings.repeats),
        }
        return settings.model_copy(update=changed)


def grid_names() -> list[str]:
    """Names of all grids, in alphabetical order."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder("grids").iterdir() if file.name.endswith(".yaml"))


@cache
def read_grid(name: str) -> Grid:
    """The grid of this name.

    Raises:
        UserError: there is no grid of this name.
    """
    names = grid_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"there is no study {name!r}: {hint}`spurmem reproduce --list` shows all names")
    return Grid(**_read(_folder("grids") / f"{name}.yaml"))


@cache
def read_scale(name: ScaleName) -> Scale | None:
    """The scale of this name; None for full, which leaves the grid as it is."""
    return None if name == "full" else Scale(**_read(_folder("scales") / f"{name}.yaml"))


def _read(file: Traversable) -> dict[str, Any]:
    """The entries of a file without those that begin with a dot, which hold what several others share."""
    entries: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: value for name, value in entries.items() if not name.startswith(".")}


def _folder(name: str) -> Traversable:
    return files(__package__) / name


def _edited(settings: StudySettings) -> int:
    edits = sum(settings.repeats if parse_edit(text).is_random else 1 for text in settings.edit)
    groups = 4 if needs_samples(settings.criterion[0]) else 1
    splits = sum(split in SPLITS for split in settings.split)
    return edits * groups * splits * len(parse_sizes(settings.size, settings.unit))
