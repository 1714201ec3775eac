"""CivilComments: comments that are toxic or not; the attribute is whether an identity is mentioned."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..console import log_once
from ..input_files import shown
from .tables import AnnotatedTable, DatasetDescription, read_description, read_frame
from .text_tables import header_of

FILE = "all_data_with_identities.csv"
ATTRIBUTE = "identity_any"
IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white", ATTRIBUTE)
"""Columns with the share of annotators that saw an identity in a comment."""

LABELS = ("non-toxic", "toxic")
MIN_SHARE = 0.5
"""Share of the annotators from which a comment is toxic, or mentions an identity."""


def read_table(folder: Path) -> AnnotatedTable | None:
    """Read CivilComments from the table of WILDS (Koh et al. 2021), `all_data_with_identities.csv`.

    A comment is toxic if at least half of the annotators say so, and mentions an identity by the same rule. Each
    identity is an attribute column; by default the attribute is whether any is mentioned.

    Returns:
        The table. None if the folder has no such file.

    Raises:
        UserError: the file can't be read.
    """
    file = folder / FILE
    if not file.exists() or not {"comment_text", "toxicity", "split", ATTRIBUTE} <= set(header_of(file)):
        return None
    identities = [name for name in IDENTITIES if name in header_of(file)]
    used = ["comment_text", "toxicity", "split", *identities]
    table = read_frame(file, usecols=used, dtype=str, keep_default_na=False)
    attributes = {name: _values(name) for name in identities}
    frame = pd.DataFrame(
        {
            "path": [str(number) for number in range(len(table))],
            "text": table["comment_text"],
            "y": _names(table["toxicity"], LABELS),
            **{name: _names(table[name], values) for name, values in attributes.items()},
            "split": table["split"],
        },
        dtype=object,
    )
    log_once(f"{shown(folder)}: CivilComments; toxic, and an identity, from a share of {MIN_SHARE} of the annotators")
    default = DatasetDescription(name="civilcomments", classes=LABELS, attributes=attributes)
    description = read_description(folder, default)
    return AnnotatedTable("civilcomments", frame, description, default_attribute=ATTRIBUTE, texts=("text",))


def _values(identity: str) -> tuple[str, str]:
    name = "identity" if identity == ATTRIBUTE else identity.replace("_", " ")
    return f"no {name}", name


def _names(shares: pd.Series, names: tuple[str, str]) -> list[str]:
    return [names[int(share >= MIN_SHARE)] for share in pd.to_numeric(shares, errors="coerce")]
