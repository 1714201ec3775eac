"""The table of refitted heads: does a method change the head, or the features?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...comparison.refitted_heads import AS_TRAINED, REFITTED, RefittedHeads
from .over_seeds import METHOD_BLOCK, METHOD_BLOCK_COLUMNS, difference_column, mean_column, rules_shown
from .table import Column, Table

_MEASURES = {"worst_group_accuracy": "worst group", "average": "average"}


def head_or_features(found: RefittedHeads) -> Table:
    """One row per method and rule: accuracy on test as trained and with a refitted head, and how much better or worse
    the refitted head is than the baseline's."""
    rows = {
        (row["method"], row["chosen_by"], row["head"], row["measure"]): row
        for row in found.summary.to_dict(orient="records")
    }
    lines: list[dict[str, Any]] = []
    for method, of_method in found.values.groupby("method", sort=False):
        epochs = {rule: own.groupby("run")["epoch"].first() for rule, own in of_method.groupby("chosen_by")}
        for rule, name in rules_shown({rule: list(own) for rule, own in epochs.items()}).items():
            line = {"method": method, "seeds": of_method["seed"].nunique(), "chosen_by": name}
            for head in (AS_TRAINED, REFITTED):
                for measure in _MEASURES:
                    row = rows[method, rule, head, measure]
                    values = ("mean", "std", "difference", "low", "high")
                    line |= {f"{head} {measure} {value}": row[value] for value in values}
            lines.append(line)
    columns = [*METHOD_BLOCK_COLUMNS, Column(name="chosen_by", heading="epochs by")]
    for measure, heading in _MEASURES.items():
        columns += [mean_column(f"{head} {measure}", f"{heading}, {head}") for head in (AS_TRAINED, REFITTED)]
        if len({line["method"] for line in lines}) > 1:
            columns.append(
                difference_column(f"{REFITTED} {measure}", f"{heading}, refitted, minus that of {found.baseline}")
            )
    return Table(
        title="Head or features? Accuracy on test in %, as trained and with a refitted head",
        rows=pd.DataFrame(lines),
        columns=tuple(columns),
        caption=(
            "refitted: a new head on the same features, fitted on balanced groups of half of val (Kirichenko et al. "
            "2023). Where refitted heads agree, the features didn't change in what they allow: the methods differ in "
            "the head. Mean ± standard deviation over seeds. Differences are in points, paired by seed, with 95 % "
            "intervals by the t distribution."
        ),
        blocks=METHOD_BLOCK,
    )
