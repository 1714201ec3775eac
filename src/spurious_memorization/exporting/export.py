"""Files for other programs: the samples of a run as a table, and a section for a model card."""

from __future__ import annotations

from pathlib import Path

from ..atomic import write_text
from ..console import log
from ..datasets.sources import Images
from ..datasets.text_tables import check_replaceable
from ..errors import UserError
from ..input_files import shown
from ..reporting.tables.table import csv_text
from ..runs.run import Run
from .fiftyone import write_fiftyone
from .model_card import model_card
from .sample_table import table_of
from .saved_datasets import write_datasets
from .settings import ExportFormat


def export(
    format: ExportFormat,
    run: Run | str | Path,
    out: str | Path,
    *,
    epoch: str | int = "best",
    study: str | None = None,
    memorization: str | Path | None = None,
    data_folder: str | Path | None = None,
) -> Path:
    """Write what a run holds for another program.

    Arguments:
        format: "csv": a file with the rows of `sample_table`; "datasets": a folder for `datasets.load_from_disk`;
            "fiftyone": a folder for `fiftyone.Dataset.from_dir`; "model-card": a file with the text of `model_card`.
        run: the run, or its folder.
        out: the file, or a new folder.
        epoch: as in `sample_table`.
        study: as in `sample_table`.
        memorization: as in `sample_table`.
        data_folder: as in `sample_table`.

    Returns:
        The file or folder.

    Raises:
        UserError: as in `sample_table`; the file can't be written, or one of another kind is there; the folder is not
            empty; FiftyOne is asked for, and the data are no images.

    Example:
        ```python
        sm.export("fiftyone", "runs/first", "first_fiftyone", memorization="scores")
        ```
    """
    run, out = run if isinstance(run, Run) else Run(run), Path(out)
    if format == "model-card":
        if out.suffix != ".md":
            raise UserError(f"--out {shown(out)} will be a text in Markdown: name a file that ends in .md")
        write_text(out, model_card(run, epoch=epoch, study=study, memorization=memorization) + "\n")
        return out
    if format == "csv":
        check_replaceable(out, "table of samples", {"sample", "split", "predicted"})
    data = run.read_data(None if data_folder is None else Path(data_folder))
    table = table_of(run, data, epoch=epoch, study=study, memorization=memorization)
    source, classes = data.source, data.groups.classes
    match format:
        case "csv":
            write_text(out, csv_text(table) + "\n")
        case "datasets":
            write_datasets(table, classes, source, out)
        case "fiftyone":
            if not isinstance(source, Images):
                raise UserError("fiftyone shows images, and these data have none: choose csv or datasets")
            write_fiftyone(table, classes, source, out)
        case _:
            raise UserError(f"there is no format {format!r}: choose csv, datasets, fiftyone or model-card")
    log(f"{len(table):,} samples")
    return out
