"""Texts as a chart: every word at its place, and the words on which an edit acts underlined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ..gallery.word_changes import WordChange
from .accuracy import ROWS

LINE_LENGTH = 110
"""Characters of a line."""

HEADING_LENGTH = 85
"""Characters of a line of a heading, whose font is wider."""

MAX_LINES = 12
"""Lines of a text. A longer one is cut."""

CHARACTER = 6.6
"""Width of a character in pixels: monospaced fonts are 0.6 times as wide as high, about."""

LINE_HEIGHT = 17

_WORD = re.compile(rf"\S{{1,{LINE_LENGTH}}}")


def text_rows(texts: Sequence[str], words: Sequence[WordChange], first: float) -> tuple[list[dict[str, Any]], float]:
    """The rows that draw the texts of a sample, each from a new line on.

    Arguments:
        texts: the text, or both texts.
        words: that are underlined; twice if the edit lowers the margin because of them.
        first: the first line.

    Returns:
        The rows, and the line after them.
    """
    rows, line = [], first
    for part, text in enumerate(texts):
        of_part = [word for word in words if word.part == part]
        column, last = 0, line + MAX_LINES - 1
        for match in _WORD.finditer(text):
            if column and column + len(match[0]) > LINE_LENGTH:
                line, column = line + 1, 0
            if line > last:
                rows.append({"kind": "word", "row": last, "column": LINE_LENGTH + 1, "text": "..."})
                line = last
                break
            rows.append({"kind": "word", "row": line, "column": column, "text": match[0]})
            for word in of_part:
                start, end = max(word.start, match.start()), min(word.end, match.end())
                if start < end:
                    below = [line + 0.38, line + 0.5][: 1 + (word.change < 0)]
                    columns = {"column": column + start - match.start(), "end": column + end - match.start()}
                    rows += [{"kind": "underline", "row": place, **columns} for place in below]
            column += len(match[0]) + 1
        line += 1
    return rows, line


def texts_chart(rows: Sequence[Mapping[str, Any]], lines: float) -> Any:
    """The chart of rows that are headings, labels, words, underlines and notes.

    Arguments:
        rows: what is drawn; the longest line of a text decides the width.
        lines: how many lines there are.
    """
    ends = [row["column"] + len(row["text"]) for row in rows if row["kind"] == "word"]
    length = max([HEADING_LENGTH, *ends]) + 4
    base = alt.Chart(ROWS).encode(
        x=alt.X("column:Q", axis=None, scale=alt.Scale(domain=[0, length], nice=False)),
        y=alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[max(lines, 1), -0.5], nice=False)),
    )

    def written(kind: str, **style: Any) -> alt.Chart:
        chosen = base.transform_filter(alt.datum.kind == kind)
        return chosen.mark_text(align="left", **style).encode(text="text:N")  # type: ignore[no-any-return]

    return alt.layer(
        written("heading", fontSize=13, fontWeight="bold"),
        written("label", fontSize=11, fontStyle="italic"),
        written("note", fontSize=11),
        written("word", fontSize=11, font="monospace"),
        base.transform_filter(alt.datum.kind == "underline").mark_rule(strokeWidth=1.2).encode(x2="end:Q"),
    ).properties(width=int(CHARACTER * length), height=int(LINE_HEIGHT * max(lines, 1)))
