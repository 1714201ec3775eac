"""Measures that need class probabilities: AUROC, calibration error, and the error of the most confident samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Samples
from ..runs.run import Run
from ..training.epoch_selection import stored_probabilities
from .measures import Floats

BY_CONFIDENCE = (
    "auroc",
    "calibration_error",
    "worst_group_calibration_error",
    "selective_error",
    "worst_group_selective_error",
)

BINS = 15
"""Bins of confidence for the calibration error, as in Guo et al. (2017)."""

COVERAGE = 0.8
"""Share of the samples that selective prediction answers."""


def confidence_where_chosen(run: Run, epochs: Mapping[str, int], parts: Mapping[str, Samples]) -> pd.DataFrame:
    """`confidence_measures` of a run's networks, from the stored predictions.

    Arguments:
        run: the run.
        epochs: {rule: the epoch that it chooses}.
        parts: {split: its samples}.

    Returns:
        One row per rule, split and measure: chosen_by, split, and the columns of `confidence_measures`.

    Raises:
        UserError: the run has no predictions of these samples.
    """
    measured = {
        (epoch, split): confidence_measures(stored_probabilities(run, epoch, samples), samples.y, samples.g)
        for epoch in dict.fromkeys(epochs.values())
        for split, samples in parts.items()
    }
    frames = [
        measured[epoch, split].assign(chosen_by=rule, split=split) for rule, epoch in epochs.items() for split in parts
    ]
    return pd.concat(frames, ignore_index=True)


def confidence_measures(probabilities: Floats, y: NDArray[np.int64], g: NDArray[np.int64]) -> pd.DataFrame:
    """The measures of some samples that need class probabilities.

    A sample's confidence is the largest of its probabilities. These measures have no interval over samples: an interval
    would need draws of whole samples.

    Arguments:
        probabilities: [samples, classes].
        y: label of each sample, [samples].
        g: group of each sample, [samples].

    Returns:
        One row per measure: measure (those of `BY_CONFIDENCE`, then "group_calibration_error"), group (-1 for all
        groups together), value, low and high (nan).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    groups, position = np.unique(g, return_inverse=True)
    of_groups = calibration_errors(confidence, right, position)
    errors = selective_errors(confidence, right, position)
    overall = (
        auroc(probabilities, y),
        calibration_errors(confidence, right, np.zeros_like(position))[0],
        of_groups.max(),
        selective_errors(confidence, right, np.zeros_like(position))[0],
        np.nanmax(errors),
    )
    return pd.DataFrame(
        {
            "measure": [*BY_CONFIDENCE, *["group_calibration_error"] * len(groups)],
            "group": [*[-1] * len(BY_CONFIDENCE), *groups],
            "value": [*overall, *of_groups],
            "low": np.nan,
            "high": np.nan,
        }
    )


def auroc(probabilities: Floats, y: NDArray[np.int64]) -> float:
    """Area under the ROC curve (Hanley and McNeil 1982): the chance that a sample of a class has a higher probability
    of this class than a sample of another one.

    Two classes have one such area. More classes have one each, against the rest, and the mean is taken.

    Arguments:
        probabilities: [samples, classes].
        y: label of each sample, [samples].

    Returns:
        The area; nan if all samples have the same label. Classes without samples are left out.
    """
    from sklearn.metrics import roc_auc_score

    classes = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [roc_auc_score(y == c, probabilities[:, c]) for c in classes if 0 < (y == c).sum() < len(y)]
    return float(np.mean(areas)) if areas else math.nan


def calibration_errors(confidence: Floats, right: NDArray[np.bool_], part: NDArray[np.int64]) -> Floats:
    """Expected calibration error of each part of the samples, [parts]: the mean distance between confidence and
    accuracy over bins of confidence, weighted by their samples (Naeini et al. 2015; 15 bins as in Guo et al. 2017).

    The error of a small group is too high by chance: each bin holds few of its samples.

    Arguments:
        confidence: of each sample, [samples]; bin b holds those over b / 15 up to (b + 1) / 15.
        right: whether each sample is classified correctly, [samples].
        part: number of each sample's part, from 0, [samples].
    """
    n_parts = part.max() + 1
    within = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    off = np.bincount(part * BINS + within, weights=right - confidence, minlength=n_parts * BINS)
    errors: Floats = np.abs(off).reshape(n_parts, BINS).sum(1) / np.bincount(part)
    return errors


def selective_errors(
    confidence: Floats, right: NDArray[np.bool_], part: NDArray[np.int64], coverage: float = COVERAGE
) -> Floats:
    """Selective risk (Geifman and El-Yaniv 2017) of each part of the samples, [parts]: its share of errors among the
    most confident of all samples.

    All parts share one threshold, as in Jones et al. (2021): rejecting samples can lower the error of all and raise
    that of a group. Samples that tie with the last one kept count in part, the same for each.

    Arguments:
        confidence: of each sample, [samples].
        right: whether each sample is classified correctly, [samples].
        part: number of each sample's part, from 0, [samples].
        coverage: share of all samples that are kept.

    Returns:
        The error of each part, [parts]; nan if none of its samples is kept.
    """
    kept = math.ceil(coverage * len(confidence) - 1e-9)
    threshold = np.partition(confidence, len(confidence) - kept)[len(confidence) - kept]
    above, tied = confidence > threshold, confidence == threshold
    weight = above + tied * (kept - above.sum()) / tied.sum()
    with np.errstate(invalid="ignore"):
        return np.bincount(part, weights=weight * ~right) / np.bincount(part, weights=weight)
