"""Candidate groups: those of a table of `spurmem discover`, and what each seed of the discovery gives alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from .samples import Dataset
from .sources import Images
from .tables import path_within
from .text_tables import read_text_table
from .texts import Texts

TYPICAL, ATYPICAL = "typical", "atypical"
"""The values of the attribute."""

GROUP_NAME = "{label}, {attribute}"

SEED_COLUMN = "seed_{}"
"""The column of a table of candidate groups with the attribute by one seed."""

_IS_OF_SEED = re.compile(SEED_COLUMN.format(r"\d+"))


def words_file(table: Path) -> Path:
    """The file with the words that fit each group of a table, as `group_words` writes it."""
    return table.with_name(f"{table.stem}_words.csv")


def with_candidate_roles(data: Dataset) -> Dataset:
    """The data with the atypical groups as minority and the typical ones as majority, if they have training samples.

    Lift can't decide this: of the typical groups, one is always below the average. Where the values have other names,
    it does.
    """
    values, counts = data.groups.attributes, data.train_counts
    roles = {
        value: tuple(g for g in range(len(data.groups)) if counts[g] and values[g % len(values)] == value)
        for value in (ATYPICAL, TYPICAL)
    }
    return replace(data, named_minority=roles[ATYPICAL], named_majority=roles[TYPICAL])


def rows_of_samples(file: Path, root: Path, paths: Sequence[str], needed: Sequence[str]) -> pd.DataFrame:
    """The rows of a table of candidate groups, one for each sample, in the order of the samples.

    Arguments:
        file: the table, as `discover` writes it.
        root: the data folder.
        paths: of the samples, relative to the folder.
        needed: columns that the table must have.

    Raises:
        UserError: the table can't be read, a column is missing, or it lacks a sample or has it twice.
    """
    table = read_text_table(file)
    if missing := [name for name in ("path", *needed) if name not in table]:
        raise UserError(
            f"{file} has no column {missing[0]!r}: it needs path and attribute, as `spurmem discover` writes"
        )
    table.index = pd.Index([path_within(root, path) for path in table["path"]])
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise UserError(f"{file} has the path {twice!r} twice: leave one row out")
    if lacking := next((path for path in paths if path not in table.index), None):
        raise UserError(f"{file} has no row for {lacking!r}: make it again by `spurmem discover` on this folder")
    return table.loc[list(paths)]


def groupings(data: Dataset, file: Path) -> dict[str, Dataset]:
    """The samples with the groups of each seed.

    Arguments:
        data: samples whose attribute is that of the table.
        file: the table, as `discover` writes it.

    Returns:
        {name of the column: the data with these groups}. Labels, splits, names and minority groups stay the same. A
        table without such columns gives none; so do groups of which some were merged.

    Raises:
        UserError: the table can't be read, lacks a sample, or has another value than the data's attribute.
    """
    is_merged = not {TYPICAL, ATYPICAL} <= set(data.groups.attributes)
    if is_merged or not isinstance(data.source, Images | Texts):
        return {}
    table = rows_of_samples(file, data.source.root, data.source.paths, ())
    columns = [name for name in table if _IS_OF_SEED.fullmatch(name)]
    codes = {value: code for code, value in enumerate(data.groups.attributes)}
    found = {}
    for column in columns:
        values = table[column]
        if unknown := next((value for value in values if value not in codes), None):
            raise UserError(f"{file}: {column} has the value {unknown!r}, which the column attribute does not have")
        found[column] = replace(
            data, a=np.array([codes[value] for value in values], np.int64), named_minority=data.minority
        )
    return found
