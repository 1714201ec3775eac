"""From scores to candidate groups: which samples are atypical for their class, and how sure this is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

Floats = NDArray[np.float64]

HAS_THRESHOLD = ("xrm", "eiil")
"""Methods whose score is a probability by trained networks, or of the worse environment: over one half is atypical.

A network of an early epoch may give every label less than one half, so its errors are cut as other scores are.
"""


def consensus(scores: Sequence[Floats], y: NDArray[np.int64]) -> Floats:
    """The mean over methods of the rank of a sample within its class, from 0 to 1, [samples]."""
    ranks = []
    for one in scores:
        rank = np.full(len(y), np.nan)
        for label in np.unique(y):
            here = np.flatnonzero((y == label) & np.isfinite(one))
            rank[here] = (rankdata(one[here]) - 0.5) / max(len(here), 1)
        ranks.append(rank)
    mean: Floats = np.mean(ranks, axis=0)
    return mean


def is_atypical(method: str, score: Floats, y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each sample is atypical, [samples].

    A score that is a probability is compared with one half. Other scores are cut within each class where two clusters
    of the score meet (k-means).
    """
    if method in HAS_THRESHOLD:
        return np.nan_to_num(score) > 0.5
    atypical = np.zeros(len(y), bool)
    for label in np.unique(y):
        here = np.flatnonzero((y == label) & np.isfinite(score))
        atypical[here] = score[here] > _cut(score[here])
    return atypical


def stability(scores: Mapping[str, Sequence[Floats]], y: NDArray[np.int64]) -> pd.DataFrame:
    """How well a method agrees with itself over seeds, and with the other methods.

    Arguments:
        scores: of each method, one array [samples] per seed.
        y: labels, [samples].

    Returns:
        One row per method: method, n_seeds, n_atypical (by the mean score), n_unsure (samples about which the seeds
        disagree), rank_correlation_seeds (mean over pairs of seeds; nan for one), rank_correlation_methods (mean over
        the other methods, of mean scores).
    """
    means = {method: np.mean(of_seeds, axis=0) for method, of_seeds in scores.items()}
    rows = []
    for method, of_seeds in scores.items():
        votes = np.mean([is_atypical(method, one, y) for one in of_seeds], axis=0)
        others = [means[other] for other in means if other not in (method, "consensus")]
        rows.append(
            {
                "method": method,
                "n_seeds": len(of_seeds),
                "n_atypical": int(is_atypical(method, means[method], y).sum()),
                "n_unsure": int(((votes > 0) & (votes < 1)).sum()),
                "rank_correlation_seeds": _mean_correlation(list(combinations(of_seeds, 2))),
                "rank_correlation_methods": _mean_correlation([(means[method], other) for other in others]),
            }
        )
    return pd.DataFrame(rows)


def auroc(score: Floats, is_minority: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of a score for the true minority samples; nan if all or none are."""
    from sklearn.metrics import roc_auc_score

    known = np.isfinite(score)
    if len(np.unique(is_minority[known])) < 2:
        return float("nan")
    return float(roc_auc_score(is_minority[known], score[known]))


def _cut(score: Floats) -> float:
    """The middle between the means of two clusters of the score."""
    from sklearn.cluster import KMeans

    if len(np.unique(score)) < 2:
        return float(np.inf)
    centers = KMeans(2, n_init=10, random_state=0).fit(score[:, None]).cluster_centers_
    return float(centers.mean())


def _mean_correlation(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    found = []
    for one, other in pairs:
        known = np.isfinite(one) & np.isfinite(other)
        if known.sum() > 1 and np.ptp(one[known]) > 0 and np.ptp(other[known]) > 0:
            found.append(float(spearmanr(one[known], other[known]).statistic))
    return float(np.mean(found)) if found else float("nan")
