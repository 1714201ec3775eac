"""The commands of this tool that train a published method on a data set, from `commands.csv`."""

from __future__ import annotations

import shlex
from functools import cache

from ..settings import Settings
from ..training.find_objective import objective_names
from .lines import Words, read_lines
from .results import FOLDER, DataSetName

FLAG = "--objective"


class TrainingCommand(Settings):
    """A command. A method with two stages has two of them, one after the other.

    Arguments:
        data_set, method: what it trains, on what.
        command: as it is typed.
        settings_from: where learning rate, epochs and the like come from.
    """

    data_set: DataSetName
    method: Words
    command: Words
    settings_from: Words

    @property
    def objective(self) -> str:
        """Name of the objective."""
        words = shlex.split(self.command)
        return words[words.index(FLAG) + 1].partition(":")[0]


@cache
def all_commands() -> tuple[TrainingCommand, ...]:
    """The commands of every method whose objectives this version has."""
    commands = read_lines(FOLDER / "commands.csv", TrainingCommand)
    known = set(objective_names())
    unknown = {(one.data_set, one.method) for one in commands if one.objective not in known}
    return tuple(one for one in commands if (one.data_set, one.method) not in unknown)
