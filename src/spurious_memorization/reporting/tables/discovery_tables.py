"""Tables of `spurmem discover`: the candidate groups, their words, and how far the methods agree."""

from __future__ import annotations

import pandas as pd

from ...discovery.discover import Discovery
from ...statistics.sequential import LEVEL
from .table import Column, Table

SHOWN_WORDS = 10


def discovery_methods(found: Discovery) -> Table:
    """Each method: how many samples it calls atypical, and its agreement over seeds and with the other methods."""
    judged = "auroc" in found.methods
    caption = (
        "Atypical and unsure: samples of all splits. Unsure: the seeds disagree. Agreement: rank correlation of the "
        "scores, over seeds and with the other methods."
    )
    if judged:
        caption += " AUROC: of the score, for the true minority samples of training."
    return Table(
        title="Methods of discovery",
        rows=found.methods,
        columns=(
            Column(name="method", heading="method"),
            Column(name="n_atypical", heading="atypical", kind="count"),
            Column(name="n_unsure", heading="unsure", kind="count"),
            Column(name="rank_correlation_seeds", heading="agreement over seeds", kind="decimal"),
            Column(name="rank_correlation_methods", heading="with other methods", kind="decimal"),
            *([Column(name="auroc", heading="AUROC", kind="decimal")] if judged else []),
        ),
        caption=caption,
    )


MAX_WORDS = 5
"""Words of a group that are shown."""


def words_of_groups(found: pd.DataFrame) -> dict[str, list[str]]:
    """The first words that fit the images of each group better: {group: words}, the largest difference first.

    Arguments:
        found: as `group_words` makes it.
    """
    fitting = found["word"].where(found["fits_better"])
    return {str(name): words.dropna().head(MAX_WORDS).tolist() for name, words in fitting.groupby(found["group"])}


def fitting_words(found: pd.DataFrame) -> Table:
    """The words of each group, or that there are none."""
    words = words_of_groups(found)
    rows = found.drop_duplicates("group")[["group", "n"]]
    return Table(
        title="Words that fit a group better than the others of its class",
        rows=rows.assign(words=[", ".join(words[name]) or "none" for name in rows["group"]]).reset_index(drop=True),
        columns=(
            Column(name="group", heading="group"),
            Column(name="n", heading="n", kind="count"),
            Column(name="words", heading="words", is_long=True),
        ),
        caption=(
            f"n: training images. Words: by CLIP, adjusted p at most {LEVEL:g}, the largest difference first; at most "
            f"{MAX_WORDS}. They are hints: look at the images."
        ),
    )


def candidate_groups(found: Discovery) -> Table:
    """The candidate groups of the chosen method: number of samples in each split, and of unsure ones."""
    table = found.table[found.table["split"].isin(("train", "val", "test"))]
    counts = pd.crosstab([table["y"], table["attribute"]], table["split"]).reset_index()
    splits = [split for split in ("train", "val", "test") if split in counts]
    noun = "image" if found.words is None else "text"
    unsure = table.groupby(["y", "attribute"])["unsure"].sum().rename("unsure").reset_index()
    rows = counts.merge(unsure, on=["y", "attribute"]).rename_axis(columns=None)
    return Table(
        title=f"Candidate groups by {found.method}",
        rows=rows,
        columns=(
            Column(name="y", heading="class"),
            Column(name="attribute", heading="attribute"),
            *(Column(name=split, heading=split, kind="count") for split in splits),
            Column(name="unsure", heading="unsure", kind="count"),
        ),
        caption=f"Look at them before you trust them: the report shows the {noun}s of each group.",
    )


def words_table(words: pd.DataFrame) -> Table:
    """The words that tell atypical from typical texts, at most 10 of each class.

    Arguments:
        words: as `Discovery` has them.
    """
    return Table(
        title="Words that tell atypical from typical training texts",
        rows=words.groupby("y", sort=False).head(SHOWN_WORDS),
        columns=(
            Column(name="y", heading="class"),
            Column(name="nmi", heading="mutual information", kind="decimal"),
            Column(name="p_adjusted", heading="adjusted p", kind="p"),
            Column(name="difference", heading="difference", is_long=True),
        ),
        caption="Within each class; p is from permutations, adjusted for the number of words. Level 0.05.",
    )
