"""Pictures for the page and for papers: thumbnails, and an exhibit of the gallery as one figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.samples import Dataset
from ..data.sources import Pictures
from ..errors import UserError
from .accuracy import ROWS, specification
from .figure import Figure
from .gallery import Changed, Exhibit

SIDE_ON_PAGE, SIDE_IN_FIGURE = 96, 192
ACROSS = 6

MOST_PICTURES = 700
"""At most so many different pictures are put into a page, at about 3 kB each."""

CHOOSERS = ("run", "study", "edit", "criterion", "size", "group")


class Shown(NamedTuple):
    """One picture of an exhibit: where it stands, and what is said beneath it.

    Arguments:
        heading: of its part of the exhibit.
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
    excitation: float = float("nan")


def thumbnail(data: Dataset, sample: int, side: int) -> str:
    """A picture as a JPEG of at most `side` pixels, in a data URI."""
    if not isinstance(data.source, Pictures):
        raise UserError("there are no pictures to show: the data are tensors")
    small = data.source.open(sample)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def of_each_group(changed: Changed, data: Dataset, n: int) -> NDArray[np.int64]:
    """Positions of the first `n` changed samples of each group."""
    groups = pd.Series(data.g[changed.sample])
    return np.flatnonzero((groups.groupby(groups).cumcount() < n).to_numpy())


def parts(exhibit: Exhibit, n: int) -> Iterator[Shown]:
    """Every picture of an exhibit: changed answers of the set and of its control, then what excites each channel.

    Arguments:
        n: so many changed samples of each group.
    """
    classes = exhibit.data.groups.classes
    for title, changed in (("Selected", exhibit.selected), ("Control", exhibit.control)):
        if changed is None:
            continue
        heading = f"{title}: {', '.join(changed.units)}: {summary(changed, exhibit.split)}"
        for i in of_each_group(changed, exhibit.data, n):
            before, after = classes[changed.before[i]], classes[changed.after[i]]
            yield Shown(heading, int(changed.sample[i]), f"{before} → {after}", before, after)
    for unit, excited in exhibit.exciting.items():
        title = "Selected" if unit in exhibit.selected.units else "Control"
        for sample, value in excited:
            yield Shown(f"{title}: what excites {unit} most", sample, f"{value:.2f}", excitation=value)


def summary(changed: Changed, split: str) -> str:
    """ "18 of 1600 training pictures change their answer"."""
    words = {"train": "training", "val": "validation", "test": "test"}
    n = len(changed.sample)
    return f"{n} of {sum(changed.measured.values())} {words[split]} pictures change their answer"


def pictures(found: Sequence[Exhibit], choice: Mapping[str, str | None]) -> Figure:
    """The first exhibit of a choice as a figure.

    Raises:
        UserError: there is no exhibit of the choice.
    """
    keys = [
        {**exhibit.place, "group": name, "exhibit": i} for i, exhibit in enumerate(found) for name in _groups(exhibit)
    ]
    if not keys:
        raise UserError("no finished study lists its units, so there is nothing to show: `spurmem study RUN` makes one")
    every = Figure("pictures", "", "", None, pd.DataFrame(keys), pd.DataFrame(keys), CHOOSERS)
    chosen = every.chosen(choice).rows
    exhibit = found[int(chosen["exhibit"].iloc[0])]
    groups = set(chosen.loc[chosen["exhibit"] == chosen["exhibit"].iloc[0], "group"])
    names = exhibit.data.groups.names
    shown = [one for one in parts(exhibit, ACROSS) if names[exhibit.data.g[one.sample]] in groups]
    rows, table, line = [], [], 0.0
    source = exhibit.data.source
    for heading in dict.fromkeys(one.heading for one in shown):
        rows.append({"kind": "heading", "row": line, "column": 0, "text": heading})
        line += 0.35
        here = [one for one in shown if one.heading == heading]
        for i, one in enumerate(here):
            group = names[exhibit.data.g[one.sample]]
            rows.append(
                {
                    "kind": "picture",
                    "row": line + i // ACROSS,
                    "column": i % ACROSS,
                    "picture": thumbnail(exhibit.data, one.sample, SIDE_IN_FIGURE),
                    "group": group,
                    "text": one.said,
                }
            )
            path = source.paths[one.sample] if isinstance(source, Pictures) else ""
            where = {**exhibit.place, "shown for": heading, "sample": one.sample, "path": path, "group": group}
            table.append({**where, "before": one.before, "after": one.after, "excitation": one.excitation})
        line += -(-len(here) // ACROSS) + 0.25
    place = exhibit.place
    return Figure(
        "pictures",
        f"Pictures: {place['edit']} on {place['size']} {exhibit.unit}s by {place['criterion']}",
        "Training pictures whose answer changes when the selected units are edited and those that excite each channel "
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
    picture = base.transform_filter(alt.datum.kind == "picture")
    return alt.layer(
        base.transform_filter(alt.datum.kind == "heading")
        .mark_text(align="left", dx=-cell // 2 + 8, dy=8, fontSize=13, fontWeight="bold")
        .encode(text="text:N"),
        picture.mark_image(width=92, height=92).encode(url="picture:N"),
        picture.mark_text(dy=-52, fontSize=10, limit=cell - 8).encode(text="group:N"),
        picture.mark_text(dy=55, fontSize=10, fontWeight="bold", limit=cell - 8).encode(text="text:N"),
    ).properties(width=cell * ACROSS, height=int(cell * max(lines, 1)))


def _groups(exhibit: Exhibit) -> list[str]:
    return list(exhibit.selected.measured)
