"""Images for the page and for papers: thumbnails, and an gallery item of the gallery as one figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..errors import UserError
from .accuracy import ROWS, specification
from .figure import Figure
from .gallery import Changed, GalleryItem

SIDE_ON_PAGE, SIDE_IN_FIGURE = 96, 192
ACROSS = 6

MAX_IMAGES = 700
"""At most so many different images are put into a page, at about 3 kB each."""

CHOOSERS = ("run", "study", "edit", "criterion", "size", "group")


class Shown(NamedTuple):
    """One image of an gallery item: where it stands, and what is said beneath it.

    Arguments:
        heading: of its part of the gallery item.
        sample: in the data set.
        said: the answers before and after, or the excitation.
        before, after: answers; "" where it is shown for what it excites.
        excitation: of a channel; nan where it is shown for its answers.
    """

    heading: str
    sample: int
    said: str
    before: str = ""
    after: str = ""
    activation: float = float("nan")


def thumbnail(data: Dataset, sample: int, side: int) -> str:
    """A image as a JPEG of at most `side` pixels, in a data URI."""
    if not isinstance(data.source, Images):
        raise UserError("there are no images to show: the data are tensors")
    small = data.source.open(sample)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def of_each_group(changed: Changed, data: Dataset, n: int) -> NDArray[np.int64]:
    """Positions of the first `n` changed samples of each group."""
    groups = pd.Series(data.g[changed.sample])
    return np.flatnonzero((groups.groupby(groups).cumcount() < n).to_numpy())


def parts(item: GalleryItem, n: int) -> Iterator[Shown]:
    """Every image of an gallery item: changed answers of the set and of its control, then what excites each channel.

    Arguments:
        n: so many changed samples of each group.
    """
    classes = item.data.groups.classes
    for title, changed in (("Selected", item.selected), ("Control", item.control)):
        if changed is None:
            continue
        heading = f"{title}: {', '.join(changed.units)}: {summary(changed, item.split)}"
        for i in of_each_group(changed, item.data, n):
            before, after = classes[changed.before[i]], classes[changed.after[i]]
            yield Shown(heading, int(changed.sample[i]), f"{before} → {after}", before, after)
    for unit, activating in item.top_activating.items():
        title = "Selected" if unit in item.selected.units else "Control"
        for sample, value in activating:
            yield Shown(f"{title}: what excites {unit} most", sample, f"{value:.2f}", activation=value)


def summary(changed: Changed, split: str) -> str:
    """ "18 of 1600 training images change their answer"."""
    words = {"train": "training", "val": "validation", "test": "test"}
    n = len(changed.sample)
    return f"{n} of {sum(changed.measured.values())} {words[split]} images change their answer"


def images(found: Sequence[GalleryItem], choice: Mapping[str, str | None]) -> Figure:
    """The first gallery item of a choice as a figure.

    Raises:
        UserError: there is no gallery item of the choice.
    """
    keys = [{**item.place, "group": name, "item": i} for i, item in enumerate(found) for name in _groups(item)]
    if not keys:
        raise UserError("no finished study lists its units, so there is nothing to show: `spurmem study RUN` makes one")
    every = Figure("images", "", "", None, pd.DataFrame(keys), pd.DataFrame(keys), CHOOSERS)
    chosen = every.chosen(choice).rows
    item = found[int(chosen["item"].iloc[0])]
    groups = set(chosen.loc[chosen["item"] == chosen["item"].iloc[0], "group"])
    names = item.data.groups.names
    shown = [one for one in parts(item, ACROSS) if names[item.data.g[one.sample]] in groups]
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
                    "row": line + i // ACROSS,
                    "column": i % ACROSS,
                    "image": thumbnail(item.data, one.sample, SIDE_IN_FIGURE),
                    "group": group,
                    "text": one.said,
                }
            )
            path = source.paths[one.sample] if isinstance(source, Images) else ""
            where = {**item.place, "shown for": heading, "sample": one.sample, "path": path, "group": group}
            table.append({**where, "before": one.before, "after": one.after, "activation": one.activation})
        line += -(-len(here) // ACROSS) + 0.25
    place = item.place
    return Figure(
        "images",
        f"Images: {place['edit']} on {place['size']} {item.unit}s by {place['criterion']}",
        "Training images whose answer changes when the selected units are edited and those that excite each channel "
        "most, beside those of a matched control.",
        specification(_chart(line)),
        pd.DataFrame(rows),
        pd.DataFrame(table),
    )


def _chart(lines: float) -> Any:
    cell = 130
    base = alt.Chart(ROWS).encode(
        x=alt.X("column:Q", axis=None, scale=alt.Scale(domain=[-0.5, ACROSS - 0.5], nice=False)),
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
    ).properties(width=cell * ACROSS, height=int(cell * max(lines, 1)))


def _groups(item: GalleryItem) -> list[str]:
    return list(item.selected.measured)
