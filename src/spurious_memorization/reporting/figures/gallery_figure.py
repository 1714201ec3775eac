"""One item of the gallery as a figure for papers: images, or texts with marked words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from ...datasets.sources import Images
from ...datasets.texts import Texts
from ..gallery.changed_predictions import GalleryItem, first_of_each_group
from ..gallery.thumbnails import changed_text, thumbnail
from ..gallery.word_changes import WordChange
from ..tables.columns import table_of
from .accuracy import ROWS, specification
from .figure import Figure
from .marked_texts import HEADING_LENGTH, text_rows, texts_chart

SIDE = 192
"""Largest side of a thumbnail in pixels."""

IMAGES_PER_ROW = 6

TEXTS_OF_EACH_GROUP = 3

UNDERLINED = (
    "Underlined: the words on which the edit acts most. Twice underlined: because of the word, it lowers the margin."
)

CHOOSERS = ("run", "study", "edit", "criterion", "size", "group")


class Entry(NamedTuple):
    """One image or text of a gallery item.

    Arguments:
        heading: of its part of the gallery item.
        sample: in the data set.
        label: text beside it: the predictions before and after, or the activation.
        before, after: predictions; "" for a top-activating sample.
        activation: of the channel; nan for a changed prediction.
        words: of a text, those that are marked.
    """

    heading: str
    sample: int
    label: str
    before: str = ""
    after: str = ""
    activation: float = float("nan")
    words: Sequence[WordChange] = ()


def entries(item: GalleryItem) -> Iterator[Entry]:
    """What is shown of a gallery item: changed predictions of the set and of its null set, then top-activating samples.

    A text takes more room than an image, so that fewer are shown.
    """
    classes, noun = item.data.groups.classes, item.data.noun
    n, n_activating = (IMAGES_PER_ROW, None) if noun == "image" else (TEXTS_OF_EACH_GROUP, TEXTS_OF_EACH_GROUP)
    for title, changed in (("Selected", item.selected), ("Null set", item.control)):
        if changed is None:
            continue
        heading = f"{title}: {', '.join(changed.units)}: {changed_text(changed, item.split, noun)}"
        for i in first_of_each_group(changed, item.data, n):
            sample, before, after = int(changed.sample[i]), classes[changed.before[i]], classes[changed.after[i]]
            words = item.words.get(sample, ()) if changed is item.selected else ()
            yield Entry(heading, sample, f"{before} → {after}", before, after, words=words)
    for unit, activating in item.top_activating.items():
        title = "Selected" if unit in item.selected.units else "Control"
        for sample, value in activating[:n_activating]:
            yield Entry(f"{title}: top-activating {noun}s of {unit}", sample, f"{value:.2f}", activation=value)


def gallery_figure(found: Sequence[GalleryItem], choice: Mapping[str, str | None]) -> Figure:
    """The first gallery item of a choice as a figure.

    Arguments:
        found: gallery items, all of images or all of texts.
        choice: the values that a reader chose.

    Raises:
        UserError: no gallery item fits the choice.
    """
    noun = found[0].data.noun
    keys = [{**item.place, "group": name, "item": i} for i, item in enumerate(found) for name in item.selected.measured]
    frame = pd.DataFrame(keys)
    every = Figure(name=f"{noun}s", alt="", chart=None, rows=frame, table=table_of(frame, ""), choosers=CHOOSERS)
    chosen = every.chosen(choice).rows
    item = found[int(chosen["item"].iloc[0])]
    groups = set(chosen.loc[chosen["item"] == chosen["item"].iloc[0], "group"])
    names, place = item.data.groups.names, item.place
    shown = [one for one in entries(item) if names[item.data.g[one.sample]] in groups]
    rows, chart = _drawn_texts(item, shown) if noun == "text" else _drawn_images(item, shown)
    return Figure(
        name=f"{noun}s",
        alt=f"{noun.capitalize()}s whose prediction changes when the selected units are edited, and the top-activating "
        f"{noun}s of each channel, with those of a null set.",
        chart=specification(chart),
        rows=pd.DataFrame(rows),
        table=table_of(
            pd.DataFrame(map(_table_row, [item] * len(shown), shown)),
            f"{noun.capitalize()}s: {place['edit']} on {place['size']} {item.unit}s by {place['criterion']}",
        ),
    )


def _table_row(item: GalleryItem, one: Entry) -> dict[str, Any]:
    source, of_texts = item.data.source, {}
    if isinstance(source, Texts):
        parts = source.parts(one.sample)
        marked = [f"{parts[word.part][word.start : word.end]} ({word.change:+.2f})" for word in one.words]
        of_texts = {**dict(zip(("text", "text_pair"), parts, strict=False)), "words": ", ".join(marked)}
    return {
        **item.place,
        "shown for": one.heading,
        "sample": one.sample,
        "path": source.paths[one.sample] if isinstance(source, Images | Texts) else "",
        "group": item.data.groups.names[item.data.g[one.sample]],
        "before": one.before,
        "after": one.after,
        "activation": one.activation,
        **of_texts,
    }


def _drawn_images(item: GalleryItem, shown: Sequence[Entry]) -> tuple[list[dict[str, Any]], Any]:
    """The rows of the chart, and the chart."""
    names = item.data.groups.names
    rows: list[dict[str, Any]] = []
    line = 0.0
    for heading in dict.fromkeys(one.heading for one in shown):
        rows.append({"kind": "heading", "row": line, "column": 0, "text": heading})
        line += 0.35
        here = [one for one in shown if one.heading == heading]
        for i, one in enumerate(here):
            rows.append(
                {
                    "kind": "image",
                    "row": line + i // IMAGES_PER_ROW,
                    "column": i % IMAGES_PER_ROW,
                    "image": thumbnail(item.data, one.sample, SIDE),
                    "group": names[item.data.g[one.sample]],
                    "text": one.label,
                }
            )
        line += -(-len(here) // IMAGES_PER_ROW) + 0.25
    return rows, _images_chart(line)


def _drawn_texts(item: GalleryItem, shown: Sequence[Entry]) -> tuple[list[dict[str, Any]], Any]:
    """The rows of the chart, and the chart."""
    source, names = item.data.source, item.data.groups.names
    assert isinstance(source, Texts), "the samples are texts"
    rows: list[dict[str, Any]] = []
    line = 0.0
    for heading in dict.fromkeys(one.heading for one in shown):
        for part in textwrap.wrap(heading, HEADING_LENGTH):
            rows.append({"kind": "heading", "row": line, "column": 0, "text": part})
            line += 1.2
        line += 0.2
        for one in (one for one in shown if one.heading == heading):
            label = f"{names[item.data.g[one.sample]]}: {one.label}"
            rows.append({"kind": "label", "row": line, "column": 0, "text": label})
            of_sample, line = text_rows(source.parts(one.sample), one.words, line + 1)
            rows += of_sample
            line += 0.4
        line += 0.8
    if any(one.words for one in shown):
        rows.append({"kind": "note", "row": line, "column": 0, "text": UNDERLINED})
        line += 1
    return rows, texts_chart(rows, line)


def _images_chart(lines: float) -> Any:
    cell = 130
    base = alt.Chart(ROWS).encode(
        x=alt.X("column:Q", axis=None, scale=alt.Scale(domain=[-0.5, IMAGES_PER_ROW - 0.5], nice=False)),
        y=alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[max(lines, 1) - 0.4, -0.4], nice=False)),
    )
    image = base.transform_filter(alt.datum.kind == "image")
    return alt.layer(
        base.transform_filter(alt.datum.kind == "heading")
        .mark_text(align="left", dx=-cell // 2 + 8, dy=8, fontSize=13, fontWeight="bold")
        .encode(text="text:N"),
        image.mark_image(width=92, height=92).encode(url="image:N"),
        image.mark_text(dy=-52, fontSize=10, limit=cell - 8).encode(text="group:N"),
        image.mark_text(dy=55, fontSize=10, fontWeight="bold", limit=cell - 8).encode(text="text:N"),
    ).properties(width=cell * IMAGES_PER_ROW, height=int(cell * max(lines, 1)))
