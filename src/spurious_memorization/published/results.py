"""Published accuracies, one line of `results.csv` per data set, method and paper.

Accuracies are shares. Each line names the paper of the experiment (source), and where its figure was read if that is
another place (collected_by).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from ..settings import Settings
from .lines import OptionalShare, Share, Words, read_lines

DataSetName = Literal["waterbirds", "celeba", "multinli", "civilcomments"]
DATA_SETS: tuple[str, ...] = get_args(DataSetName)

FOLDER = Path(__file__).parent


class PublishedResult(Settings):
    """A published accuracy.

    Arguments:
        data_set, method: what was trained, on what.
        worst_group, worst_group_std: mean and standard deviation of worst-group accuracy on test.
        average, average_std: of the average accuracy on test. On Waterbirds, papers weight the groups as in training.
        groups_in_training: whether the method knows the groups of training samples.
        groups_in_validation: whether it knows those of validation samples: no, to choose settings and epochs, or also
            to fit on them.
        source: the paper of the experiment.
        collected_by: where the figure was read; empty if the authors of the source published it there.
    """

    data_set: DataSetName
    method: Words
    worst_group: Share
    worst_group_std: OptionalShare
    average: OptionalShare
    average_std: OptionalShare
    groups_in_training: bool
    groups_in_validation: Literal["no", "to choose", "to fit"]
    source: Words
    collected_by: str = Field(max_length=200)


@cache
def all_results() -> tuple[PublishedResult, ...]:
    """All published accuracies that come with this package."""
    return read_lines(FOLDER / "results.csv", PublishedResult)
