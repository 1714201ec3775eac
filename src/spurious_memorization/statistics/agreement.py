"""Do rankings agree? How many of their first units two rankings share, compared with chance."""

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
from ..networks.selection import Selection

AGREEMENT_UNITS = 20
"""Number of first units that are compared by default."""

COLUMNS = ("one", "other", "k", "n", "shared", "expected", "p", "rank_correlation")


def agreement(scores: Mapping[str, Scores], k: int) -> pd.DataFrame:
    """How many of the first units two rankings of the same units share.

    Arguments:
        scores: rankings by name. The tensors that both rankings have in the same shape are compared.
        k: number of first units. Pairs that rank at most `k` units are left out.

    Returns:
        One row per pair: one, other, k, n (units that both rank), shared, expected (by chance: k * k / n), p (of at
        least this number shared by chance; hypergeometric) and rank_correlation (Spearman's, over all units).

    Example:
        ```python
        scores = {"weight_norm": sm.criteria.weight_norm(model), "gradient": sm.criteria.gradient(model, hardest)}
        sm.agreement(scores, k=20)
        ```
    """
    rows = []
    for (one, first), (other, second) in combinations(scores.items(), 2):
        names = [name for name in first if name in second and first[name].shape == second[name].shape]
        a, b = (Scores({name: of[name] for name in names}, of.kind, of.with_bias) for of in (first, second))
        n_measured = min(a.n_measured, b.n_measured) if names else 0
        if n_measured <= k:
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
    return pd.DataFrame(rows, columns=[*COLUMNS])


def first_units(scores: Scores, sizes: Iterable[int | float]) -> int:
    """Number of first units on which the rankings of a study are compared.

    It is `AGREEMENT_UNITS`, or the size of the largest selected set if that is larger, but at most half of all units.
    """
    largest = max(count_of(scores, size) for size in sizes)
    return min(max(AGREEMENT_UNITS, largest), max(1, scores.n // 2))


def norm_rankings(model: nn.Module, select: Selection) -> dict[str, Scores]:
    """Rankings by weight norm, raw and with batch norms folded into the weights.

    Which units have the largest norm depends on that.
    """
    folded = folded_norms(model, select.unit, select=select)
    return {
        "weight_norm": weight_norm(model, select=select),
        "folded_weight_norm": Scores(
            {name: norms.float() for name, norms in folded.items()}, select.unit, select.with_bias
        ),
    }
