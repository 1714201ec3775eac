"""The table of what accuracies of groups don't show: classes, order, calibration, and errors of confident answers."""

from __future__ import annotations

import pandas as pd

from ...comparison.compare import Comparison
from ...comparison.confidence import BINS, COVERAGE
from ...comparison.epochs import CHOSEN_BY
from .over_seeds import METHOD, between, mean_column, rules_shown
from .table import Column, Table

_WITH_INTERVAL = {
    "worst_group_accuracy": "worst group",
    "balanced_accuracy": "balanced",
    "worst_class_accuracy": "worst class",
}
_OTHERS = {
    "auroc": "AUROC",
    "calibration_error": "calibration error",
    "worst_group_calibration_error": "calibration error, worst group",
    "selective_error": "selective error",
    "worst_group_selective_error": "selective error, worst group",
}


def beyond_accuracy(found: Comparison) -> Table:
    """One row per method and rule: classes, AUROC, calibration and selective errors on test, and how far accuracies
    could move with other samples."""
    summary = found.summary[(found.summary["split"] == "test") & (found.summary["group"] < 0)]
    rows = {(row["method"], row["chosen_by"], row["measure"]): row for row in summary.to_dict(orient="records")}
    lines = [
        {
            "method": method,
            "chosen_by": name,
            **{
                f"{measure} {value}": rows[method, rule, measure][value]
                for measure in (*_WITH_INTERVAL, *_OTHERS)
                for value in ("mean", "std", "sample_low", "sample_high")
            },
        }
        for method in found.methods
        for rule, name in rules_shown(_epochs(found, method)).items()
    ]
    return Table(
        title="Beyond accuracy, on test in %",
        rows=pd.DataFrame(lines),
        columns=(
            METHOD,
            Column(name="chosen_by", heading="epochs by"),
            *(_accuracy_column(measure, heading) for measure, heading in _WITH_INTERVAL.items()),
            *(mean_column(measure, heading) for measure, heading in _OTHERS.items()),
        ),
        caption=(
            "Mean over seeds. In brackets: 95 % interval over the samples of test. ±: standard deviation over seeds. "
            "balanced: mean accuracy of the classes. AUROC: 50 is chance, 100 perfect. "
            f"calibration error: distance of confidence and accuracy, {BINS} bins. "
            f"selective error: errors among the {100 * COVERAGE:.0f} % most confident samples of all groups."
        ),
        blocks=("method",),
    )


def _epochs(found: Comparison, method: str) -> dict[str, list[int]]:
    runs = found.runs[found.runs["method"] == method]
    return {rule: runs[f"epoch_by_{rule}"].tolist() for rule in CHOSEN_BY}


def _accuracy_column(measure: str, heading: str) -> Column:
    return Column(
        name=f"{measure} mean",
        heading=heading,
        kind="percent_number",
        detail=between(f"{measure} sample_low", f"{measure} sample_high", "percent_number"),
        is_detail_below=True,
    )
