"""The training images with the highest memorization scores."""

from __future__ import annotations

from dataclasses import dataclass

from ...datasets.samples import Dataset
from ...memorization.scores import MemorizationScores
from ..tables.memorization_tables import most_memorized
from ..tables.number_formats import format_value

PER_GROUP = 6
"""Images of each group."""


@dataclass(frozen=True, kw_only=True)
class MemorizedImage:
    """A training image and its memorization score.

    Arguments:
        sample: in the data set.
        path: of the file.
        group: its name.
        is_minority: whether this is a minority group.
        label: text below the image: the score and its standard error.
    """

    sample: int
    path: str
    group: str
    is_minority: bool
    label: str


def most_memorized_images(scores: MemorizationScores, data: Dataset) -> list[MemorizedImage]:
    """The images of each minority group with the highest scores; those of all groups if there is no minority.

    Arguments:
        scores: of the training samples.
        data: the same data, with images.
    """
    rows = scores.scores()
    rows = rows[rows["minority"]] if rows["minority"].any() else rows
    first = [most_memorized(of_group, PER_GROUP) for _, of_group in rows.groupby("group")]
    return [
        MemorizedImage(
            sample=int(row.sample),
            path=str(row.path),
            group=str(row.group_name),
            is_minority=bool(row.minority),
            label=f"{format_value(row.score, 'decimal')} ±{format_value(row.standard_error, 'decimal')}",
        )
        for of_group in first
        for row in of_group.itertuples()
        if row.sample < len(data)
    ]
