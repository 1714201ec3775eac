"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from spurious_memorization.reporting.formats import Format, formatted

FRAME = pd.DataFrame(
    {
        "method": ["erm_continue", "50 % | & {x}"],
        "accuracy_change": [-0.12345, np.nan],
        "p": [0.0001, -0.0],
        "n": [3, 12345],
        "verdict": [None, r"a\b~^$#"],
    }
)


def test_csv_is_read_back_as_it_was() -> None:
    text = formatted(FRAME, "csv", title="left out")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), FRAME, check_dtype=False)
    assert not text.endswith("\n")


def test_markdown() -> None:
    assert formatted(FRAME, "markdown", title="A table").splitlines() == [
        "**A table**",
        "",
        "| method | accuracy_change | p | n | verdict |",
        "| --- | ---: | ---: | ---: | --- |",
        "| erm_continue | -0.123 | 1.0e-04 | 3 | - |",
        r"| 50 % \| & {x} | - | 0.000 | 12345 | a\b~^$# |",
    ]
    assert formatted(FRAME, "markdown").startswith("| method |")


def test_latex() -> None:
    text = formatted(FRAME, "latex", title="5 % of a_b")
    for piece in (
        r"\caption{5 \% of a\_b}",
        r"\begin{tabular}{lrrrl}",
        r"erm\_continue & -0.123 & 1.0e-04 & 3 & - \\",
        r"50 \% | \& \{x\} & - & 0.000 & 12345 & a\textbackslash{}b\textasciitilde{}\textasciicircum{}\$\# \\",
        r"\bottomrule",
    ):
        assert piece in text
    assert "caption" not in formatted(FRAME, "latex")


@pytest.mark.parametrize("style", ["markdown", "latex", "csv"])
def test_a_table_without_rows(style: Format) -> None:
    assert "accuracy" in formatted(FRAME[:0], style)
