"""A section for the model card of a network: how good it is on each group, and what it memorizes.

Its headings are those of Hugging Face's model card template, from "Evaluation" on (Mitchell et al. 2019).
"""

from __future__ import annotations

import html
from pathlib import Path

import pandas as pd

from ..comparison.group_check import group_counts_of
from ..datasets.sources import Noun
from ..intervals import wilson_interval
from ..reporting.inputs import read_inputs
from ..reporting.tables.findings import findings
from ..reporting.tables.memorization_tables import memorization_table
from ..reporting.tables.number_formats import format_value, interval
from ..reporting.tables.over_seeds import between
from ..reporting.tables.run_tables import star
from ..reporting.tables.table import Column, Table
from ..runs.run import Run
from ..statistics.memorized_groups import difference_of_accuracies
from ..studies.study import Study
from .sample_table import group_verdicts, study_of_epoch

SPLITS = ("test", "val", "train")
"""The first one that was measured is shown."""


def model_card(
    run: Run | str | Path,
    *,
    epoch: str | int = "best",
    study: str | None = None,
    memorization: str | Path | None = None,
) -> str:
    """A section in Markdown for a model card: groups, gaps with intervals, verdicts, and how they were measured.

    Arguments:
        run: the run, or its folder.
        epoch: "best" (by the run's validation rule), "last" or a number.
        study: name of the study whose verdicts are shown; the latest one of this epoch if not given.
        memorization: folder with memorization scores of the same data.

    Returns:
        The section, to be copied into a `README.md` in place of the template's "Evaluation".

    Raises:
        UserError: there is no such run, epoch or study; the scores are of other data; a file is broken.

    Example:
        ```python
        print(sm.model_card("runs/first"))
        ```
    """
    inputs = read_inputs([run.path if isinstance(run, Run) else run], study, memorization=memorization)
    opened = inputs.runs[0]
    chosen = opened.choose_epoch(epoch)
    found = study_of_epoch(chosen, [one.study for one in inputs.studies], study)
    history = opened.history()
    measured = set(history.loc[(history["epoch"] == chosen) & (history["n"] > 0), "split"])
    split = next(split for split in SPLITS if split in measured)
    gaps = group_gaps(group_counts_of(opened, chosen, split))
    parts = [*_how_measured(opened, chosen, split, gaps), *_results(split, gaps)]
    if found is not None:
        parts += _verdicts(found, opened.record.data.candidate_table, opened.record.data.noun)
    if inputs.memorization is not None:
        scores = inputs.memorization
        parts.append("#### Memorization scores")
        parts += _table(memorization_table(scores.groups(), len(scores.networks())))
    parts += ["#### Summary", _summary(gaps)]
    return "\n\n".join(part if part.startswith("#") else html.escape(part, quote=False) for part in parts)


def group_gaps(counts: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of groups, and how far each is below the average.

    The gap is the average minus the group's accuracy. The group is a part of the average: the gap equals the accuracy
    of all other samples minus that of the group, times the share of the others. So does its interval.

    Arguments:
        counts: of `group_counts_of`.

    Returns:
        The rows of groups with samples, with the further columns average, accuracy, low, high (95 % Wilson
        interval), gap, gap_low and gap_high (95 % interval by Newcombe 1998, method 10; nan if there are no
        other samples).
    """
    rows = counts[counts["n"] > 0].reset_index(drop=True)
    n, correct = rows["n"].sum(), rows["correct"].sum()
    low, high = wilson_interval(rows["correct"], rows["n"])
    others = n - rows["n"]
    _, gap_low, gap_high = difference_of_accuracies(correct - rows["correct"], others, rows["correct"], rows["n"])
    accuracy = rows["correct"] / rows["n"]
    return rows.assign(
        average=correct / n,
        accuracy=accuracy,
        low=low,
        high=high,
        gap=correct / n - accuracy,
        gap_low=gap_low * others / n,
        gap_high=gap_high * others / n,
    )


def _how_measured(run: Run, epoch: int, split: str, gaps: pd.DataFrame) -> list[str]:
    record, data = run.record, run.record.data
    kind = "groups, pairs of a label and an attribute"
    if data.candidate_table is not None:
        kind = "candidate groups, which were discovered and not given"
    minority = f"Minority groups: {'; '.join(data.minority)}." if data.minority else "No group is a minority."
    measured = " and ".join(f"{name} {record.versions[name]}" for name in ("spurious-memorization", "torch"))
    return [
        "## Evaluation",
        "### Testing Data, Factors & Metrics",
        "#### Testing Data",
        f"{gaps['n'].sum():,} samples of split {split}. SHA-256 of the data: `{data.fingerprint}`.",
        "#### Factors",
        f"The samples belong to {len(gaps)} {kind}. {minority}",
        "#### Metrics",
        f"Accuracy of each group, with its 95 % interval by Wilson. The gap is the average over all samples minus the "
        f"accuracy of the group, with its 95 % interval by Newcombe. The network is that of epoch {epoch}. The run's "
        f"rule for the best epoch is {record.best_by.replace('_', ' ')} on val. Measured by {measured}.",
    ]


def _results(split: str, gaps: pd.DataFrame) -> list[str]:
    table = Table(
        title=f"Accuracy of each group on {split}",
        rows=gaps,
        columns=(
            Column(name="group_name", heading="group", detail=star),
            Column(name="n", heading="n", kind="count"),
            Column(
                name="accuracy",
                heading="accuracy in %",
                kind="percent_number",
                detail=between("low", "high", "percent_number"),
            ),
            Column(name="gap", heading="gap in points", kind="points", detail=between("gap_low", "gap_high", "points")),
        ),
        caption="Brackets: 95 % intervals. * minority group.",
    )
    return ["### Results", *_table(table)]


def _verdicts(study: Study, candidates: str | None, noun: Noun) -> list[str]:
    table = Table(
        title="Training samples compared with unseen ones",
        rows=group_verdicts(study),
        columns=(
            Column(name="group_name", heading="group", detail=star),
            Column(name="train_accuracy", heading="train in %", kind="percent_number"),
            Column(name="unseen_accuracy", heading="unseen in %", kind="percent_number"),
            Column(name="difference", heading="difference", kind="points", detail=between("low", "high", "points")),
            Column(name="group_memorized", heading="memorized", kind="yes_no"),
            Column(name="group_verdict", heading="strongest verdict"),
        ),
        caption="A group is memorized if the interval of the difference is above 0. The verdict is on sets of units.",
    )
    settings, edits = study.record["settings"], "; ".join(study.record["edits"])
    criteria = "hand" if settings["units"] else "; ".join(settings["criterion"])
    selected = f"Sets of units were selected by {criteria} and edited by {edits} (study {study.name})."
    sentences = findings(study.effects(), study.groups(), candidates, study.groupings(), noun)
    return ["#### Memorization", *_table(table), selected, "\n".join(f"- {sentence}" for sentence in sentences)]


def _summary(gaps: pd.DataFrame) -> str:
    worst = gaps.loc[gaps["accuracy"].idxmin()]
    accuracy, average = (format_value(worst[name], "percent") for name in ("accuracy", "average"))
    bounds = interval(worst["low"], worst["high"], "percent")
    return (
        f"The worst group is {worst['group_name']} with an accuracy of {accuracy} {bounds}. The average is {average}."
    )


def _table(table: Table) -> list[str]:
    return [table.formatted("markdown"), *([table.caption] if table.caption else [])]
