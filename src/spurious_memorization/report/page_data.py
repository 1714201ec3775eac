"""What the page's script reads: rows of figures and the pictures of the gallery, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..data.sources import Pictures
from .figure import Figure
from .gallery import Exhibit
from .pictures import MOST_PICTURES, SIDE_ON_PAGE, of_each_group, summary, thumbnail

CHANGED_OF_EACH_GROUP = (6, 4, 2, 1)
"""So many changed pictures of each group; the first number with which all pictures fit into the page."""


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever text is in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure_data(figure: Figure) -> dict[str, Any]:
    return {
        "spec": figure.chart,
        "rows": {name: _column(figure.rows[name]) for name in figure.rows},
        "choosers": figure.choosers,
        "panels": figure.panels,
    }


def _column(values: pd.Series) -> Any:
    """A column's values; of repeated text the different ones once, with their numbers."""
    plain = [None if pd.isna(value) else value for value in values.astype(object)]
    if any(isinstance(value, str) for value in plain):
        levels = list(dict.fromkeys(plain))
        number = {level: i for i, level in enumerate(levels)}
        return {"levels": levels, "codes": [number[value] for value in plain]}
    return plain


def gallery_data(exhibits: Sequence[Exhibit]) -> dict[str, Any]:
    """Every exhibit, each sample and picture once."""
    n = next((n for n in CHANGED_OF_EACH_GROUP if len(_shown(exhibits, n)) <= MOST_PICTURES), 1)
    samples: dict[str, Any] = {}
    sources: dict[int, int] = {}
    shown = []
    for exhibit in exhibits:
        number = sources.setdefault(id(exhibit.data.source), len(sources))
        before = dict(samples)
        entry = _exhibit_data(exhibit, n, number, samples)
        if len(samples) > MOST_PICTURES:
            samples = before
            continue
        shown.append(entry)
    return {"exhibits": shown, "samples": samples, "left_out": len(exhibits) - len(shown)}


def _shown(found: Sequence[Exhibit], n: int) -> set[tuple[int, int]]:
    """Data set and sample of every picture that would be shown."""
    keys: set[tuple[int, int]] = set()
    for exhibit in found:
        source = id(exhibit.data.source)
        for changed in (exhibit.selected, exhibit.control):
            if changed is not None:
                keys |= {(source, int(changed.sample[i])) for i in of_each_group(changed, exhibit.data, n)}
        keys |= {(source, sample) for excited in exhibit.exciting.values() for sample, _ in excited}
    return keys


def _exhibit_data(exhibit: Exhibit, n: int, source: int, samples: dict[str, Any]) -> dict[str, Any]:
    data = exhibit.data
    names, classes = data.groups.names, data.groups.classes

    def key(sample: int) -> str:
        name = f"{source}:{sample}"
        if name not in samples:
            path = data.source.paths[sample] if isinstance(data.source, Pictures) else ""
            picture = thumbnail(data, sample, SIDE_ON_PAGE)
            samples[name] = {"path": path, "label": classes[data.y[sample]], "picture": picture}
        return name

    def side(which: str) -> dict[str, Any] | None:
        changed = exhibit.selected if which == "selected" else exhibit.control
        if changed is None:
            return None
        counts = pd.Series(data.g[changed.sample]).value_counts()
        return {
            "units": changed.units,
            "summary": summary(changed, exhibit.split),
            "measured": changed.measured,
            "changed": {names[g]: int(count) for g, count in counts.items()},
            "pictures": [
                {
                    "sample": key(int(changed.sample[i])),
                    "group": names[data.g[changed.sample[i]]],
                    "before": classes[changed.before[i]],
                    "after": classes[changed.after[i]],
                }
                for i in of_each_group(changed, data, n)
            ],
        }

    return {
        **exhibit.place,
        "unit": exhibit.unit,
        "split": exhibit.split,
        "minority": [names[g] for g in data.minority],
        "selected": side("selected"),
        "control": side("control"),
        "beside": exhibit.selected_beside,
        "n_seen": exhibit.n_seen,
        "exciting": {
            unit: [
                {"sample": key(sample), "group": names[data.g[sample]], "excitation": value}
                for sample, value in excited
            ]
            for unit, excited in exhibit.exciting.items()
        },
    }
