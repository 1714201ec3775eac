"""The report: one self-contained page that opens from disk without a network connection."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from ...atomic import check_writable, write_text
from ...calibration.rates import published_rates
from ...console import log
from ...datasets.samples import Dataset
from ...datasets.texts import Texts
from ...errors import UserError
from ...input_files import shown
from ...runs.records import versions
from ...runs.run import Run
from ...settings import Execution
from ..figures.all_figures import FIGURES
from ..figures.colors import CONFIG
from ..figures.figure import CHOOSERS, ONE_AT_A_TIME, Figure, command
from ..gallery.changed_predictions import Gallery, make_gallery
from ..gallery.most_memorized import MemorizedImage
from ..gallery.thumbnails import thumbnail
from ..inputs import ReportInputs, read_inputs
from ..tables.calibration_tables import false_rate_table, power_table
from ..tables.findings import findings
from ..tables.html import html_table
from .in_short import cards
from .page_data import SIDE, figure_data, gallery_data, script_json

LABELS = {"map": "ablation map", "criterion": "selected by", "size": "size of the set"}
"""Labels of choosers that differ from their names."""


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    study: str | None = None,
    data_folder: Path | None = None,
    memorization: str | Path | None = None,
    controls: str | Path | None = None,
    execution: Execution | None = None,
) -> Path:
    """Write the report of one or several runs: a self-contained HTML file.

    The page shows stored results. Two things are calculated: the top-activating training images of the shown channels,
    stored as `top-activating.parquet` in the study's folder, and the words on which an edit of a text network acts. If
    the data are gone, the page gives the reason instead of the images or texts.

    Arguments:
        runs: their directories.
        out: the file; `report.html` in the first run if not given.
        study: name of the only study to show; all finished ones if not given.
        data_folder: where the runs' data are now, if they were moved.
        memorization: folder with memorization scores of the same data.
        controls: file with the answers on a positive and a negative control, as `spurmem demo` makes it.
        execution: of the pass over the training images.

    Returns:
        The file.

    Raises:
        UserError: a directory is no run, no run has this study, the file can't be written, or its name doesn't end in
            .html.

    Example:
        ```python
        sm.report(["runs/first"])
        ```
    """
    if out is not None and Path(out).suffix not in (".html", ".htm"):
        raise UserError(f"--out {shown(out)} will be a page: name a file that ends in .html")
    inputs = read_inputs(runs, study, memorization=memorization, controls=controls)
    file = Path(out) if out is not None else inputs.runs[0].path / "report.html"
    check_writable(file)
    gallery = make_gallery(inputs, data_folder, execution)
    for run, reason in gallery.reasons.items():
        log(f"note: no {inputs.noun}s of {run}: {reason}")
    write_text(file, page(inputs, gallery))
    return file


def _memorized(image: MemorizedImage, data: Dataset) -> tuple[MemorizedImage, str, tuple[str, ...]]:
    """A training sample with its thumbnail, or with its texts."""
    if isinstance(data.source, Texts):
        return image, "", data.source.parts(image.sample)
    return image, thumbnail(data, image.sample, SIDE), ()


def page(inputs: ReportInputs, gallery: Gallery) -> str:
    """The page as HTML."""
    figures = {name: made for name, make in FIGURES.items() if (made := make(inputs)) is not None}
    first_screen = cards(inputs)
    drawn = {**figures, **{card.figure.name: card.figure for card in first_screen}}
    shown = gallery_data(gallery.items, gallery.groups)
    data = {
        "config": CONFIG,
        "choosers": CHOOSERS,
        "noun": inputs.noun,
        "memorization": None if inputs.memorization is None else str(inputs.memorization.path),
        "runs": [run.place for run in inputs.runs],
        "figures": {name: figure_data(figure) for name, figure in drawn.items() if figure.chart is not None},
        "gallery": shown,
    }
    scripts = {"vega": _vega(), "code": _template_text("page.js"), "data": script_json(data)}
    parts = {
        "runs": [run.place for run in inputs.runs],
        "noun": inputs.noun,
        "cards": first_screen,
        "figures": figures,
        "rates": _published_rates(),
        "gallery": gallery,
        "memorized": [_memorized(image, data) for image, data in gallery.memorized],
        **{name: shown[name] for name in ("left_out", "left_out_groups", "unreadable")},
        "findings": _findings(inputs),
        "choosers": [(name, LABELS.get(name, name)) for name in CHOOSERS],
        "commands": _commands(inputs, figures),
        "settings": [_settings(run) for run in inputs.runs],
        "studies": [(s.place, _flat(s.study.record["settings"]), s.study.record) for s in inputs.studies],
        "versions": versions(),
        "style": Markup(_template_text("page.css")),
        "policy": _policy(scripts["vega"], scripts["code"]),
        **{name: Markup(text) for name, text in scripts.items()},
    }
    template = _environment().get_template("page.html.j2")
    return template.render(parts)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spurious_memorization.reporting.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_table"] = _table
    return environment


def _template_text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs nothing else."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(*scripts: str) -> str:
    """A content policy: nothing is loaded, and only the scripts given run. Markup in a name therefore stays text."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _findings(inputs: ReportInputs) -> list[tuple[Mapping[str, str], list[str]]]:
    """For each study its place and its sentences; one sentence for a run without a study."""
    found: list[tuple[Mapping[str, str], list[str]]] = []
    for run in inputs.runs:
        here = [study for study in inputs.studies if study.run is run]
        table, noun = run.record.data.candidate_table, run.record.data.noun
        for study in here:
            one = study.study
            found.append((study.place, findings(one.effects(), one.groups(), table, one.groupings(), noun)))
        if not here:
            words = shlex.join(["spurmem", "study", run.place])
            none = f"This network has no finished study yet: `{words}` measures edits of it."
            found.append(({"run": run.place}, [none]))
    return found


def _published_rates() -> dict[str, Any]:
    """How often this version is wrong where the answer is known: tables, and the command that made them."""
    published = published_rates()
    tables = [false_rate_table(published.rates), power_table(published.power)]
    return {"command": published.command, "tables": [(table, Markup(table.html())) for table in tables]}


def _commands(inputs: ReportInputs, figures: Mapping[str, Figure]) -> dict[str, str]:
    """The command of each figure, as the page first shows it."""
    made = {}
    for name, figure in figures.items():
        runs = inputs.runs if "run" not in figure.choosers else inputs.runs[:1]
        single = [chooser for chooser in figure.choosers if chooser in ONE_AT_A_TIME and chooser != "run"]
        choice = {chooser: options[0] for chooser in single if (options := figure.options(chooser))}
        if name == "memorization" and inputs.memorization is not None:
            choice["memorization"] = str(inputs.memorization.path)
        made[name] = command(name, [run.path for run in runs], choice)
    first = inputs.studies[0] if inputs.studies else None
    if first is not None:
        made["gallery"] = command(f"{first.run.record.data.noun}s", [first.run.path], {"study": first.place["study"]})
    return made


def _settings(run: Run) -> tuple[str, dict[str, Any]]:
    record = run.record
    shown = {
        "made by": record.origin,
        "network": record.network.model,
        "data": Path(record.data.folder).name,
        "fingerprint of the data": record.data.fingerprint,
        "minority groups": ", ".join(record.data.minority) or "none",
        "best epoch by": record.best_by,
        **_flat(record.settings),
        **{f"{name} (when the run was made)": version for name, version in record.versions.items()},
    }
    return run.place, shown


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as lines of text."""
    lines: dict[str, str] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            lines |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            lines[f"{prefix}{name}"] = ", ".join(map(str, value)) or "-"
        else:
            lines[f"{prefix}{name}"] = "-" if value is None else str(value)
    return lines


def _table(figure: Figure) -> Markup:
    """The table of a figure. Each row carries the values by which a reader chooses it.

    Columns of choosers that show one value at a time are left out if they have a single value; the script hides them
    otherwise.
    """
    constant = {name for name in figure.choosers if name in ONE_AT_A_TIME and len(figure.options(name)) < 2}
    table = figure.table
    shown = replace(table, columns=tuple(column for column in table.columns if column.name not in constant))
    choices = table.rows[list(figure.choosers)].astype(str).to_dict(orient="records")
    return html_table(
        shown.grid(),
        strong_rows=shown.strong_rows(),
        attributes={"data-figure": figure.name},
        row_attributes=[{f"data-{name}": str(value) for name, value in row.items()} for row in choices],
        column_classes={name: "one-at-a-time" for name in figure.choosers if name in ONE_AT_A_TIME},
    )
