"""Names of labels and attribute values: when two are the same, and what the values in a column stand for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..console import log
from ..errors import UserError
from ..input_files import shown
from .text_tables import place

MAX_NAME = 200
_WHOLE = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")
_NUMBER = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE)
_GAPS = ("nan", "na", "n/a", "<na>", "none", "null")
_ANSWERS = ("yes", "no", "true", "false")


def name_key(name: str) -> str:
    """The form in which equal names are equal: no blanks around it, whole numbers without ".0", composed letters."""
    text = unicodedata.normalize("NFC", name.strip())
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else text


def is_bare(name: str) -> bool:
    """Whether a name says nothing without that of its column: a number, yes or no, true or false, none or NA."""
    return _NUMBER.fullmatch(name) is not None or name.casefold() in (*_GAPS, *_ANSWERS)


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names without blanks around them.

    Raises:
        ValueError: a name is empty, too long, not printable, or given twice.
    """
    stripped = tuple(name.strip() for name in names)
    for name in stripped:
        if wrong := _unfit(name):
            raise ValueError(f"the name {shown(name)!r} {wrong}")
    keys = [name_key(name) for name in stripped]
    if len(set(keys)) < len(keys):
        twice = next(name for i, name in enumerate(stripped) if keys[i] in keys[:i])
        raise ValueError(f"{twice!r} is given twice")
    return stripped


def encode(column: pd.Series, names: tuple[str, ...] | None = None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Convert a column of text to indices.

    With `names`, the values are names if all of them are among `names`. Otherwise they are positions in `names` if all
    of them are whole numbers from 0, or truth values. What was decided is printed if the names are numbers.

    Without `names`, the different values are the names: sorted as numbers if all are whole numbers, otherwise as text.

    Arguments:
        column: the values, [rows], with the index of `read_text_table`.
        names: the known names in order.

    Returns:
        The index of each row, [rows], and the names.

    Raises:
        UserError: a cell is empty, or a value is not among `names`, is a number but not a whole one, or is no sensible
            name. The message names the first line.
    """
    check_filled(column)
    codes, values = pd.factorize(column)
    keys = [name_key(str(value)) for value in values]
    for key in keys:
        if wrong := _unfit(key):
            raise _wrong_value(column, keys, key, f", which {wrong}: correct it")
    if names is None:
        names = _own_names(column, keys)
        positions = {key: i for i, key in enumerate(names)}
    else:
        positions = _positions(column, keys, names)
    return np.array([positions[key] for key in keys], dtype=np.int64)[codes], names


def check_filled(column: pd.Series) -> None:
    """Raise a `UserError` if a cell of a column of text is empty."""
    empty = (column == "").to_numpy(dtype=bool)
    if empty.any():
        raise UserError(f"column {column.name!r} has no value in {place(column, int(empty.argmax()))}: fill it in")


def _own_names(column: pd.Series, keys: Sequence[str]) -> tuple[str, ...]:
    number = next((key for key in keys if _NUMBER.fullmatch(key) and not _WHOLE.fullmatch(key)), None)
    if number is not None:
        why = ": use whole numbers or names, or list the values as names in dataset.yaml"
        raise _wrong_value(column, keys, number, why)
    whole = [key for key in keys if _WHOLE.fullmatch(key)]
    gap = next((key for key in keys if key.casefold() in _GAPS), None)
    if gap is not None and whole and all(key in whole or key.casefold() in _GAPS for key in keys):
        why = " among numbers: fill it in, or list all values as names in dataset.yaml"
        raise _wrong_value(column, keys, gap, why)
    if len(whole) < len(keys):
        return tuple(sorted(set(keys)))
    numbers = sorted({int(key) for key in keys})
    if numbers != list(range(len(numbers))):
        log(f"column {column.name!r}: the numbers {_listed(map(str, numbers))} are names, in this order")
    return tuple(map(str, numbers))


def _positions(column: pd.Series, keys: Sequence[str], names: tuple[str, ...]) -> dict[str, int]:
    """The position in `names` that each value stands for."""
    by_name = {name_key(name): i for i, name in enumerate(names)}
    by_number = {str(i): i for i in range(len(names))}
    numeric = any(_WHOLE.fullmatch(name) for name in by_name)
    if all(key in by_name for key in keys):
        if numeric:
            log(f"column {column.name!r}: the numbers are the names {_listed(names)}, not positions")
        return by_name
    if all(key in by_number for key in keys):
        if numeric:
            log(f"column {column.name!r}: the numbers are positions, from 0, in {_listed(names)}")
        return by_number
    if len(names) == 2 and all(key.casefold() in ("false", "true") for key in keys):
        return {key: int(key.casefold() == "true") for key in keys}
    unknown = next((key for key in keys if key not in by_name and key not in by_number), None)
    if unknown is None:
        raise UserError(f"column {column.name!r} mixes names and positions: write the names {_listed(names)}")
    why = f", which is none of {_listed(names)}, or 0..{len(names) - 1}: correct it"
    raise _wrong_value(column, keys, unknown, why)


def _unfit(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name):,} characters, more than the {MAX_NAME} allowed"
    return None if name.isprintable() else "contains a control character"


def _wrong_value(column: pd.Series, keys: Sequence[str], key: str, why: str) -> UserError:
    where = place(column, int((pd.factorize(column)[0] == keys.index(key)).argmax()))
    return UserError(f"column {column.name!r} contains {shown(key)}{why} ({where})")


def _listed(names: Iterable[str], most: int = 10) -> str:
    first = [shown(name) for name in names]
    return ", ".join(first[:most]) + (f" and {len(first) - most} more" if len(first) > most else "")
