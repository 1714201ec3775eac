"""The data of the page's script: rows of figures and the images of the gallery, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...datasets.samples import Dataset
from ...datasets.sources import Images
from ...datasets.texts import Texts
from ...errors import UserError
from ..figures.figure import Figure
from ..gallery.changed_predictions import GalleryItem, first_of_each_group
from ..gallery.group_images import GroupGallery
from ..gallery.thumbnails import thumbnail
from ..gallery.word_changes import WordChange

CHANGED_OF_EACH_GROUP = (6, 4, 2, 1)
"""Changed images of each group. The first number is used with which all images fit into the page."""

MAX_IMAGES = 700
"""Different images in one page. Each takes about 3 kB."""

MAX_GROUP_IMAGES = 250
"""Of them, those that show what the groups look like."""

SIDE = 96
"""Largest side of a thumbnail in pixels."""


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element, whatever text it contains."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure_data(figure: Figure) -> dict[str, Any]:
    """Chart and rows of a figure."""
    return {
        "spec": figure.chart,
        "rows": {name: _column(figure.rows[name]) for name in figure.rows},
        "choosers": figure.choosers,
        "panels": figure.panels,
    }


def _column(values: pd.Series) -> Any:
    """A column's values. Text is stored once per different value, with one code per row."""
    plain = [None if pd.isna(value) else value for value in values.astype(object)]
    if any(isinstance(value, str) for value in plain):
        levels = list(dict.fromkeys(plain))
        number = {level: i for i, level in enumerate(levels)}
        return {"levels": levels, "codes": [number[value] for value in plain]}
    return plain


def gallery_data(items: Sequence[GalleryItem], galleries: Sequence[GroupGallery] = ()) -> dict[str, Any]:
    """Images of the groups, and every gallery item; each sample and image is stored once."""
    samples: dict[str, Any] = {}
    sources: dict[int, int] = {}
    of_groups: list[dict[str, Any]] = []
    left_out_groups: list[str] = []
    for gallery in galleries:
        number = sources.setdefault(id(gallery.data.source), len(sources))
        before = dict(samples)
        of_groups.append(_group_data(gallery, number, samples))
        if len(samples) > MAX_GROUP_IMAGES:
            samples = before
            of_groups.pop()
            left_out_groups += gallery.runs
    room = MAX_IMAGES - len(samples)
    n = next((n for n in CHANGED_OF_EACH_GROUP if len(_shown(items, n)) <= room), 1)
    shown = []
    for item in items:
        number = sources.setdefault(id(item.data.source), len(sources))
        before = dict(samples)
        entry = _item_data(item, n, number, samples)
        if len(samples) > MAX_IMAGES:
            samples = before
            continue
        shown.append(entry)
    return {
        "groups": of_groups,
        "items": shown,
        "samples": samples,
        "left_out": len(items) - len(shown),
        "left_out_groups": left_out_groups,
        "unreadable": [sample["path"] for sample in samples.values() if not sample["image"] and not sample["text"]],
    }


def _shown(found: Sequence[GalleryItem], n: int) -> set[tuple[int, int]]:
    """Data set and sample of every image that would be shown."""
    keys: set[tuple[int, int]] = set()
    for item in found:
        source = id(item.data.source)
        for changed in (item.selected, item.control):
            if changed is not None:
                keys |= {(source, int(changed.sample[i])) for i in first_of_each_group(changed, item.data, n)}
        keys |= {(source, sample) for activating in item.top_activating.values() for sample, _ in activating}
    return keys


def _key(data: Dataset, sample: int, source: int, samples: dict[str, Any]) -> str:
    """The key of a sample among the page's samples. Its image is stored there first, "" if it can't be read; or its
    texts."""
    name = f"{source}:{sample}"
    if name not in samples:
        source_of = data.source
        path = source_of.paths[sample] if isinstance(source_of, Images | Texts) else ""
        text = source_of.parts(sample) if isinstance(source_of, Texts) else ()
        try:
            image = thumbnail(data, sample, SIDE)
        except UserError:
            image = ""
        samples[name] = {"path": path, "label": data.groups.classes[data.y[sample]], "image": image, "text": text}
    return name


def _pieces(texts: Sequence[str], words: Sequence[WordChange]) -> list[list[tuple[str, float | None]]]:
    """Each text cut at these words: the words with their changes, and what is between them."""
    pieces: list[list[tuple[str, float | None]]] = []
    for part, text in enumerate(texts):
        cut: list[tuple[str, float | None]] = []
        done = 0
        for word in sorted(word for word in words if word.part == part):
            cut += [(text[done : word.start], None), (text[word.start : word.end], round(word.change, 3))]
            done = word.end
        pieces.append([*cut, (text[done:], None)])
    return pieces


def _group_data(gallery: GroupGallery, source: int, samples: dict[str, Any]) -> dict[str, Any]:
    return {
        "runs": list(gallery.runs),
        "caption": gallery.caption,
        "groups": [
            {
                "name": group.name,
                "minority": group.is_minority,
                "words": None if group.words is None else ", ".join(group.words) or "none",
                "counts": ", ".join(f"{n} in {split}" for split, n in group.counts.items()),
                "images": [
                    {"sample": _key(gallery.data, sample, source, samples), "label": label}
                    for sample, label in zip(group.samples, group.labels, strict=True)
                ],
            }
            for group in gallery.groups
        ],
    }


def _item_data(item: GalleryItem, n: int, source: int, samples: dict[str, Any]) -> dict[str, Any]:
    data = item.data
    names, classes = data.groups.names, data.groups.classes

    def key(sample: int) -> str:
        return _key(data, sample, source, samples)

    def marked(sample: int, which: str) -> dict[str, Any]:
        if which != "selected" or sample not in item.words or not isinstance(data.source, Texts):
            return {}
        return {"pieces": _pieces(data.source.parts(sample), item.words[sample])}

    def side(which: str) -> dict[str, Any] | None:
        changed = item.selected if which == "selected" else item.control
        if changed is None:
            return None
        counts = pd.Series(data.g[changed.sample]).value_counts()
        return {
            "units": changed.units,
            "measured": changed.measured,
            "changed": {names[g]: int(count) for g, count in counts.items()},
            "images": [
                {
                    "sample": key(int(changed.sample[i])),
                    "group": names[data.g[changed.sample[i]]],
                    "before": classes[changed.before[i]],
                    "after": classes[changed.after[i]],
                    **marked(int(changed.sample[i]), which),
                }
                for i in first_of_each_group(changed, data, n)
            ],
        }

    return {
        **item.place,
        "noun": data.noun,
        "unit": item.unit,
        "split": item.split,
        "minority": [names[g] for g in data.minority],
        "selected": side("selected"),
        "control": side("control"),
        "changed_on_control_samples": item.n_changed_on_control_samples,
        "n_searched": item.n_searched,
        "top_activating": {
            unit: [
                {"sample": key(sample), "group": names[data.g[sample]], "activation": value}
                for sample, value in activating
            ]
            for unit, activating in item.top_activating.items()
        },
    }
