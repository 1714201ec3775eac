"""The result files of the research code of You et al. (2025): their names and exact format, from a study's counts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..atomic import write_text
from ..criteria.scores import read_scores, top
from ..errors import UserError
from ..runs.run import Run
from ..studies.ranking_settings import RankingSettings
from ..studies.rankings import ranking_file
from ..studies.study import Study

_HEADING = "modified neurons name, index and value"
_OF_GROUP = "model modified based on gradient from loss with only group {}s samples"
_GROUP_LINE = re.compile(_OF_GROUP.format(r"(\d+)"))

Channel = tuple[str, int, float]
Accuracies = tuple[float, ...]


@dataclass(frozen=True)
class Modified:
    """One selected set of a result file.

    Arguments:
        channels: parameter name, index and value of each channel, where the value is the norm of its weights or of
            their gradient; empty for single weights.
        group: index of the group whose hardest samples they were selected on; None if the criterion needs no samples.
        after: accuracy per group after the edit, one entry per repeat.
    """

    channels: tuple[Channel, ...]
    group: int | None
    after: tuple[Accuracies, ...]


@dataclass(frozen=True)
class ResultFile:
    """The content of a result file: accuracy per group before the edit, and what was modified.

    Arguments:
        before: accuracy per group before the edit.
        modified: one entry; if channels were selected on a group's samples, one entry per group.
    """

    before: Accuracies
    modified: tuple[Modified, ...]

    def text(self) -> str:
        """The text as the research code writes it, with four decimals per accuracy."""
        lines = [_accuracies(self.before), _HEADING]
        for one in self.modified:
            lines += [f"{name}, {index}, {value!r}" for name, index, value in one.channels]
            lines += [] if one.group is None else [_OF_GROUP.format(one.group)]
            lines += [_accuracies(after) for after in one.after]
        return "\n".join(lines) + "\n"

    def drops(self) -> list[NDArray[np.float64]]:
        """Drop per group, shape [groups], for each entry of `modified`.

        It is the first line minus the mean over repeats, as the research code's README tells its readers to report.
        """
        before = np.array(self.before)
        return [before - np.array(one.after).mean(axis=0) for one in self.modified]


def parse_result(text: str) -> ResultFile:
    """Read the text of a result file.

    Raises:
        UserError: a line has another format.
    """
    lines = text.splitlines()
    if len(lines) < 3 or lines[1] != _HEADING:
        raise UserError(f"this is not a result file: its second line must be {_HEADING!r}")
    modified: list[Modified] = []
    channels: list[Channel] = []
    after: list[Accuracies] = []
    group: int | None = None

    def close() -> None:
        if after:
            modified.append(Modified(tuple(channels), group, tuple(after)))
            channels.clear()
            after.clear()

    for line in lines[2:]:
        values = line.split(", ")
        if match := _GROUP_LINE.fullmatch(line):
            close()
            group = int(match[1])
        elif len(values) == 3 and not re.match(r"[\d.]|nan", values[0]):
            close()
            channels.append((values[0], int(values[1]), float(values[2])))
        else:
            after.append(_numbers(line))
    close()
    return ResultFile(_numbers(lines[0]), tuple(modified))


def read_result(file: Path) -> ResultFile:
    """Read a result file; errors are those of `parse_result`."""
    return parse_result(file.read_text(encoding="utf-8"))


def result_files(run: Run, study: Study, split: str) -> dict[str, ResultFile]:
    """The result files of a study for one split, by file name: one file per size and edit.

    Arguments:
        run: the run that was studied.
        study: a study by weight norm or by gradient, with any number of sizes and edits.
        split: a split that was measured.
    """
    record = study.record
    rankings = [RankingSettings(**ranking) for ranking in record["rankings"]]
    variants, counted = study.variants(), study.results()
    variants = variants[(variants["family"] == "selected") & (variants["fold"] == -1)]
    counted = counted[(counted["split"] == split) & (counted["subset"] == "all")]
    sums = counted.groupby(["variant", "group"])[["n", "correct_before", "correct_after"]].sum()
    files: dict[str, ResultFile] = {}
    for (kind, parameters, size), chosen in variants.groupby(["kind", "parameters", "size"], sort=False):
        name = file_name(record["settings"], kind, parameters, size)
        modified = []
        for ranking in rankings:
            own = chosen[chosen["group"].isna() if ranking.group is None else chosen["group"] == ranking.group]
            own = own.sort_values("repeat")
            group = None if ranking.group is None else run.record.data.groups.index(ranking.group)
            after = tuple(_of_groups(sums.loc[variant], "correct_after") for variant in own["variant"])
            modified.append(Modified(_channels(run, ranking, record["settings"], size), group, after))
        before = _of_groups(sums.loc[chosen["variant"].iloc[0]], "correct_before")
        files[name] = ResultFile(before, tuple(modified))
    return files


def write_result_files(run: Run, study: Study, split: str, folder: Path) -> list[Path]:
    """Write the result files of a study for one split into a folder, and return their paths."""
    written = []
    for name, content in result_files(run, study, split).items():
        write_text(folder / name, content.text())
        written.append(folder / name)
    return written


def file_name(settings: Mapping[str, Any], kind: str, parameters: str, size: str) -> str:
    """Name of the result file for one edit and size.

    Arguments:
        settings: settings of the study, as it stores them.
        kind, parameters, size: values from `variants.parquet` or `effects.parquet`.
    """
    options = json.loads(parameters)
    how = f"_std{options['std']}" if "std" in options else ""
    how += f"_{options['epochs']}epochs_back" if "epochs" in options else ""
    if settings["unit"] == "weight":
        share = float(size.removesuffix("%")) / 100
        return f"{kind}_{share}{how}_global_{'smallest' if settings['smallest'] else 'largest'}_neuron.txt"
    if settings["criterion"][0] == "gradient":
        return f"{kind}_poorest_random_batch{settings['n_hardest']}{how}_global_top{size}_most_activated_neuron.txt"
    return f"{kind}{how}_global_top{size}_largest_neuron.txt"


def _channels(run: Run, ranking: RankingSettings, settings: Mapping[str, Any], size: str) -> tuple[Channel, ...]:
    if settings["unit"] == "weight":
        return ()
    scores = read_scores(ranking_file(run, ranking))
    units = top(scores, int(size), largest=not settings["smallest"])
    return tuple((name, index, float(scores[name][index])) for name, index in units)


def _of_groups(sums: pd.DataFrame, column: str) -> Accuracies:
    n = sums["n"].to_numpy(float)
    return tuple(np.divide(sums[column], n, out=np.full(len(n), np.nan), where=n > 0).tolist())


def _accuracies(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _numbers(line: str) -> Accuracies:
    try:
        return tuple(float(value) for value in line.split(", "))
    except ValueError as error:
        raise UserError(f"this is not a result file: {line!r} must hold accuracies") from error
