"""Tables and sentences of a check of groups."""

from __future__ import annotations

import pandas as pd

from ...comparison.group_check import GroupCheck
from ...input_files import shown
from .over_seeds import between
from .run_tables import star
from .table import Column, Table

MAX_NAMED = 10
"""Groups of a run that a sentence names."""


def check_tables(found: GroupCheck) -> list[Table]:
    """The worst group of each run, then the groups that fail, then those that pass since chance explains them."""
    checks = found.checks
    passing = checks[checks["within_noise"] & (checks["outcome"] == "passed")]
    parts = {
        f"Groups that fail on {found.split}": found.failed,
        "Groups that pass, since they are within noise": passing,
    }
    return [worst_groups(found), *(_groups(found, title, rows) for title, rows in parts.items() if len(rows))]


def worst_groups(found: GroupCheck) -> Table:
    """One row per run: its average accuracy, its worst group, and how many checks fail."""
    return Table(
        title=f"The worst group on {found.split}, in %",
        rows=found.runs,
        columns=(
            Column(name="run", heading="run"),
            Column(name="epoch", heading="epoch", kind="count"),
            Column(name="average", heading="average", kind="percent_number"),
            Column(name="worst_group", heading="worst group"),
            Column(
                name="worst_accuracy",
                heading="accuracy",
                kind="percent_number",
                detail=between("low", "high", "percent_number"),
            ),
            Column(name="worst_n", heading="n", kind="count"),
            Column(name="gap", heading="gap in points", kind="points"),
            Column(name="n_failed", heading="failed", kind="count"),
            Column(name="n_checks", heading="of checks", kind="count"),
        ),
        caption="Brackets: 95 % interval by Wilson. gap: average minus worst group. average: over all samples.",
    )


def check_notes(found: GroupCheck) -> list[str]:
    """What was not checked, what chance explains, and the result as the last sentence."""
    checks, notes = found.checks, []
    left_out = checks[checks["outcome"] == "not checked"].drop_duplicates(["run", "group"])
    for run, rows in left_out.groupby("run", sort=False):
        named = [f"{shown(name)} (n={n})" for name, n in zip(rows["group_name"], rows["n"], strict=True)]
        more = [f"and {len(named) - MAX_NAMED} more"] if len(named) > MAX_NAMED else []
        groups = ", ".join([*named[:MAX_NAMED], *more])
        notes.append(f"{run}: not checked, fewer than {found.min_samples} samples: {groups}")
    if len(found.failed) and found.failed["within_noise"].all():
        notes.append("Every failure is within noise: chance explains it, and with --confident it passes.")
    result = f"passed: {found.n_checks} checks"
    return [*notes, result if found.passed else f"failed: {len(found.failed)} of {found.n_checks} checks"]


def check_markdown(found: GroupCheck) -> str:
    """The tables with their captions, and the sentences, as Markdown."""
    tables = (f"{table.formatted('markdown')}\n\n{table.caption}" for table in check_tables(found))
    return "\n\n".join([*tables, *check_notes(found)])


def limit_text(found: GroupCheck, criterion: str) -> str:
    """A criterion with its limit: "accuracy at least 70 %", "gap at most 10 points"."""
    if criterion == "min_worst":
        return f"accuracy at least {found.min_worst:g} %"
    return f"gap at most {found.max_gap:g} points"


def _groups(found: GroupCheck, title: str, rows: pd.DataFrame) -> Table:
    limits = [limit_text(found, criterion) for criterion in rows["criterion"]]
    return Table(
        title=f"{title}, in %",
        rows=rows.assign(limit=limits).reset_index(drop=True),
        columns=(
            Column(name="run", heading="run"),
            Column(name="group_name", heading="group", detail=star),
            Column(name="limit", heading="criterion"),
            Column(
                name="accuracy",
                heading="accuracy",
                kind="percent_number",
                detail=between("low", "high", "percent_number"),
            ),
            Column(name="n", heading="n", kind="count"),
            Column(name="threshold", heading="threshold", kind="percent_number"),
            Column(
                name="noise_low",
                heading="noise from",
                kind="percent_number",
            ),
            Column(name="noise_high", heading="to", kind="percent_number"),
            Column(name="within_noise", heading="within noise", kind="yes_no"),
        ),
        caption=(
            "Brackets: 95 % interval by Wilson. noise: accuracies that n samples show by chance if the true one is the "
            f"threshold, with 95 % certainty for all {found.n_checks} checks together (Šidák). * minority group."
        ),
        blocks=("run",),
    )
