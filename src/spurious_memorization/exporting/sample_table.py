"""The samples of a run as a table: groups, answers of the network, scores, and verdicts on their groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.samples import Dataset
from ..datasets.sources import Images, Source
from ..datasets.texts import Texts
from ..errors import UserError
from ..memorization.scores import MemorizationScores
from ..reporting.gallery.group_images import minority_scores
from ..reporting.inputs import read_inputs
from ..runs.run import Run
from ..studies.groupings import strongest_test
from ..studies.study import Study

PROBABILITY = "probability of {}"
"""The column with the probabilities of a class."""


def sample_table(
    run: Run | str | Path,
    *,
    epoch: str | int = "best",
    study: str | None = None,
    memorization: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> pd.DataFrame:
    """All samples of a run: their groups, the network's answers, and what was measured on them.

    Arguments:
        run: the run, or its folder.
        epoch: "best" (by the run's validation rule), "last" or a number.
        study: name of the study whose verdicts are shown; the latest one of this epoch if not given.
        memorization: folder with memorization scores of the same data.
        data_folder: the run's data folder, if it was moved.

    Returns:
        One row per sample: sample (its index), path, text and text_pair (of texts), split, label, attribute, group,
        minority, predicted, correct, and the probability of each class. If they were measured: memorization_score and
        its standard_error (nan for samples without a score), minority_score (of candidate groups), and of the sample's
        group group_memorized and group_verdict (the strongest; None without a test).

    Raises:
        UserError: the data are missing or have changed; there is no such epoch or study; the scores are of other data;
            a file is broken.

    Example:
        ```python
        samples = sm.sample_table("runs/first")
        samples.query("minority and not correct")[["path", "group", "predicted"]]
        ```
    """
    run = run if isinstance(run, Run) else Run(run)
    data = run.read_data(None if data_folder is None else Path(data_folder))
    return table_of(run, data, epoch=epoch, study=study, memorization=memorization)


def table_of(
    run: Run, data: Dataset, *, epoch: str | int, study: str | None, memorization: str | Path | None
) -> pd.DataFrame:
    """`sample_table` of a run whose data are read."""
    inputs = read_inputs([run.path], study, memorization=memorization)
    chosen = run.choose_epoch(epoch)
    table = _answers(run, data, chosen)
    if inputs.memorization is not None:
        table = table.join(_memorization(inputs.memorization))
    candidate_table = run.record.data.candidate_table
    scores = None if candidate_table is None else minority_scores(data, Path(candidate_table))
    if scores is not None:
        table["minority_score"] = scores[table.index]
    found = study_of_epoch(chosen, [one.study for one in inputs.studies], study)
    if found is not None:
        of_groups = group_verdicts(found).reindex(data.g[table.index])
        for column in ("group_memorized", "group_verdict"):
            table[column] = of_groups[column].to_numpy()
    return table.reset_index()


def group_verdicts(study: Study) -> pd.DataFrame:
    """What a study says of each group.

    Returns:
        One row per group with training samples, by its index: group_name, group_memorized (None where nothing unseen
        was measured), train_accuracy, unseen_accuracy, difference, low, high, and group_verdict: the strongest verdict
        of all selected sets in the tested split, None without a test.
    """
    groups, effects = study.groups().set_index("group"), study.effects()
    tests = [strongest_test(effects, group) for group in groups.index]
    verdicts = [None if test is None else str(test["verdict"]) for test in tests]
    groups = groups.rename(columns={"memorized": "group_memorized"})
    return groups.assign(group_verdict=pd.Series(verdicts, index=groups.index, dtype=object))


def _answers(run: Run, data: Dataset, epoch: int) -> pd.DataFrame:
    """The samples of every split and the network's answers, by the index of the sample."""
    classes, values = np.array(data.groups.classes), np.array(data.groups.attributes)
    probabilities = pd.concat([run.predictions(epoch, split) for split in data.splits]).sort_index()
    index = probabilities.index.to_numpy()
    y, predicted = data.y[index], probabilities.to_numpy().argmax(1)
    table = pd.DataFrame(
        {
            "split": data.split[index],
            "label": classes[y],
            "attribute": values[data.a[index]],
            "group": np.array(data.groups.names)[data.g[index]],
            "minority": np.isin(data.g[index], data.minority),
            "predicted": classes[predicted],
            "correct": predicted == y,
        },
        index=pd.Index(index, name="sample"),
    )
    named = probabilities.rename(columns=PROBABILITY.format)
    return _named(data.source, table.index).join(table).join(named)


def _named(source: Source, index: pd.Index) -> pd.DataFrame:
    """The path of each sample, and its texts, as far as it has them."""
    columns: dict[str, Sequence[str]] = {}
    if isinstance(source, Images | Texts):
        columns["path"] = source.paths
    if isinstance(source, Texts):
        columns["text"] = source.texts
        if source.pairs is not None:
            columns["text_pair"] = source.pairs
    return pd.DataFrame({name: [values[i] for i in index] for name, values in columns.items()}, index=index)


def _memorization(found: MemorizationScores) -> pd.DataFrame:
    scores = found.scores().set_index("sample")[["score", "standard_error"]]
    return scores.rename(columns={"score": "memorization_score"})


def study_of_epoch(epoch: int, studies: list[Study], name: str | None) -> Study | None:
    """The latest study of an epoch.

    Arguments:
        epoch: the wanted one.
        studies: the latest first.
        name: of the only study, if it was chosen.

    Raises:
        UserError: the chosen study is of another epoch.
    """
    fitting = [study for study in studies if study.record["epoch"] == epoch]
    if name is not None and not fitting:
        other = studies[0].record["epoch"]
        raise UserError(f"study {name!r} is of epoch {other}, not of epoch {epoch}: add --epoch {other}")
    return fitting[0] if fitting else None
