"""`spurmem export`."""

from __future__ import annotations

from pathlib import Path

from ..exporting.settings import ExportFormat
from .app import Answer


def export_command(
    format: ExportFormat,
    run: Path,
    /,
    *,
    out: Path,
    epoch: str = "best",
    study: str | None = None,
    memorization: Path | None = None,
    data: Path | None = None,
) -> Answer:
    """Write the samples of a run for other programs, or a section for a model card.

    Arguments:
        format: csv, datasets (of Hugging Face) or fiftyone: the samples with groups, answers, scores and verdicts;
            model-card: groups, gaps and verdicts in Markdown
        run: the run
        out: the file for csv and model-card, a new folder for datasets and fiftyone
        epoch: best, last or a number
        study: name of the study whose verdicts are shown; the latest one of this epoch if not given
        memorization: folder with memorization scores of the same data, which are added
        data: the run's data folder, if it was moved
    """
    from ..exporting.export import export

    place = export(format, run, out, epoch=epoch, study=study, memorization=memorization, data_folder=data)
    return Answer([f"{format} {place}"], {"format": format, "out": str(place)})
