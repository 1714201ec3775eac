"""Which properties of samples go with the label: normalized mutual information, tested by permuting the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import xlogy

from ..datasets.properties import labeled_data
from ..datasets.property_values import PropertyValues, number_text, property_values
from ..datasets.samples import Dataset
from ..errors import UserError
from .max_statistic import ranks_and_adjusted
from .sequential import LEVEL

GOES_WITH_LABEL = "goes with the label"
NO_EVIDENCE = "no evidence"
SAME_EVERYWHERE = "the same everywhere"

MORE_AND_LESS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrast", "less contrast"),
    "sharpness": ("sharper", "less sharp"),
    "colorfulness": ("more colorful", "less colorful"),
    "border_brightness": ("a brighter border", "a darker border"),
    "border_variation": ("a less uniform border", "a more uniform border"),
    "words": ("more words", "fewer words"),
    "pair_words": ("more words in the second text", "fewer words in the second text"),
    "width": ("wider", "narrower"),
    "height": ("taller", "less tall"),
    "aspect_ratio": ("a wider shape", "a taller shape"),
    "pixels": ("more pixels", "fewer pixels"),
    "file_size": ("larger files", "smaller files"),
    "bytes_per_pixel": ("more bytes per pixel", "fewer bytes per pixel"),
    "mark_top_left": ("its top left corner stands out more", "its top left corner stands out less"),
    "mark_top_right": ("its top right corner stands out more", "its top right corner stands out less"),
    "mark_bottom_left": ("its bottom left corner stands out more", "its bottom left corner stands out less"),
    "mark_bottom_right": ("its bottom right corner stands out more", "its bottom right corner stands out less"),
}
"""How a class is described that has higher, or lower, values than the others."""

_SEED = 0x9209

Ints = NDArray[np.int64]


def property_associations(
    data: Dataset | str | Path, properties: pd.DataFrame, *, permutations: int = 999, seed: int = 0
) -> pd.DataFrame:
    """Which properties go with the label, on the training split.

    Numbers are cut into three bins of nearly equal counts. A property's association with the label is their normalized
    mutual information, from 0 to 1 (scikit-learn's `normalized_mutual_info_score`). Its p-value compares it with
    permuted labels: (1 + values at least as large) / (1 + permutations). The same permutations serve all properties, so
    the p-values are adjusted for their number by the step-down maximum statistic (Westfall and Young 1993).

    Arguments:
        data: a data set, or its folder, whose table needs no attribute column here.
        properties: one row per sample, as `image_properties` or `text_properties` returns it. Further columns of your
            own may hold numbers or names.
        permutations: number of permutations of the labels.
        seed: of the permutations.

    Returns:
        One row per property, sorted by adjusted p and then by normalized mutual information: property, n (training
        samples), values (number of bins or names), nmi, p, p_adjusted, goes_with_label, verdict, and difference: which
        values go with which class, in words. nmi, p and p_adjusted are nan where all samples have one value.

    Raises:
        UserError: the rows don't fit the data, a value is missing, there is only one class, or there are no
            permutations.

    Example:
        ```python
        data = sm.read_data("my_images/")
        sm.property_associations(data, sm.image_properties(data)).query("goes_with_label")
        ```
    """
    if permutations < 1:
        raise UserError(f"{permutations} permutations are too few: choose at least 19")
    data = labeled_data(data)
    values, train = property_values(data, properties), data.train
    if len(np.unique(train.y)) < 2:
        raise UserError("all training samples have the same label: at least two classes are needed")
    of_train = {name: of_property.codes[train.index] for name, of_property in values.items()}
    nmi = permuted_information(train.y, list(of_train.values()), permutations, seed)
    p, adjusted = ranks_and_adjusted(nmi)
    verdict = [
        SAME_EVERYWHERE if np.isnan(p_of_one) else GOES_WITH_LABEL if p_of_one <= LEVEL else NO_EVIDENCE
        for p_of_one in adjusted
    ]
    frame = pd.DataFrame(
        {
            "property": list(values),
            "n": len(train),
            "values": [len(np.unique(codes)) for codes in of_train.values()],
            "nmi": nmi[0],
            "p": p,
            "p_adjusted": adjusted,
            "goes_with_label": adjusted <= LEVEL,
            "verdict": verdict,
            "difference": [
                _difference(name, properties[name].iloc[train.index], of_property, codes, train.y, data.groups.classes)
                for (name, of_property), codes in zip(values.items(), of_train.values(), strict=True)
            ],
        }
    )
    return frame.sort_values(["p_adjusted", "nmi"], ascending=[True, False], kind="stable", ignore_index=True)


def permuted_information(y: Ints, properties: Sequence[Ints], permutations: int, seed: int) -> NDArray[np.float64]:
    """Normalized mutual information of the label and each property, for the labels as they are and permuted.

    It is the mutual information divided by the mean of both entropies. A permutation changes the joint entropy only.

    Arguments:
        y: label of each sample, [samples].
        properties: for each property the category of each sample, [samples].
        permutations: number of permutations.
        seed: of the permutations.

    Returns:
        [1 + permutations, properties]; the first row is measured. nan where all labels or categories are the same.
    """
    rng = np.random.default_rng([seed, _SEED])
    draws = (y if draw == 0 else rng.permutation(y) for draw in range(permutations + 1))
    sizes = [int(codes.max(initial=0)) + 1 for codes in properties]
    joint = [
        [_entropy(labels * size + codes) for codes, size in zip(properties, sizes, strict=True)] for labels in draws
    ]
    of_label, of_property = _entropy(y), np.array([_entropy(codes) for codes in properties])
    mean = np.where((of_property > 0) & (of_label > 0), (of_label + of_property) / 2, np.nan)
    information = of_label + of_property - np.array(joint).reshape(permutations + 1, len(properties))
    normalized: NDArray[np.float64] = np.maximum(information / mean, 0.0)
    return normalized


def _entropy(codes: Ints) -> float:
    """Entropy of the shares of whole numbers, in nats."""
    counts = np.bincount(codes)
    return float(np.log(len(codes)) - xlogy(counts, counts).sum() / len(codes)) if counts.max() < len(codes) else 0.0


def _difference(
    name: str, column: pd.Series, values: PropertyValues, codes: Ints, y: Ints, classes: Sequence[str]
) -> str:
    """The clearest difference between a class and the others, in words: of medians, otherwise of shares."""
    present = np.unique(y)
    if len(present) < 2 or len(np.unique(codes)) < 2:
        return ""
    is_own = y == present[:, None]
    if values.cuts is not None:
        numbers = column.to_numpy(np.float64)
        own, other = (np.array([np.median(numbers[rows]) for rows in where]) for where in (is_own, ~is_own))
        gap = own - other
        c = int(gap.argmax() if len(present) == 2 else np.abs(gap).argmax())
        texts = number_text(own[c]), number_text(other[c])
        if texts[0] != texts[1]:
            more_or_less = MORE_AND_LESS.get(name, ("higher", "lower"))[int(gap[c] < 0)]
            return f"{classes[present[c]]}: {more_or_less}, median {texts[0]} against {texts[1]}"
    of_value = (codes[:, None] == np.arange(len(values.names))).astype(float)
    own, other = (where @ of_value / where.sum(1, keepdims=True) for where in (is_own, ~is_own))
    if column.dtype == bool:
        c, v = int((own - other)[:, 1].argmax()), 1
        value = name.replace("_", " ")
    else:
        c, v = divmod(int((own - other).argmax()), len(values.names))
        value = " ".join([name.replace("_", " "), values.names[v], values.ranges()[v]]).rstrip()
    return f"{classes[present[c]]}: {value} in {100 * own[c, v]:.0f} % against {100 * other[c, v]:.0f} %"
