"""Spurious attributes: one column, or several whose values are combined."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..console import log_once
from ..errors import UserError
from ..input_files import shown
from .value_names import is_bare

SHOWN = 10

ValueNoun = Literal["values", "combinations"]


@dataclass(frozen=True, eq=False)
class Attribute:
    """An attribute of the samples.

    Arguments:
        name: of its column; of several columns, their names with commas.
        values: names of its values, in order.
        codes: value of each sample, as a position in `values`, [samples].
        is_combined: whether the values are combinations of several columns' values.
    """

    name: str
    values: tuple[str, ...]
    codes: NDArray[np.int64]
    is_combined: bool = False


def column_names(wanted: str) -> tuple[str, ...]:
    """The columns that `a,b` names. A name that contains a comma is in double quotes, as in a CSV file.

    Raises:
        UserError: a name is empty or given twice, or a quotation mark is not closed.
    """
    try:
        rows = list(csv.reader([wanted], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(
            f"the attribute columns {shown(wanted)!r} can't be read: write them as a,b ({error})"
        ) from error
    names = tuple(name.strip() for row in rows for name in row)
    if not all(names):
        raise UserError(f"the attribute columns {shown(wanted)!r} have an empty name: write them as a,b")
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(f"the attribute column {shown(twice)!r} is given twice: leave one out")
    return names


def combined(attributes: Sequence[Attribute]) -> Attribute:
    """One attribute whose values are the combinations that occur, such as "water, night".

    They are ordered by the first attribute, then by the second, and so on. One attribute alone stays as it is.
    """
    if len(attributes) == 1:
        return attributes[0]
    codes, members = combinations_of(attributes)
    labels = value_labels(attributes)
    separator = separator_of(labels)
    values = tuple(
        separator.join(of_one[value] for of_one, value in zip(labels, row, strict=True)) for row in members.tolist()
    )
    return Attribute(", ".join(attribute.name for attribute in attributes), values, codes, is_combined=True)


def combinations_of(attributes: Sequence[Attribute]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The combinations of values that occur, in the order of their values.

    Returns:
        The combination of each sample, [samples], and the value of each attribute in it, [combinations, attributes].
    """
    codes = attributes[0].codes
    codes, found = pd.factorize(codes, sort=True)
    for attribute in attributes[1:]:
        codes, found = pd.factorize(codes * len(attribute.values) + attribute.codes, sort=True)
    first = np.zeros(len(found), np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return codes.astype(np.int64), np.stack([attribute.codes[first] for attribute in attributes], axis=1)


def value_labels(attributes: Sequence[Attribute]) -> list[tuple[str, ...]]:
    """For each attribute, how its values are written where several attributes stand together.

    Values become "column=value" if one of them says nothing alone (a number, yes or no, NA), or is a value of another
    attribute, too.
    """
    if len(attributes) == 1:
        return [attributes[0].values]
    return [_labels(attribute, [other for other in attributes if other is not attribute]) for attribute in attributes]


def separator_of(labels: Sequence[Sequence[str]]) -> str:
    """What stands between two values: a comma, or the first sign that no value contains."""
    taken = "".join(label for of_one in labels for label in of_one)
    return next(separator for separator in _separators() if separator.strip() not in taken)


def merged(
    attribute: Attribute, is_train: NDArray[np.bool_], least: int, noun: ValueNoun
) -> tuple[Attribute, tuple[str, ...]]:
    """The attribute with all values that have fewer than `least` training samples as one value, the last one.

    The new value is called "other values" or "other combinations", and a line says what became of it. A value is merged
    for all labels or for none, so the attribute doesn't depend on the label.

    Arguments:
        attribute: the attribute.
        is_train: whether each sample is in the training split, [samples].
        least: training samples that a value needs; with 1, nothing is merged.
        noun: what the values are.

    Returns:
        The attribute, and the names of the values that were merged.

    Raises:
        UserError: all values would be merged, or one has the new value's name.
    """
    n_train = np.bincount(attribute.codes[is_train], minlength=len(attribute.values))
    is_small = n_train < least
    if least <= 1 or not is_small.any():
        return attribute, ()
    if is_small.all():
        raise UserError(
            f"none of the {noun} of {shown(attribute.name)} has {least:,} training samples (the most frequent one has "
            f"{n_train.max():,}): choose a smaller --min-group-size"
        )
    rest = f"other {noun}"
    if rest in attribute.values:
        raise UserError(f"a value of {shown(attribute.name)} is called {rest!r}: rename it")
    kept = np.flatnonzero(~is_small)
    new = np.full(len(is_small), len(kept))
    new[kept] = np.arange(len(kept))
    codes = new[attribute.codes]
    names = tuple(name for name, small in zip(attribute.values, is_small, strict=True) if small)
    listed = "; ".join(f"{shown(attribute.values[i])} ({n_train[i]})" for i in np.flatnonzero(is_small)[:SHOWN])
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    log_once(
        f"attribute {shown(attribute.name)}: {len(names)} of {len(is_small)} {noun} have fewer than {least:,} training "
        f"samples and become {rest!r}, with {int((codes == len(kept)).sum()):,} samples, {n_train[is_small].sum():,} "
        f"of them in train: {listed}{more}"
    )
    return Attribute(attribute.name, (*(attribute.values[i] for i in kept), rest), codes), names


def _labels(attribute: Attribute, others: Sequence[Attribute]) -> tuple[str, ...]:
    elsewhere = {value for other in others for value in other.values}
    if any(is_bare(value) or value in elsewhere for value in attribute.values):
        return tuple(f"{attribute.name}={value}" for value in attribute.values)
    return attribute.values


def _separators() -> Iterator[str]:
    yield from (", ", "; ")
    yield from (f" {'|' * n} " for n in count(1))
