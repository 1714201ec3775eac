"""Over seeds: means, standard deviations, and differences to a baseline paired by seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95

_WHAT = ["chosen_by", "split", "measure", "group"]


def summarized(values: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """Mean and spread of every method over its seeds, and its differences to the baseline of the same seeds.

    Arguments:
        values: one row per run and measure: method, seed, chosen_by, split, measure, group, value, low, high.
        baseline: method to which differences are taken; None for none.

    Returns:
        One row per method and measure: method, chosen_by, split, measure, group; n_seeds, mean, std (of the sample; nan
        for one seed); sample_low and sample_high (the mean bounds of the seeds' intervals over samples: all seeds have
        the same samples, so more seeds don't narrow it); n_paired (seeds that the baseline has, too; 0 for the baseline
        itself), difference (mean of the differences per seed), difference_std, and the 95 % interval of the difference,
        low and high (t distribution with n_paired - 1 degrees of freedom; nan for one pair).
    """
    grouped = values.groupby(["method", *_WHAT], sort=False)
    own = grouped["value"].agg(n_seeds="count", mean="mean", std="std")
    table = own.join(grouped[["low", "high"]].mean().add_prefix("sample_")).reset_index()
    paired = values[values["method"] != baseline].merge(
        values.loc[values["method"] == baseline, ["seed", *_WHAT, "value"]], on=["seed", *_WHAT], suffixes=("", "_base")
    )
    paired["value"] -= paired["value_base"]
    differences = paired.groupby(["method", *_WHAT], sort=False)["value"].agg(
        n_paired="count", difference="mean", difference_std="std"
    )
    table = table.merge(differences.reset_index(), on=["method", *_WHAT], how="left")
    table["n_paired"] = table["n_paired"].fillna(0).astype(np.int64)
    n = table["n_paired"].where(table["n_paired"] > 1).to_numpy(float)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * table["difference_std"] / np.sqrt(n)
    return table.assign(low=table["difference"] - half, high=table["difference"] + half)
