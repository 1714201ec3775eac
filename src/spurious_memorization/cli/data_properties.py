"""`spurmem data properties`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ..datasets.settings import FOUND_COLUMNS, Columns
from ..reporting.settings import TableFormat
from ..settings import MAX_SEED
from .app import Answer

if TYPE_CHECKING:
    import pandas as pd

MAX_PERMUTATIONS = 100_000


def properties_command(
    folder: Path,
    /,
    *,
    out: Path | None = None,
    network: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    epoch: str = "best",
    permutations: Annotated[int, Parameter(validator=Number(gte=19, lte=MAX_PERMUTATIONS))] = 999,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_SEED))] = 0,
    format: TableFormat | None = None,
    columns: Annotated[Columns | None, Parameter(name="*")] = None,
) -> Answer:
    """Measure simple properties of every image (brightness, border, size, ...), or the words of every text, and find
    those that go with the label.

    The table needs no attribute column. No network is needed.

    Arguments:
        folder: the data folder
        out: a CSV file for the properties as attributes; in the place of metadata.csv, --attribute brightness uses them
        network: a run on these data: its accuracy along each property, and where it is worst
        split: samples of the network's accuracy
        epoch: epoch of the network: best, last or a number
        permutations: number of permutations of the labels
        seed: seed of the permutations
        format: print the tables as markdown or latex, or all numbers as one csv
    """
    import pandas as pd

    from ..atomic import write_text
    from ..datasets.folder import read_table
    from ..datasets.properties import properties_of, property_table, without_attribute
    from ..datasets.text_tables import check_replaceable
    from ..reporting.tables.property_tables import associations_table, worst_values_table
    from ..reporting.tables.table import csv_text
    from ..runs.run import Run
    from ..statistics.property_accuracies import property_accuracies
    from ..statistics.property_associations import property_associations

    named = columns or FOUND_COLUMNS
    table = read_table(folder, named)
    if out is not None:
        check_replaceable(out, "table of properties", {"path", "y", "brightness"}, {"path", "y", "words"})
    run = None if network is None else Run(network)
    data = without_attribute(folder, table, named) if run is None else run.read_data(folder)
    if run is not None:
        run.predictions(run.choose_epoch(epoch), split)  # raises an error before the images are measured
    properties = properties_of(data)
    associations = property_associations(data, properties, permutations=permutations, seed=seed)
    tables, frames = [associations_table(associations, permutations)], {"associations": associations}
    if run is not None:
        accuracies = property_accuracies(run, properties, data=data, split=split, epoch=epoch)
        tables.append(worst_values_table(accuracies, split))
        frames["accuracies"] = accuracies.assign(split=split)
    facts: dict[str, Any] = {
        "samples": len(data),
        "split_seed": data.split_seed,
        "permutations": permutations,
        "seed": seed,
        **{name: frame.to_dict(orient="records") for name, frame in frames.items()},
    }
    if out is not None:
        write_text(out, property_table(data, properties, table).to_csv(index=False))
        facts["out"] = str(out)
    if format == "csv":
        whole = pd.concat([frame.assign(table=name) for name, frame in frames.items()], ignore_index=True)
        with_table = ["table", *whole.columns.drop("table")]
        return Answer([csv_text(whole[with_table] if len(frames) > 1 else associations)], facts)
    if format is not None:
        return Answer(["\n\n".join(one.formatted(format) for one in tables)], facts)
    notes = [] if out is None else [_how_to_use(out, folder, associations)]
    return Answer([*tables, *notes], facts)


def _how_to_use(out: Path, folder: Path, associations: pd.DataFrame) -> str:
    found = associations["property"][associations["goes_with_label"]]
    command = [
        "spurmem",
        "data",
        "check",
        str(folder),
        "--attribute",
        next(iter(found), associations["property"].iloc[0]),
    ]
    table = folder / "metadata.csv"
    return f"properties {out}; in the place of {table} it gives attributes: {shlex.join(command)}"
