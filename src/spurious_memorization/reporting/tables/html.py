"""Tables as HTML, for notebooks and for the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from .cells import Cell, Grid, Heading


def html_table(
    grid: Grid,
    *,
    strong_rows: Sequence[bool],
    attributes: Mapping[str, str] | None = None,
    row_attributes: Sequence[Mapping[str, str]] | None = None,
    column_classes: Mapping[str, str] | None = None,
) -> Markup:
    """A table element; all text is escaped.

    Arguments:
        grid: headings and cells.
        strong_rows: for each row, whether it is emphasized.
        attributes: of the table element.
        row_attributes: of each row.
        column_classes: a further class of the cells of some columns, by machine name.
    """
    classes = column_classes or {}
    head = Markup("").join(
        Markup("<th{}>{}</th>").format(
            _attributes({"scope": "col", "class": classes.get(heading.name, ""), "data-column": heading.name}),
            heading.text,
        )
        for heading in grid.headings
    )
    body = Markup("\n").join(
        Markup("<tr{}>{}</tr>").format(
            _attributes({**(row_attributes[i] if row_attributes else {}), "class": "strong" if strong else ""}),
            Markup("").join(
                _cell(cell, heading, classes.get(heading.name, ""))
                for cell, heading in zip(row, grid.headings, strict=True)
            ),
        )
        for i, (row, strong) in enumerate(zip(grid.rows, strong_rows, strict=True))
    )
    return Markup(
        "<table{}>\n<caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>"
    ).format(_attributes(attributes or {}), grid.title, head, body)


def _cell(cell: Cell, heading: Heading, column_class: str) -> Markup:
    kind = "number" if cell.exact else "prose" if heading.is_long else ""
    attributes = {"class": f"{kind} {column_class}".strip(), "data-value": cell.exact}
    text = Markup("<strong>{}</strong>").format(cell.text) if cell.is_strong else cell.text
    detail = Markup(' <span class="detail">{}</span>').format(cell.detail) if cell.detail else ""
    return Markup("<td{}>{}{}</td>").format(_attributes(attributes), text, detail)


def _attributes(values: Mapping[str, str]) -> Markup:
    """Attributes of an element; empty ones are left out, apart from those of data."""
    return Markup("").join(
        Markup(' {}="{}"').format(name, value)
        for name, value in values.items()
        if value or (name.startswith("data-") and name != "data-value")
    )
