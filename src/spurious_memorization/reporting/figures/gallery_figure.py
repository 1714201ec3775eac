"""One item of the gallery as a figure for papers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from ...datasets.sources import Images
from ...errors import UserError
from ..gallery.changed_predictions import GalleryItem, first_of_each_group
from ..gallery.thumbnails import changed_text, thumbnail
from ..tables.columns import table_of
from .accuracy import ROWS, specification
from .figure import Figure

SIDE = 192
"""Largest side of a thumbnail in pixels."""

IMAGES_PER_ROW = 6

CHOOSERS = ("run", "study", "edit", "criterion", "size", "group")


class ImageEntry(NamedTuple):
    """One image of a gallery item.

    Arguments:
        heading: of its part of the gallery item.
        sample: in the data set.
        label: text below the image: the predictions before and after, or the activation.
        before, after: predictions; "" for a top-activating image.
        activation: of the channel; nan for a changed prediction.
    """

    heading: str
    sample: int
    label: str
    before: str = ""
    after: str = ""
    activation: float = float("nan")


def image_entries(item: GalleryItem, n: int) -> Iterator[ImageEntry]:
    """Every image of a gallery item: changed predictions of the set and of its null set, then top-activating images.

    Arguments:
        item: of the gallery.
        n: the maximum number of changed samples of each group.
    """
    classes = item.data.groups.classes
    for title, changed in (("Selected", item.selected), ("Null set", item.control)):
        if changed is None:
            continue
        heading = f"{title}: {', '.join(changed.units)}: {changed_text(changed, item.split)}"
        for i in first_of_each_group(changed, item.data, n):
            before, after = classes[changed.before[i]], classes[changed.after[i]]
            yield ImageEntry(heading, int(changed.sample[i]), f"{before} → {after}", before, after)
    for unit, activating in item.top_activating.items():
        title = "Selected" if unit in item.selected.units else "Control"
        for sample, value in activating:
            yield ImageEntry(f"{title}: top-activating images of {unit}", sample, f"{value:.2f}", activation=value)


def gallery_figure(found: Sequence[GalleryItem], choice: Mapping[str, str | None]) -> Figure:
    """The first gallery item of a choice as a figure.

    Raises:
        UserError: no gallery item fits the choice.
    """
    keys = [{**item.place, "group": name, "item": i} for i, item in enumerate(found) for name in _groups(item)]
    if not keys:
        raise UserError("no finished study lists its units, so there are no images: `spurmem study RUN` makes one")
    frame = pd.DataFrame(keys)
    every = Figure(name="images", alt="", chart=None, rows=frame, table=table_of(frame, ""), choosers=CHOOSERS)
    chosen = every.chosen(choice).rows
    item = found[int(chosen["item"].iloc[0])]
    groups = set(chosen.loc[chosen["item"] == chosen["item"].iloc[0], "group"])
    names = item.data.groups.names
    shown = [one for one in image_entries(item, IMAGES_PER_ROW) if names[item.data.g[one.sample]] in groups]
    rows, table, line = [], [], 0.0
    source = item.data.source
    for heading in dict.fromkeys(one.heading for one in shown):
        rows.append({"kind": "heading", "row": line, "column": 0, "text": heading})
        line += 0.35
        here = [one for one in shown if one.heading == heading]
        for i, one in enumerate(here):
            group = names[item.data.g[one.sample]]
            rows.append(
                {
                    "kind": "image",
                    "row": line + i // IMAGES_PER_ROW,
                    "column": i % IMAGES_PER_ROW,
                    "image": thumbnail(item.data, one.sample, SIDE),
                    "group": group,
                    "text": one.label,
                }
            )
            path = source.paths[one.sample] if isinstance(source, Images) else ""
            where = {**item.place, "shown for": heading, "sample": one.sample, "path": path, "group": group}
            table.append({**where, "before": one.before, "after": one.after, "activation": one.activation})
        line += -(-len(here) // IMAGES_PER_ROW) + 0.25
    place = item.place
    return Figure(
        name="images",
        alt="Images whose prediction changes when the selected units are edited, and the top-activating images of each "
        "channel, with those of a null set.",
        chart=specification(_chart(line)),
        rows=pd.DataFrame(rows),
        table=table_of(
            pd.DataFrame(table), f"Images: {place['edit']} on {place['size']} {item.unit}s by {place['criterion']}"
        ),
    )


def _chart(lines: float) -> Any:
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


def _groups(item: GalleryItem) -> list[str]:
    return list(item.selected.measured)
