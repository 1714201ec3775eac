"""What the groups look like: a few images of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...datasets.candidate_groups import ATYPICAL, words_file
from ...datasets.samples import Dataset
from ...datasets.sources import Images
from ...datasets.tables import path_within
from ...datasets.text_tables import read_text_table
from ...datasets.texts import Texts
from ...errors import UserError
from ...input_files import shown
from ...runs.run import Run
from ...statistics.sequential import LEVEL
from ..tables.discovery_tables import words_of_groups
from ..tables.number_formats import format_value

PER_GROUP = 4
"""Images of each group."""

MAX_GROUPS = 12

PER_CANDIDATE_GROUP = 8
"""Images of each group that was discovered."""

MAX_CANDIDATE_CLASSES = 12

SCORE = "minority_score"
"""The column of a table of candidate groups that says how much a sample is like a minority sample of its class."""

WORD_COLUMNS = {"group", "n", "word", "fits_better"}
"""Columns of the stored words that are shown."""


@dataclass(frozen=True, kw_only=True)
class GroupImages:
    """Images of one group.

    Arguments:
        name: of the group.
        is_minority: whether this is a minority group.
        counts: number of samples in each split.
        samples: the shown ones, in their order.
        labels: text below each image: its minority score; "" without one.
        words: that fit the images better than the others of the class; None if they were not measured.
    """

    name: str
    is_minority: bool
    counts: Mapping[str, int]
    samples: tuple[int, ...]
    labels: tuple[str, ...]
    words: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupGallery:
    """Images of the groups of runs with the same data.

    Arguments:
        runs: directories of the runs.
        data: with images.
        groups: in the order of the page. Of groups that were discovered, those of one class stand together.
        caption: what the groups are, and which images of them are shown.
    """

    runs: tuple[str, ...]
    data: Dataset
    groups: tuple[GroupImages, ...]
    caption: str


def group_galleries(opened: Sequence[tuple[Run, Dataset]]) -> tuple[GroupGallery, ...]:
    """One gallery for all runs with the same data and the same minority groups.

    Arguments:
        opened: runs, and their data with images.
    """
    alike: dict[tuple[object, ...], list[tuple[Run, Dataset]]] = {}
    for run, data in opened:
        record = run.record.data
        alike.setdefault((record.fingerprint, record.minority, record.candidate_table), []).append((run, data))
    galleries = []
    for same in alike.values():
        first, data = same[0]
        table, runs = first.record.data.candidate_table, tuple(run.place for run, _ in same)
        galleries.append(_given(runs, data) if table is None else _discovered(runs, data, table))
    return tuple(galleries)


def minority_scores(data: Dataset, file: Path) -> NDArray[np.float64] | None:
    """The minority score of each sample, [samples], from a table of candidate groups; nan where it has none.

    Arguments:
        data: whose images the table lists.
        file: the table.

    Returns:
        The scores; None if the table is gone, or has no scores.
    """
    if not isinstance(data.source, Images | Texts):
        return None
    try:
        table = read_text_table(file)
        if not {"path", SCORE} <= set(table):
            return None
        paths = [path_within(data.source.root, path) for path in table["path"]]
    except UserError:
        return None
    score_of = dict(zip(paths, pd.to_numeric(table[SCORE], errors="coerce"), strict=True))
    found = np.array([score_of.get(path, np.nan) for path in data.source.paths], np.float64)
    return found if np.isfinite(found).any() else None


def measured_words(data: Dataset, file: Path) -> dict[str, list[str]]:
    """The words of each candidate group, if `group_words` has stored them: {name of the group: words}.

    Words that were found for groups of another size are left out: the table has changed since.

    Arguments:
        data: with the groups of the table.
        file: the table.
    """
    try:
        table = read_text_table(words_file(file))
    except UserError:
        return {}
    if not set(table) >= WORD_COLUMNS:
        return {}
    counts = dict(zip(data.groups.names, map(str, data.train_counts), strict=True))
    same = table[table["n"] == table["group"].map(counts)]
    return words_of_groups(same.assign(fits_better=same["fits_better"] == "True"))


def _given(runs: tuple[str, ...], data: Dataset) -> GroupGallery:
    """A gallery of groups that the data set gives: minority groups first."""
    split = data.splits[0]
    there = np.unique(data.samples(split).g).tolist()
    chosen = sorted(there, key=lambda group: group not in data.minority)[:MAX_GROUPS]
    caption = f"A random draw from the {data.noun}s in {split}, minority groups (*) first."
    if len(there) > len(chosen):
        caption += f" {len(chosen)} of {len(there)} groups are shown."
    groups = tuple(_of_group(data, group, _drawn(data, group, split, PER_GROUP)) for group in chosen)
    return GroupGallery(runs=runs, data=data, groups=groups, caption=caption)


def _discovered(runs: tuple[str, ...], data: Dataset, table: str) -> GroupGallery:
    """A gallery of candidate groups, class by class: the atypical images first, those with the highest scores."""
    split, classes, values = data.splits[0], data.groups.classes, data.groups.attributes
    scores, words = minority_scores(data, Path(table)), measured_words(data, Path(table))
    groups = []
    for label in range(min(len(classes), MAX_CANDIDATE_CLASSES)):
        for a in sorted(range(len(values)), key=lambda a: values[a] != ATYPICAL):
            group = label * len(values) + a
            if scores is not None and values[a] == ATYPICAL:
                samples = _highest(data, group, split, scores)
            else:
                samples = _drawn(data, group, split, PER_CANDIDATE_GROUP)
            of_group = _of_group(data, group, samples, scores)
            groups.append(replace(of_group, words=tuple(words[of_group.name]) if of_group.name in words else None))
    which = f"All are a random draw from the {data.noun}s in {split}."
    if scores is not None:
        which = (
            f"Of the {ATYPICAL} {data.noun}s in {split}, those with the highest minority score are shown; "
            "of the others, a random draw."
        )
    caption = (
        f"These groups were discovered, not given. They are candidates from {shown(table)}: look at them, and don't "
        f"take them for facts. {which}"
    )
    if words:
        caption += (
            f" The words fit a group better than the others of its class by CLIP (adjusted p at most {LEVEL:g}). They "
            "are hints, too."
        )
    if len(classes) > MAX_CANDIDATE_CLASSES:
        caption += f" The first {MAX_CANDIDATE_CLASSES} of {len(classes)} classes are shown."
    return GroupGallery(runs=runs, data=data, groups=tuple(groups), caption=caption)


def _of_group(
    data: Dataset, group: int, samples: NDArray[np.int64], scores: NDArray[np.float64] | None = None
) -> GroupImages:
    return GroupImages(
        name=data.groups.names[group],
        is_minority=group in data.minority,
        counts={split: len(_members(data, group, split)) for split in data.splits},
        samples=tuple(samples.tolist()),
        labels=tuple("" if scores is None else f"score {format_value(scores[i], 'decimal')}" for i in samples),
    )


def _members(data: Dataset, group: int, split: str) -> NDArray[np.int64]:
    return np.flatnonzero((data.g == group) & (data.split == split))


def _drawn(data: Dataset, group: int, split: str, n: int) -> NDArray[np.int64]:
    """At most `n` random samples of a group, sorted by index; the same ones in every report."""
    members = _members(data, group, split)
    return np.sort(np.random.default_rng([0, group]).permutation(members)[:n])


def _highest(data: Dataset, group: int, split: str, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The samples of a group with the highest scores. Those without a score come last."""
    members = _members(data, group, split)
    return members[np.argsort(-scores[members], kind="stable")][:PER_CANDIDATE_GROUP]
