"""A study: its settings, what was measured, and the answers. It is read from a run's folder or from memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ..datasets.samples import Dataset
from ..engine.outcomes import OUTCOMES_PER_BLOCK
from ..errors import UserError
from ..networks.names import LossName
from ..remote_folders import local_folder
from ..runs.run import Run
from ..statistics.memorized_groups import memorized_groups
from ..stored_files import StoredFileError, checked_record
from .ranking_settings import RankingSettings
from .selected_sets import SelectedSet, StudiedSets
from .settings import StudySettings
from .store import REMEDY, FolderStore, Record, Store


class StudyRecord(BaseModel):
    """What a study's `study.json` holds.

    Arguments:
        settings: of the study.
        epoch: of the network.
        rankings: with all their settings.
        edits: as they are written in words.
        loss: name of the loss.
        threshold_everywhere: whether the threshold of single weights counts all weights.
        engine: how the outcomes were measured.
        outcomes_per_block: size of its blocks, so that they are found again.
    """

    model_config = ConfigDict(extra="forbid")

    settings: StudySettings
    epoch: int = Field(ge=0)
    rankings: list[RankingSettings]
    edits: list[str]
    loss: LossName
    threshold_everywhere: bool
    engine: str
    outcomes_per_block: int = Field(OUTCOMES_PER_BLOCK, ge=1)


class Study:
    """A study. `study` and `study_in_memory` make one.

    Arguments:
        place: its folder or URL, RUN/studies/NAME, or the store that holds it.

    Example:
        ```python
        result = sm.Study("runs/first/studies/mine")
        result.effects().query("minority and split == 'train'")
        ```
    """

    def __init__(self, place: str | Path | Store) -> None:
        self.store: Store = FolderStore(local_folder(place)) if isinstance(place, str | Path) else place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and self.store == other.store

    def __hash__(self) -> int:
        return hash(self.store)

    def __repr__(self) -> str:
        return f"<Study {self.name}>"

    @property
    def path(self) -> Path:
        """Its folder.

        Raises:
            UserError: the study is in memory.
        """
        if not isinstance(self.store, FolderStore):
            raise UserError("a study in memory has no folder: make it of a run with `study`")
        return self.store.path

    @property
    def name(self) -> str:
        """The name of its folder; "in memory" where it has none."""
        return self.store.path.name if isinstance(self.store, FolderStore) else "in memory"

    @property
    def exists(self) -> bool:
        """Whether it was begun."""
        return self.store.record("study") is not None

    @property
    def is_complete(self) -> bool:
        """Whether it is finished."""
        return self.store.has_frame("effects")

    @property
    def record(self) -> Record:
        """`study.json`: settings, rankings with all their settings, epoch, and the path of the engine.

        Raises:
            UserError: there is no such study.
        """
        record = self.store.record("study")
        if record is None:
            self.check_record()
            raise UserError(f"there is no study {self.name!r}: `spurmem study` makes one")
        if isinstance(self.store, FolderStore):
            return checked_record(self.path / "study.json", record, StudyRecord, REMEDY).model_dump(mode="json")
        return record

    def check_record(self) -> None:
        """Check that what was measured has its settings.

        Raises:
            UserError: there are outcomes or effects, but no `study.json`.
        """
        if not self.exists and (self.is_complete or self.store.frame_names("outcomes")):
            raise StoredFileError(
                f"{self.path / 'study.json'} does not exist: delete its folder, then run the study again"
            )

    def variants(self) -> pd.DataFrame:
        """One row per edited network."""
        return self._frame("variants")

    def results(self) -> pd.DataFrame:
        """Counts: one row per variant, split, subset, half and group."""
        return self._frame("results")

    def effects(self) -> pd.DataFrame:
        """Accuracy changes compared with null sets, and verdicts: one row per selected set, split and group.

        Raises:
            UserError: there are none yet, or they are not those of the study's selected sets.
        """
        found = self._frame("effects")
        variants = self._frame("variants", columns=("family", "selected_set"))
        if set(found["selected_set"]) != set(variants.loc[variants["family"] == "selected", "selected_set"]):
            place = self.path / "effects.parquet" if isinstance(self.store, FolderStore) else "effects"
            raise UserError(f"{place} has other selected sets than variants.parquet: {REMEDY}")
        return found

    def groups(self) -> pd.DataFrame:
        """Which groups the network memorizes: one row per group with training samples, as `memorized_groups` makes it.

        It has no rows if the study leaves out the train split.
        """
        return self._frame("groups")

    def other_epochs(self) -> pd.DataFrame | None:
        """The same edits in other epochs: one row per selected set, epoch, split and group; None if not asked for."""
        return self.store.frame("other_epochs")

    def strongest(self) -> pd.DataFrame | None:
        """The strongest edits of selected and random units, as `strongest_edits` makes them; None if not asked for."""
        return self.store.frame("strongest")

    def groupings(self) -> pd.DataFrame | None:
        """What the study says of candidate groups as each seed of the discovery draws them, as `verdicts_by_grouping`
        makes it; None for groups that were given."""
        return self.store.frame("groupings")

    def agreement(self) -> pd.DataFrame | None:
        """How far rankings agree: one row per pair; None for single weights, and if the units were given."""
        return self.store.frame("agreement")

    def outcomes(self, split: str, part: str = "selected", *, variants: Sequence[int] | None = None) -> pd.DataFrame:
        """Predicted class, loss and margin: one row per variant and sample. Variant -1 is the unedited network.

        Arguments:
            split: of the samples.
            part: "selected", "random" or "damage"; with "_0" or "_1" what was measured on one half of the samples.
            variants: numbers of the only variants to read, from all parts, together with the unedited network.

        Raises:
            UserError: nothing of this part was measured on the split.
        """
        names = self._names_of_outcomes(split, part if variants is None else None)
        wanted = None if variants is None else [-1, *variants]
        frames = [self.store.frame(name, variants=wanted) for name in names]
        rows = pd.concat([frame for frame in frames if frame is not None], ignore_index=True)
        return rows if variants is None else rows.drop_duplicates(["variant", "sample"], ignore_index=True)

    def outcome_files(self, split: str, part: str | None = None) -> list[Path]:
        """The Parquet files of the outcomes, for programs that read them piece by piece, such as Polars and DuckDB.

        All have the columns of `outcomes`: variant and sample (int32), predicted (int16), loss and margin (float32).
        Each edited network is in one part of a split, and variant -1 is in all of them.

        Arguments:
            split: of the samples.
            part: as for `outcomes`; all parts if not given.

        Returns:
            The files in order; more may come while the study runs.

        Raises:
            UserError: nothing of this part was measured on the split; the study is in memory.
        """
        return [self.path / f"{name}.parquet" for name in self._names_of_outcomes(split, part)]

    def selected_sets(self) -> list[SelectedSet]:
        """The selected sets with their counts, in the order of the plan."""
        variants, results = self.variants(), self.results()
        sets = StudiedSets(int(results["group"].max()) + 1)
        sets.add(variants)
        sets.count(variants, results)
        return sets.selected_sets()

    def control_changes(self) -> pd.DataFrame:
        """Accuracy change of every null set, as it is compared with each selected set.

        Returns:
            One row per selected set, control, split and group: selected_set, control, split, group, accuracy_change.
        """
        frames = []
        for one in self.selected_sets():
            for split in one.null_sets.splits:
                changes = one.null_sets.changes(split)
                rows = changes.stack().rename("accuracy_change").rename_axis(["control", "group"]).reset_index()
                frames.append(rows.assign(selected_set=one.number, split=split))
        columns = ["selected_set", "control", "split", "group", "accuracy_change"]
        return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)

    def _names_of_outcomes(self, split: str, part: str | None) -> list[str]:
        """The names of the blocks of a part, or of all parts."""
        of_part = r"(selected|random|damage)(_[01])?" if part is None else re.escape(part)
        name_of_block = re.compile(rf"outcomes/{re.escape(split)}_{of_part}(_set_\d+)?(_round_\d+)?_\d+")
        names = [name for name in self.store.frame_names("outcomes") if name_of_block.fullmatch(name)]
        if not names:
            what = "outcomes" if part is None else f"outcomes of {part!r}"
            raise UserError(f"study {self.name!r} has no {what} on {split!r}")
        return names

    def _frame(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        frame = self.store.frame(name, columns=columns)
        if frame is None:
            file = self.path / f"{name}.parquet" if isinstance(self.store, FolderStore) else name
            raise UserError(f"study {self.name!r} has no {file}: run the same study again")
        return frame


def groups_of_study(data: Dataset, sets: Sequence[SelectedSet]) -> pd.DataFrame:
    """Which groups the network memorizes, from the counts before any edit.

    Arguments:
        data: labels and groups.
        sets: the selected sets of the study; each one was measured on all samples.
    """
    one = sets[0]
    return memorized_groups(data, pd.concat([one.counts(split).assign(split=split) for split in one.splits]))


def studies_of(run: Run) -> list[Study]:
    """The studies that a run holds, finished or not, by name."""
    folders = {file.parent for name in ("study.json", "effects.parquet") for file in run.path.glob(f"studies/*/{name}")}
    return [Study(folder) for folder in sorted(folders)]
