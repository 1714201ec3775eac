"""Groups by every attribute, and by two or three attributes at once: their samples, lift and accuracy.

A sample belongs to many of these groups, so their intervals are adjusted for the number of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..console import progress
from ..datasets.attributes import Attribute, combinations_of, separator_of, value_labels
from ..datasets.folder import read_attributes
from ..datasets.samples import Dataset, checked_dataset
from ..datasets.text_tables import cell_text
from ..datasets.value_names import encode
from ..errors import UserError
from ..intervals import wilson_interval

MAX_COMBINED = 3
"""Attributes in one group."""

MAX_SUBSETS = 20_000
"""Choices of attributes."""

MIN_RANKED = 10
"""Samples that a group needs to be ranked: the accuracy of fewer tells little."""

LEVEL = 0.95

_SCALARS = (str, int, float, bool, type(None), np.generic)


def intersections(
    data: Dataset,
    attributes: str | Mapping[str, ArrayLike] | pd.DataFrame,
    correct: ArrayLike | None = None,
    *,
    split: str = "test",
    min_group_size: int = MIN_RANKED,
) -> pd.DataFrame:
    """Groups of a label with the values of one, two or three attributes, the worst first.

    A group with several attributes is an intersection. A sample belongs to one group for each choice of attributes. A
    group is listed if it has a sample in any split.

    The interval of an accuracy is Wilson's. By Bonferroni's correction, the intervals of all m ranked groups hold
    together with 95 %: each one has level 1 - 0.05 / m. This is true however much the groups overlap.

    Arguments:
        data: the data set.
        attributes: columns of the table that the data set was read from, such as "a,b,c". Or {name: value of each
            sample of the data set, [samples]}, also as a data frame: names or whole numbers.
        correct: whether a network is right, for each sample of the split, [samples of the split].
        split: whose samples are counted.
        min_group_size: samples of the split that a group needs to be ranked. Smaller ones are listed last.

    Returns:
        One row per group. The columns are: attributes (their names), n_combined (their number), label, value, group
        (its name), n_train and lift (of the training split, as in `Dataset.lift`), n, correct, accuracy, low, high,
        and ranked. Without `correct`, there are no correct, accuracy, low and high. The lowest accuracy comes first,
        otherwise the lowest lift.

    Raises:
        UserError: an attribute does not exist, a value is missing, the lengths differ, or the split is empty.

    Example:
        ```python
        data = sm.from_tensors(torch.randn(8, 3, 4, 4), y=[0, 1] * 4, a=[0, 0, 1, 1] * 2, split="test")
        light = ["day", "night"] * 4
        sm.intersections(data, {"place": data.a, "light": light}, correct=[True] * 8, min_group_size=2)
        ```
    """
    data = checked_dataset(data)
    is_there = np.isin(np.arange(len(data)), data.samples(split).index)
    columns = _attributes(data, attributes)
    counted = {"n_train": data.split == "train", "n": is_there}
    if correct is not None:
        counted["correct"] = np.zeros(len(data), bool)
        counted["correct"][is_there] = _answers(correct, int(is_there.sum()), split)
    sizes = range(1, min(MAX_COMBINED, len(columns)) + 1)
    if (n := sum(comb(len(columns), size) for size in sizes)) > MAX_SUBSETS:
        raise UserError(
            f"{len(columns)} attributes can be combined in {n:,} ways, more than the {MAX_SUBSETS:,} allowed: choose "
            "fewer"
        )
    labels = dict(zip(columns, value_labels(columns), strict=True))
    separator = separator_of(list(labels.values()))
    subsets = chain.from_iterable(combinations(columns, size) for size in sizes)
    parts = [
        _groups(data, subset, [labels[attribute] for attribute in subset], separator, counted)
        for subset in progress(subsets, n, "choices of attributes")
    ]
    return _ranked(pd.concat(parts, ignore_index=True), min_group_size)


def _groups(
    data: Dataset,
    attributes: Sequence[Attribute],
    labels: Sequence[Sequence[str]],
    separator: str,
    counted: Mapping[str, NDArray[np.bool_]],
) -> pd.DataFrame:
    """The groups of each label with each combination of these attributes, in their order, and their counts.

    Arguments:
        data: the data set.
        attributes: the attributes of the groups.
        labels: how the values of each attribute are written.
        separator: what stands between them.
        counted: which samples each column counts, {column: [samples]}; "n_train" is one of them.
    """
    codes, members = combinations_of(attributes)
    classes = data.groups.classes
    cells, found = pd.factorize(data.y * len(members) + codes, sort=True)
    y, member = np.divmod(found, len(members))
    counts = {name: _counts(cells, chosen, len(found)) for name, chosen in counted.items()}
    of_label, of_values = (
        _counts(numbers, counted["n_train"], n) for numbers, n in ((data.y, len(classes)), (codes, len(members)))
    )
    expected = of_label[y] * of_values[member] / max(counts["n_train"].sum(), 1)
    lift = np.divide(counts["n_train"], expected, out=np.full(len(found), np.nan), where=expected > 0)
    values = [separator.join(of_one[i] for of_one, i in zip(labels, row, strict=True)) for row in members.tolist()]
    named = [(classes[label], values[i]) for label, i in zip(y.tolist(), member.tolist(), strict=True)]
    frame = pd.DataFrame(
        {
            "attributes": ", ".join(attribute.name for attribute in attributes),
            "n_combined": len(attributes),
            "label": [label for label, _ in named],
            "value": [value for _, value in named],
            "group": [data.groups.template.format(label=label, attribute=value) for label, value in named],
            **counts,
        }
    )
    frame.insert(frame.columns.get_loc("n_train") + 1, "lift", lift)
    return frame


def _counts(codes: NDArray[np.int64], chosen: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """How often each of `n` codes occurs among the chosen samples, [n]."""
    return np.bincount(codes[chosen], minlength=n).astype(np.int64)


def _ranked(found: pd.DataFrame, least: int) -> pd.DataFrame:
    """The groups in their order, with accuracy and interval if it was measured."""
    ranked = found["n"] >= max(least, 1)
    by = "lift"
    if "correct" in found:
        level = 1 - (1 - LEVEL) / max(int(ranked.sum()), 1)
        low, high = wilson_interval(found["correct"], found["n"], level)
        found["accuracy"] = found["correct"] / found["n"]
        found["low"], found["high"] = np.where(ranked, low, np.nan), np.where(ranked, high, np.nan)
        by = "accuracy"
    found["ranked"] = ranked
    return found.sort_values(["ranked", by, "n"], ascending=[False, True, False], kind="stable", ignore_index=True)


def _attributes(data: Dataset, wanted: str | Mapping[str, ArrayLike] | pd.DataFrame) -> tuple[Attribute, ...]:
    if isinstance(wanted, str):
        return read_attributes(data, wanted)
    found = tuple(_given(str(name), values, len(data)) for name, values in wanted.items())
    if not found:
        raise UserError("no attribute is given: name at least one")
    return found


def _given(name: str, values: Any, n: int) -> Attribute:
    cells = _cells(values)
    if len(cells) != n:
        raise UserError(f"attribute {name!r} needs one value for each of the {n} samples of the data set")
    index = pd.RangeIndex(n, name="sample")
    codes, names = encode(pd.Series([cell_text(cell) for cell in cells], index=index, name=name, dtype=object))
    return Attribute(name, names, codes)


def _answers(correct: Any, n: int, split: str) -> NDArray[np.bool_]:
    cells = _cells(correct)
    if len(cells) != n or not all(cell in (0, 1) for cell in cells):
        raise UserError(f"correct must hold one truth value for each of the {n} samples in {split}")
    return np.array(cells, bool)


def _cells(values: Any) -> list[Any]:
    """The values of a list, an array, a tensor or a column. Empty if these are no single values."""
    cells = values.tolist() if hasattr(values, "tolist") else values
    is_flat = isinstance(cells, list | tuple | range) and all(isinstance(cell, _SCALARS) for cell in cells)
    return list(cells) if is_flat else []
