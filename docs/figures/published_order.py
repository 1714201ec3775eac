"""Print the order of methods on synthbirds beside the published order on Waterbirds.

`python docs/figures/published_order.py repair`, after the command of docs/mitigation.md has made the folder `repair`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scipy.stats import spearmanr

import spurious_memorization as sm
from spurious_memorization.comparison.methods import kind_of
from spurious_memorization.published.results import all_results

METHODS = {
    "erm": ("ERM", "Yang et al."),
    "balanced-sampling": ("RWG", "Idrissi et al."),
    "jtt": ("JTT", "Liu et al."),
    "afr": ("AFR", "Qiu et al."),
    "group-dro": ("GroupDRO", "Sagawa et al."),
    "dfr": ("DFR", "Kirichenko et al."),
    "dpe": ("DPE", "To et al."),
}
"""Objective: the method's published name, and the paper whose figure on Waterbirds is taken."""


def main(folder: Path) -> None:
    runs = [
        run
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(("erm_hold_out", "prune-critical"))
        for run in sorted(place.glob("seed_*"))
    ]
    found = sm.compare([run for run in runs if kind_of(sm.Run(run)) in METHODS], baseline="erm")
    rule = "chosen_by == 'worst_group_accuracy' and split == 'test' and measure == 'worst_group_accuracy'"
    means = found.summary.query(rule).set_index("method")
    kinds = {member.method: kind_of(member.run) for member in found.members}
    measured, published = [], []
    print("| method | published on Waterbirds | measured on synthbirds | spread over seeds |")
    print("| --- | --- | --- | --- |")
    for method, row in means.iterrows():
        measured.append(row["mean"])
        published.append(published_worst_group(*METHODS[kinds[str(method)]]))
        print(f"| {method} | {100 * published[-1]:.1f} | {100 * measured[-1]:.1f} | {100 * row['std']:.1f} |")
    print(f"\nSpearman's rank correlation: {spearmanr(published, measured).statistic:.2f}")


def published_worst_group(method: str, paper: str) -> float:
    """The published worst-group accuracy of a method on Waterbirds."""
    return next(
        one.worst_group
        for one in all_results()
        if (one.data_set, one.method) == ("waterbirds", method) and one.source.startswith(paper)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
