"""Memorization scores of a data folder: networks trained on random parts of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..atomic import write_parquet, write_text
from ..console import labeled, log
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..datasets.texts import Texts
from ..errors import UserError
from ..locks import check_holds_only, locked
from ..networks.build import with_own_transform
from ..remote_folders import local_folder
from ..runs.evaluate import predict
from ..runs.records import DataRecord, check_same_settings, data_record
from ..runs.run import Run
from ..schedulers.scheduler import announced, workers_for
from ..stored_files import Columns, StoredFileError, checked_record, is_stored, read_frame, read_json
from ..training.loop import train_in_memory
from ..training.objective import Training
from ..training.recipes import expanded
from ..training.settings import TrainExecution, TrainingsExecution, TrainSettings
from ..training.starting_network import starting_network
from ..training.train import check_network, network_settings
from .estimates import MEMORIZED, estimated_scores
from .settings import MemorizationSettings
from .subsets import drawn_subset, resampled_groups

REMEDY = "delete it and run the same command again"

OWN_FILES = ("samples.parquet", "networks")
"""What a folder may hold whose `memorization.json` was deleted."""

ANSWERS: Columns = {"sample": "count", "is_in": "flag", "correct": "flag", "p_label": "share"}

SAMPLES: Columns = {
    "sample": "count",
    "path": "text or none",
    "label": "text",
    "group": "count",
    "group_name": "text",
    "minority": "flag",
}


class MemorizationRecord(BaseModel):
    """What `memorization.json` holds.

    Arguments:
        settings: of the trainings.
        data: on which the networks were trained.
    """

    model_config = ConfigDict(extra="forbid")

    settings: MemorizationSettings
    data: DataRecord


@dataclass(frozen=True)
class MemorizationScores:
    """The folder with memorization scores that `memorization_scores` makes.

    Arguments:
        path: the folder.

    Example:
        ```python
        scores = sm.MemorizationScores("scores").scores()
        scores.nlargest(10, "score")[["path", "group_name", "score", "standard_error"]]
        ```
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", local_folder(path))

    def __repr__(self) -> str:
        return f"<MemorizationScores {self.path}>"

    @cached_property
    def record(self) -> MemorizationRecord:
        """The content of `memorization.json`.

        Raises:
            UserError: the file is missing or broken.
        """
        file = self.record_file
        if not is_stored(file):
            raise UserError(f"{self.path} holds no memorization scores: make them with `spurmem memorization`")
        return checked_record(file, read_json(file, REMEDY), MemorizationRecord, REMEDY)

    @property
    def record_file(self) -> Path:
        return self.path / "memorization.json"

    def samples(self) -> pd.DataFrame:
        """The training samples, one row each: sample (index in the data set), path, label, group, group_name, minority.

        Raises:
            UserError: the file is missing or broken.
        """
        return self._frame(self.path / "samples.parquet", SAMPLES)

    def answers(self, network: int) -> pd.DataFrame:
        """The answers of one network: sample, is_in (was it trained on the sample), correct, p_label (probability that
        it gives the label).

        Raises:
            UserError: the file is missing or broken.
        """
        return self._frame(self._answers_file(network), ANSWERS)

    def answers_to(self, samples: NDArray[np.int64], network: int) -> pd.DataFrame:
        """The answers of one network, if they are to these samples.

        Raises:
            UserError: the file is missing or broken, or has other samples.
        """
        answers = self.answers(network)
        if not np.array_equal(answers["sample"], samples):
            raise StoredFileError(f"{self._answers_file(network)} has other samples: {REMEDY}")
        return answers

    def networks(self) -> list[int]:
        """Numbers of the networks that were trained."""
        files = (self.path / "networks").glob("network_*.parquet")
        found = (re.fullmatch(r"network_(\d{3,6})\.parquet", file.name) for file in files)
        return sorted(int(name[1]) for name in found if name)

    def scores(self) -> pd.DataFrame:
        """The memorization score of each training sample.

        Returns:
            One row per sample: the columns of `samples`, and those of `Estimates`: score, standard_error,
            accuracy_in, accuracy_out, n_in, n_out.

        Raises:
            UserError: fewer than two networks were trained, or a file is broken.
        """
        samples, is_in, correct = self._all_answers()
        return samples.assign(**vars(estimated_scores(is_in, correct)))

    def groups(self) -> pd.DataFrame:
        """Scores by group.

        Returns:
            One row per group with scores: group, group_name, minority, n, score (mean), standard_error (of the mean, by
            the jackknife over networks; nan if they are too few), memorized (share of the samples with a score of at
            least 0.25), accuracy_in, accuracy_out.
        """
        samples, is_in, correct = self._all_answers()
        scores = samples.assign(**vars(estimated_scores(is_in, correct))).dropna(subset="score")
        by_group = scores.groupby(["group", "group_name", "minority"], as_index=False)
        means = by_group[["score", "accuracy_in", "accuracy_out"]].mean()
        one_less = pd.DataFrame(
            [
                pd.Series(estimated_scores(is_in[rows], correct[rows]).score).groupby(samples["group"]).mean()
                for rows in ~np.eye(len(is_in), dtype=bool)
            ]
        )
        errors = np.sqrt((len(is_in) - 1) * one_less.var(ddof=0, skipna=False))
        return means.assign(
            n=by_group.size()["size"],
            standard_error=errors[means["group"]].to_numpy(),
            memorized=by_group["score"].agg(lambda of: (of >= MEMORIZED - 1e-9).mean())["score"],
        )

    def _all_answers(self) -> tuple[pd.DataFrame, NDArray[np.bool_], NDArray[np.bool_]]:
        """The samples; whether each network was trained on each of them, and is correct, [networks, samples]."""
        numbers, samples = self.networks(), self.samples()
        if len(numbers) < 2:
            raise UserError(f"{self.path} holds {len(numbers)} networks: scores need two, so run the command again")
        answers = [self.answers_to(samples["sample"].to_numpy(), number) for number in numbers]
        is_in, correct = (np.array([of[name].to_numpy(bool) for of in answers]) for name in ("is_in", "correct"))
        return samples, is_in, correct

    def save_answers(self, network: int, answers: pd.DataFrame) -> None:
        """Store the answers of one network."""
        write_parquet(self._answers_file(network), answers)

    def has_answers(self, network: int) -> bool:
        """Whether the answers of a network are stored."""
        return is_stored(self._answers_file(network))

    def _answers_file(self, network: int) -> Path:
        return self.path / "networks" / f"network_{network:03d}.parquet"

    def _frame(self, file: Path, columns: Columns) -> pd.DataFrame:
        if not is_stored(file):
            raise StoredFileError(f"{file} does not exist: run `spurmem memorization` again")
        return read_frame(file, columns, REMEDY, key=("sample",))


def memorization_scores(
    folder: str | Path,
    out: str | Path,
    settings: MemorizationSettings | None = None,
    *,
    execution: TrainingsExecution | None = None,
) -> MemorizationScores:
    """Measure how far each training sample is memorized: is it right only if a network was trained on it?

    Several networks are trained by empirical risk minimization, each on a random part of every group. Their answers are
    stored network by network, so that a stopped call continues. With `start`, all networks continue from one
    checkpoint, and only minority samples are left out: for networks that are too large to be trained many times.

    Arguments:
        folder: the data folder.
        out: where the answers are stored.
        settings: what changes the result.
        execution: device, workers, batch size of evaluation, and where the networks are trained.

    Returns:
        The scores.

    Raises:
        UserError: data, network or weights are not usable; the folder holds scores with other settings, broken files,
            or something else; another command is writing it.

    Example:
        ```python
        settings = sm.MemorizationSettings(model="resnet18", networks=24, epochs=8)
        sm.memorization_scores("birds", "scores", settings).groups()
        ```
    """
    settings = settings or MemorizationSettings()
    data = read_with_settings(Path(folder), settings)
    config, execution = _training_settings(settings, data), execution or TrainingsExecution()
    data = with_own_transform(data, network_settings(config, data))
    resampled = resampled_groups(data, minority_only=settings.start is not None)
    result = MemorizationScores(out)
    record = MemorizationRecord(settings=settings, data=data_record(data, Path(folder), settings))
    with locked(result.path):
        _check_stored(result, record, data)
        missing = [number for number in range(settings.networks) if not result.has_answers(number)]
        if missing:
            check_network(config, data, execution.of_each)
        _begin(result, record, data)
        if missing:
            part = drawn_subset(data, 0, share=settings.share, seed=settings.seed, resampled=resampled)
            each = f"{config.epochs} epochs on {len(part.train)} of {len(data.train)} training samples"
            log(f"{len(missing)} of {settings.networks} networks to train, each for {each}")
            make = partial(_answering, data, config, settings, resampled, execution.of_each, result.path)
            names = [f"network {number}" for number in missing]
            with workers_for(execution, make) as workers:
                for place, answers in announced(workers.run(missing), names):
                    result.save_answers(missing[place], answers)
    return result


def _check_stored(result: MemorizationScores, record: MemorizationRecord, data: Dataset) -> None:
    """Check, before any training, that all stored networks were trained with these settings, and their answers are
    whole. Their number may differ."""
    if is_stored(result.record_file):
        may_differ = {"settings": {"networks"}, "data": {"folder"}}
        old, new = (of.model_dump(mode="json", exclude=may_differ) for of in (result.record, record))
        check_same_settings(old, new, f"memorization {result.path}")
    else:
        check_holds_only(result.path, OWN_FILES)
    for number in result.networks():
        result.answers_to(data.train.index, number)


def _begin(result: MemorizationScores, record: MemorizationRecord, data: Dataset) -> None:
    """Store what all networks have in common."""
    train, source = data.train, data.source
    write_parquet(
        result.path / "samples.parquet",
        pd.DataFrame(
            {
                "sample": train.index,
                "path": [source.paths[i] if isinstance(source, Images | Texts) else None for i in train.index],
                "label": [data.groups.classes[y] for y in train.y],
                "group": train.g,
                "group_name": [data.groups.names[g] for g in train.g],
                "minority": np.isin(train.g, data.minority),
            }
        ),
    )
    write_text(result.record_file, record.model_dump_json(indent=2) + "\n")


def _training_settings(settings: MemorizationSettings, data: Dataset) -> TrainSettings:
    """The settings of every network's training, but its seed."""
    return expanded(TrainSettings(**settings.given(), start=settings.start), data)


def _answering(
    data: Dataset,
    config: TrainSettings,
    settings: MemorizationSettings,
    resampled: NDArray[np.int64],
    execution: TrainExecution,
    path: Path,
) -> Callable[[int], pd.DataFrame]:
    """What a worker holds: a function that trains the network of a number, and gives its answers."""

    def answers(number: int) -> pd.DataFrame:
        with labeled(f"network {number}"):
            return _answers(data, config, settings, number, resampled, execution, path)

    return answers


def _answers(
    data: Dataset,
    config: TrainSettings,
    settings: MemorizationSettings,
    number: int,
    resampled: NDArray[np.int64],
    execution: TrainExecution,
    path: Path,
) -> pd.DataFrame:
    """Train one network, and what it answers to all training samples."""
    config = config.model_copy(update={"seed": settings.seed + number})
    part = drawn_subset(data, number, share=settings.share, seed=settings.seed, resampled=resampled)
    torch.manual_seed(config.seed)
    model = starting_network(config, network_settings(config, data)).model
    config = config.model_copy(update={"objective": config.objective.expanded(config.recipe, model)})
    train_in_memory(Training(run=Run(path), config=config, data=part, measured=data, model=model, execution=execution))
    name = f"network {number} of {path}"
    p, _ = predict(
        model,
        data.train,
        precision=config.known_precision,
        execution=execution,
        network=name,
        remedy="train again with a lower --lr",
    )
    y = data.train.y
    return pd.DataFrame(
        {
            "sample": data.train.index,
            "is_in": part.split[data.train.index] == "train",
            "correct": p.argmax(1) == y,
            "p_label": p[np.arange(len(y)), y].astype(float),
        }
    )
