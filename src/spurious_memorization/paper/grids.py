"""The grids of You et al. (2025) as settings files, one a study, data set and network, and smaller scales of them."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml
from pydantic import Field

from ..datasets.samples import SPLITS
from ..datasets.synthbirds.make import SynthbirdsSettings
from ..edits.edit import parse_edit
from ..errors import UserError
from ..settings import Settings
from ..studies.ranking_settings import needs_samples
from ..studies.settings import StudySettings, parse_sizes
from ..training.recipes import TrainSettings, replaced
from .arguments import starts_pretrained

ScaleName = Literal["full", "small", "tiny"]


class Grid(Settings):
    """One settings file: a study of the paper on one data set with one network.

    Arguments:
        about: what the paper's code does here, in a sentence.
        dataset: that it needs.
        epoch: of the network that is studied or fine-tuned, as the research code counts, from 0.
        training: of the network by ERM.
        studies: of that network.
        fine_tuning: of that network; None for none.
    """

    about: str
    dataset: Literal["waterbirds", "celeba"]
    epoch: int = Field(ge=0)
    training: TrainSettings
    studies: tuple[StudySettings, ...] = ()
    fine_tuning: TrainSettings | None = None

    @property
    def n_edited(self) -> int:
        """Edited networks that are measured, each on the samples of one split."""
        return sum(_edited(settings) for settings in self.studies)

    @property
    def starts_pretrained(self) -> bool:
        """ERM training starts from published weights."""
        return starts_pretrained(self.training)

    def only(self, modes: tuple[str, ...], splits: tuple[str, ...]) -> Grid:
        """The studies of these kinds of edit, on these splits; all where none are named.

        Raises:
            UserError: there is no such study here.
        """
        kept = tuple(
            settings
            for settings in self.studies
            if (not modes or parse_edit(settings.edit[0]).kind in modes) and (not splits or settings.split[0] in splits)
        )
        if (modes or splits) and not kept:
            has = {f"{parse_edit(settings.edit[0]).kind} on {settings.split[0]}" for settings in self.studies}
            raise UserError(f"there is no such study here: choose among {', '.join(sorted(has)) or 'none'}")
        return self.model_copy(update={"studies": kept})


class Scale(Settings):
    """What makes a grid smaller: generated images, a smaller network of the same family, fewer epochs.

    Arguments:
        images: that are drawn where no data folder is named.
        networks: {network of the paper: the one in its place}.
        training: settings in place of the grid's; of ERM.
        fine_tuning: the same of fine-tuning.
        rewinds: {epochs of the paper: epochs in their place}.
        repeats: at most so many of each random edit; None for the grid's.
    """

    images: SynthbirdsSettings
    networks: dict[str, str]
    training: dict[str, Any]
    fine_tuning: dict[str, Any]
    rewinds: dict[int, int] = Field(default_factory=dict)
    repeats: int | None = None

    def of(self, grid: Grid) -> Grid:
        """The grid at this scale."""
        network = self.networks[grid.training.model]
        fine_tuning = grid.fine_tuning and replaced(grid.fine_tuning, **{**self.fine_tuning, "model": network})
        return grid.model_copy(
            update={
                "training": replaced(grid.training, **{**self.training, "model": network}),
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
    """Names of all settings files, in order."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder("grids").iterdir() if file.name.endswith(".yaml"))


@cache
def read_grid(name: str) -> Grid:
    """The grid of this name.

    Raises:
        UserError: there is none.
    """
    names = grid_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"do you mean {close[0]}? " if close else ""
        raise UserError(f"the paper has no study {name!r} here: {hint}`spurmem reproduce --list` shows all")
    return Grid(**_read(_folder("grids") / f"{name}.yaml"))


@cache
def read_scale(name: ScaleName) -> Scale | None:
    """The scale of this name; None for full, which changes nothing."""
    return None if name == "full" else Scale(**_read(_folder("scales") / f"{name}.yaml"))


def _read(file: Traversable) -> dict[str, Any]:
    """The entries of a file but those that begin with a dot: they only stand for what several others share."""
    entries: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: value for name, value in entries.items() if not name.startswith(".")}


def _folder(name: str) -> Traversable:
    return files(__package__) / name


def _edited(settings: StudySettings) -> int:
    edits = sum(settings.repeats if parse_edit(text).is_random else 1 for text in settings.edit)
    groups = 4 if needs_samples(settings.criterion[0]) else 1
    splits = sum(split in SPLITS for split in settings.split)
    return edits * groups * splits * len(parse_sizes(settings.size, settings.unit))
