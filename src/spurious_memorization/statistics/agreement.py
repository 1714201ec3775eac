"""Do rankings agree? The first units of one among the first of another, beside chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import pandas as pd
import torch
from scipy import stats
from torch import nn

from ..controls.norms import folded_norms
from ..criteria.scores import Scores, count_of, top
from ..criteria.weight_norms import weight_norm
from ..networks.units import Selection

AGREEMENT_UNITS = 20
"""Rankings are compared on so many first units, on the largest selected set if it has more, on at most half of all."""


def agreement(scores: Mapping[str, Scores], k: int) -> pd.DataFrame:
    """How many of the first units two rankings of the same units share.

    Arguments:
        scores: rankings by name; tensors that both have in the same shape are compared.
        k: number of first units; a pair that ranks no more than these is left out.

    Returns:
        One row a pair: one, other, k, n (units that both rank), shared, expected (by chance, k * k / n), p (of so many
        or more shared by chance; hypergeometric) and rank_correlation (Spearman's, over all units).

    Example:
        ```python
        sm.agreement({"weight_norm": sm.criteria.weight_norm(model), "gradient": sm.criteria.gradient(model, worst)}, k=20)
        ```
    """
    rows = []
    for (one, first), (other, second) in combinations(scores.items(), 2):
        names = [name for name in first if name in second and first[name].shape == second[name].shape]
        a, b = (Scores({name: of[name] for name in names}, of.kind, of.with_bias) for of in (first, second))
        measured = min(a.n_measured, b.n_measured) if names else 0
        if measured <= k:
            continue
        shared = len(set(top(a, k)) & set(top(b, k)))
        flat_a, flat_b = (torch.cat([values.flatten() for values in of.values()]).numpy() for of in (a, b))
        rows.append(
            {
                "one": one,
                "other": other,
                "k": k,
                "n": a.n,
                "shared": shared,
                "expected": k * k / a.n,
                "p": float(stats.hypergeom.sf(shared - 1, a.n, k, k)),
                "rank_correlation": float(stats.spearmanr(flat_a, flat_b).statistic),
            }
        )
    columns = ["one", "other", "k", "n", "shared", "expected", "p", "rank_correlation"]
    return pd.DataFrame(rows, columns=columns)


def first_units(scores: Scores, sizes: Iterable[int | float]) -> int:
    """Number of first units on which a study's rankings are compared, for the sizes of its selected sets."""
    largest = max(count_of(scores, size) for size in sizes)
    return min(max(AGREEMENT_UNITS, largest), max(1, scores.n // 2))


def norm_rankings(model: nn.Module, select: Selection) -> dict[str, Scores]:
    """Rankings by norm, raw (`weight_norm`) and with batch norms folded in: what is loud depends on that."""
    folded = folded_norms(model, select.unit, select=select)
    return {
        "weight_norm": weight_norm(model, select=select),
        "folded_weight_norm": Scores(
            {name: norms.float() for name, norms in folded.items()}, select.unit, select.with_bias
        ),
    }
