"""Tables as text for notes and papers."""

from __future__ import annotations

from collections.abc import Iterable

from .cells import Grid

_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": "$<$", ">": "$>$", "▼": r"$\blacktriangledown$"}
)
_MARKDOWN = str.maketrans({"|": r"\|", "\n": " "})


def markdown_text(grid: Grid) -> str:
    """A pipe table under its title."""
    names = (heading.text for heading in grid.headings)
    rules = ("---:" if heading.is_right else "---" for heading in grid.headings)
    lines = [_piped(names), _piped(rules), *(_piped(map(str, row)) for row in grid.rows)]
    return "\n".join([f"**{grid.title}**", "", *lines] if grid.title else lines)


def latex_text(grid: Grid) -> str:
    """A table with rules of booktabs; the title is its caption."""
    aligned = "".join("r" if heading.is_right else "l" for heading in grid.headings)
    lines = [
        rf"\begin{{tabular}}{{{aligned}}}",
        r"\toprule",
        _latex_row(heading.text for heading in grid.headings),
        r"\midrule",
        *(_latex_row(map(str, row)) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if grid.title:
        lines = [r"\begin{table}", rf"\caption{{{grid.title.translate(_LATEX)}}}", *lines, r"\end{table}"]
    return "\n".join(lines)


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.translate(_MARKDOWN) for cell in cells)} |"


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cell.translate(_LATEX) for cell in cells)} \\\\"
