"""The table model: one format per kind of value, and the same cells in every output."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from spurious_memorization.reporting.settings import TableFormat
from spurious_memorization.reporting.tables.number_formats import Kind, format_value, interval, p_text
from spurious_memorization.reporting.tables.table import Column, Table

ROWS = pd.DataFrame(
    {
        "method": ["erm_continue", "50 % | & {x}", "50 % | & {x}"],
        "accuracy_change": [-0.12345, np.nan, 0.0],
        "low": [-0.2, np.nan, -0.01],
        "p": [0.0001, 0.05, 1.0],
        "n": [3, 12345, 7],
        "verdict": [None, r"a\b~^$#", "<b>"],
        "found": [True, False, False],
    }
)


def table() -> Table:
    return Table(
        title="5 % of a_b",
        caption="A caption.",
        rows=ROWS,
        columns=(
            Column(name="method", heading="method"),
            Column(
                name="accuracy_change",
                heading="change",
                kind="points",
                detail=lambda row: interval(row["low"], 0.0, "points"),
                strong="found",
                strong_sign="▼",
            ),
            Column(name="p", heading="p", kind="p"),
            Column(name="n", heading="n", kind="count"),
            Column(name="verdict", heading="verdict"),
        ),
        strong="found",
        blocks=("method",),
    )


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("p", 0.0009, "< 0.001"),
        ("p", 0.001, "0.001"),
        ("p", 0.04999, "0.050"),
        ("p", 1.0, "1.000"),
        ("percent", 0.9366, "93.7 %"),
        ("percent_number", 0.9366, "93.7"),
        ("points", -0.0004, "+0.0"),
        ("points", 0.2, "+20.0"),
        ("points_2", -0.12345, "-12.35"),
        ("signed", -0.001, "+0.00"),
        ("decimal", 1.904, "1.90"),
        ("count", 12345, "12,345"),
        ("amount", 2.25, "2.2"),
        ("score", 0.00012346, "0.0001235"),
        ("yes_no", np.True_, "yes"),
        ("yes_no", None, "-"),
        ("text", None, "-"),
        ("points", float("nan"), "-"),
    ],
)
def test_each_kind_of_value_has_one_format(kind: Kind, value: object, text: str) -> None:
    assert format_value(value, kind) == text


def test_ranges_and_p_values_in_sentences() -> None:
    assert interval(-0.1, 0.02, "points") == "(-10.0 to +2.0)"
    assert interval(np.nan, 0.02, "points") == ""
    assert [p_text(p) for p in (0.0001, 0.12, np.nan)] == ["p < 0.001", "p = 0.120", "no p"]


def test_csv_holds_all_columns_in_full_precision() -> None:
    text = table().formatted("csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), ROWS, check_dtype=False)
    assert not text.endswith("\n")


def test_markdown() -> None:
    assert table().formatted("markdown").splitlines() == [
        "**5 % of a_b**",
        "",
        "| method | change | p | n | verdict |",
        "| --- | ---: | ---: | ---: | --- |",
        "| erm_continue | ▼ -12.3 (-20.0 to +0.0) | < 0.001 | 3 | - |",
        r"| 50 % \| & {x} | - | 0.050 | 12,345 | a\b~^$# |",
        "|  | +0.0 (-1.0 to +0.0) | 1.000 | 7 | <b> |",
    ]


def test_latex() -> None:
    text = table().formatted("latex")
    for piece in (
        r"\caption{5 \% of a\_b}",
        r"\begin{tabular}{lrrrl}",
        r"\toprule",
        r"50 \% | \& \{x\} & - & 0.050 & 12,345 & a\textbackslash{}b\textasciitilde{}\textasciicircum{}\$\# \\",
        r"\bottomrule",
    ):
        assert piece in text
    assert r"$\blacktriangledown$ -12.3" in text
    assert r"$<$ 0.001" in text


def test_html_escapes_text_and_keeps_exact_values() -> None:
    html = table().html()
    assert "&lt;b&gt;" in html
    assert 'data-value="-0.12345"><strong>▼ -12.3</strong> <span class="detail">(-20.0 to +0.0)</span></td>' in html
    assert html.count('class="strong"') == 1
    assert len(re.findall("<tr", html)) == 4


@pytest.mark.parametrize("style", ["markdown", "latex", "csv"])
def test_a_table_without_rows(style: TableFormat) -> None:
    empty = Table(title="", rows=ROWS[:0], columns=table().columns)
    assert ("accuracy_change" if style == "csv" else "change") in empty.formatted(style)


def wide_table() -> Table:
    names = [f"column_{number}" for number in range(12)]
    rows = pd.DataFrame(
        {name: [number + row / 10 for row in range(2)] for number, name in enumerate(names)}, columns=names
    )
    return Table(
        title="A [title]",
        caption="A caption",
        rows=rows,
        columns=tuple(
            Column(name=name, heading=f"a heading {n}", kind="signed", detail=lambda row: "(p = 0.012)")
            for n, name in enumerate(names)
        ),
    )


def printed(shown: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    shown = printed(wide_table(), width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for row in range(2):
        for number in range(12):
            assert f"+{number}.{row}0" in shown
    assert "A [title]" in shown
    assert "A caption" in shown


def test_a_table_that_fits_stays_a_table() -> None:
    shown = printed(wide_table(), 300)
    assert shown.count("a heading 3") == 1
    assert "┏" in shown
