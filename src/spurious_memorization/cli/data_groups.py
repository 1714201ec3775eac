"""`spurmem data groups`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..datasets.settings import FOUND_COLUMNS, Columns
from ..reporting.settings import TableFormat
from ..settings import MAX_COUNT
from ..studies.settings import SplitName
from .app import Answer

if TYPE_CHECKING:
    from ..datasets.samples import Dataset
    from ..datasets.tables import AnnotatedTable


def groups_command(
    folder: Path,
    /,
    *,
    attribute: str | None = None,
    network: Path | None = None,
    epoch: str = "best",
    split: SplitName = "test",
    min_group_size: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 10,
    show: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 20,
    format: TableFormat | None = None,
    columns: Annotated[Columns | None, Parameter(name="*")] = None,
) -> Answer:
    """List the groups of every attribute, and of two or three attributes at once, where a network is the least right.

    Without a network: the groups with the lowest lift.

    Arguments:
        folder: the data folder
        attribute: attribute columns, such as a,b,c; by default those of the network, "a", or the only attribute column
        network: a run on these data, whose stored predictions are used
        epoch: epoch of the network: best, last or a number
        split: samples that are counted: train, val or test
        min_group_size: samples that a group needs to be ranked; smaller groups are counted
        show: number of rows of a table
        format: print the tables as markdown or latex, or all groups as one csv
    """
    from ..datasets.folder import attribute_columns, read_table
    from ..reporting.tables.intersection_tables import intersection_notes, intersection_tables
    from ..reporting.tables.table import csv_text
    from ..runs.run import Run
    from ..statistics.intersections import LEVEL, intersections
    from ..training.epoch_selection import stored_probabilities

    run = None if network is None else Run(network)
    if attribute is None and run is not None:
        attribute = run.record.data.settings.attribute
    named = columns or FOUND_COLUMNS
    table = read_table(folder, named)
    first = attribute_columns(table, attribute)[0]
    wanted = first if attribute is None else attribute
    data = _data(folder, table, wanted, first, named) if run is None else run.read_data(folder)
    samples = data.samples(split)
    number, correct, heading = None, None, f"{data.name}: {len(samples):,} samples in {split}"
    if run is not None:
        number = run.choose_epoch(epoch)
        correct = stored_probabilities(run, number, samples).argmax(1) == samples.y
        heading += f", {correct.mean():.1%} of them are right after epoch {number} of {run.path}"
    groups = intersections(data, wanted, correct, split=split, min_group_size=min_group_size)
    facts = {
        "folder": str(folder),
        "attribute": wanted,
        "split": split,
        "n": len(samples),
        "network": None if run is None else run.place,
        "epoch": number,
        "accuracy": None if correct is None else float(correct.mean()),
        "min_group_size": min_group_size,
        "n_ranked": int(groups["ranked"].sum()),
        "level": LEVEL,
        "adjustment": "bonferroni",
        "groups": groups.to_dict(orient="records"),
    }
    if format == "csv":
        return Answer([csv_text(groups)], facts)
    tables = intersection_tables(groups, split, show)
    if format is not None:
        return Answer(["\n\n".join(table.formatted(format) for table in tables)], facts)
    return Answer([heading, *tables, *intersection_notes(groups, split, min_group_size)], facts)


def _data(folder: Path, table: AnnotatedTable, wanted: str, first: str, columns: Columns) -> Dataset:
    """The data set. Its own groups don't matter, unless its split is made within them, as in training."""
    from ..datasets.folder import assemble

    def with_attribute(attribute: str) -> Dataset:
        return assemble(folder, table, attribute=attribute, image_size=None, minority=(), split_seed=0, columns=columns)

    data = with_attribute(first)
    return data if data.split_seed is None else with_attribute(wanted)
