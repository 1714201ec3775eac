"""A report, read back from its file."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd

from spurious_memorization.reporting.wording import with_names

NAMES = ("class 0 with color 0", "class 0 with color 1", "class 1 with color 0", "class 1 with color 1")
"""Groups of the tiny images."""


UNNAMED = "unnamed"
"""Tables that belong to no figure, such as the rates of the calibration."""


class Page(HTMLParser):
    """What is in a page: its tables, its script's data, and every element."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.shown: dict[str, list[dict[str, str]]] = {}
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.text = ""
        self._table = ""
        self._names: list[str] = []
        self._within = ""
        self._json = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.unnamed = self.tables.pop(UNNAMED, [])
        self.data = json.loads(self._json)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements[tag] += 1
        self.attributes.update(list(found))
        if tag == "table":
            self._table, self._names = found.get("data-figure") or UNNAMED, []
            self.tables.setdefault(self._table, [])
            self.shown.setdefault(self._table, [])
        elif tag == "th":
            self._names.append(found["data-column"] or "")
        elif tag == "tr" and self._names:
            chosen = {name.removeprefix("data-"): value for name, value in attrs}
            self.tables[self._table].append(chosen)
            self.shown[self._table].append({})
        elif tag == "td":
            name = self._names[len(self.shown[self._table][-1])]
            self.shown[self._table][-1][name] = ""
            if found.get("data-value") is not None:
                self.tables[self._table][-1][name] = json.loads(found["data-value"] or "")
        self._within = "json" if found.get("type") == "application/json" else tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._within == "json":
            self._json += data
        elif self._within == "td":
            row = self.shown[self._table][-1]
            name = list(row)[-1]
            row[name] += data
            self.tables[self._table][-1].setdefault(name, row[name])
        elif self._within not in ("script", "style"):
            self.text += data

    def rows(self, name: str) -> pd.DataFrame:
        """The rows that a figure draws."""
        columns = self.data["figures"][name]["rows"]
        return pd.DataFrame(
            {
                name: values if isinstance(values, list) else [values["levels"][code] for code in values["codes"]]
                for name, values in columns.items()
            }
        )


def in_words(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects with the names that the page uses for criteria, edits and groups."""
    named = with_names(effects)
    return named.assign(criterion=named["selected_by"], group=named["group_name"])
