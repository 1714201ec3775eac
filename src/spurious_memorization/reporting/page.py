"""The report: one page that holds everything it shows, opened from disk without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from ..atomic import write_text
from ..runs.run import Run
from ..runs.records import versions
from ..settings import Execution
from .accuracy import accuracy, comparison
from .accuracy_changes import accuracy_changes, verdicts
from .colors import CONFIG
from .columns import heading, written
from .dataset_counts import counts
from .figure import CHOOSERS, ONE_AT_A_TIME, Figure, command
from .gallery import Gallery, gallery
from .layers import ablation, layers
from .page_data import figure_data, gallery_data, script_json
from .subjects import Subjects, subjects
from .tables import findings

FIGURES = {
    "accuracy": accuracy,
    "accuracy_changes": accuracy_changes,
    "verdicts": verdicts,
    "layers": layers,
    "ablation": ablation,
    "comparison": comparison,
    "counts": counts,
}
"""Every figure and table but the images, in the order of the page."""

LABELS = {"map": "ablation map", "criterion": "selected by", "size": "size of the set"}
"""What choosers are called where it isn't their name."""


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    study: str | None = None,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Path:
    """Write the report of one or several runs: a self-contained HTML file.

    It shows what is stored. The only thing calculated is which training images excite the shown channels most; that
    is kept as `top-activating.parquet` in the study's folder. Where the data are gone, the page says so in the place of the
    images.

    Arguments:
        runs: their directories.
        out: the file; `report.html` in the first run if not given.
        study: name of the only study to show; all finished ones if not given.
        data_folder: where the runs' data are now, if they were moved.
        execution: of the pass over the training images.

    Returns:
        The file.

    Raises:
        UserError: a directory is no run, no run has this study, the file can't be written.

    Example:
        ```python
        sm.report(["runs/first"])
        ```
    """
    about = subjects(runs, study)
    file = Path(out) if out is not None else about.runs[0].path / "report.html"
    write_text(file, page(about, gallery(about, data_folder, execution)))
    return file


def page(about: Subjects, images: Gallery) -> str:
    """The page as HTML."""
    figures = {name: made for name, of in FIGURES.items() if (made := of(about)) is not None}
    shown = gallery_data(images.items)
    data = {
        "config": CONFIG,
        "choosers": CHOOSERS,
        "runs": [str(run.path) for run in about.runs],
        "figures": {name: figure_data(figure) for name, figure in figures.items() if figure.chart is not None},
        "gallery": shown,
    }
    scripts = {"vega": _vega(), "code": _template_text("page.js"), "data": script_json(data)}
    parts = {
        "about": about,
        "figures": figures,
        "gallery": images,
        "left_out": shown["left_out"],
        "findings": _findings(about),
        "choosers": [(name, LABELS.get(name, name)) for name in CHOOSERS],
        "commands": _commands(about, figures),
        "settings": [_settings(run) for run in about.runs],
        "studies": [(s.place, _flat(s.study.record["settings"]), s.study.record) for s in about.studies],
        "versions": versions(),
        "style": Markup(_template_text("page.css")),
        "policy": _policy(scripts["vega"], scripts["code"]),
        **{name: Markup(text) for name, text in scripts.items()},
    }
    template = _environment().get_template("page.html.j2")
    return template.render(parts)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spurious_memorization.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "columns": _columns, "marked": _marked, "attributes": _attributes}
    environment.globals |= {"heading": heading}
    return environment


def _template_text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs nothing else."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(*scripts: str) -> str:
    """Nothing is loaded, and no script runs but ours: markup or script in a name stays text whatever happens."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _findings(about: Subjects) -> list[tuple[Mapping[str, str], list[str]]]:
    """Where it is and the two sentences, for each study; a sentence of its own for a run without one."""
    found: list[tuple[Mapping[str, str], list[str]]] = []
    for run in about.runs:
        here = [studied for studied in about.studies if studied.run is run]
        found += [(studied.place, findings(studied.study.effects())) for studied in here]
        if not here:
            none = f"Nothing has been asked about this network yet: `spurmem study {run.path}` measures edits of it."
            found.append(({"run": str(run.path)}, [none]))
    return found


def _commands(about: Subjects, figures: Mapping[str, Figure]) -> dict[str, str]:
    """The command of each figure, as the page first shows it."""
    made = {}
    for name, figure in figures.items():
        runs = about.runs if "run" not in figure.choosers else about.runs[:1]
        single = [chooser for chooser in figure.choosers if chooser in ONE_AT_A_TIME and chooser != "run"]
        choice = {chooser: figure.options(chooser)[0] for chooser in single}
        made[name] = command(name, [run.path for run in runs], choice)
    first = about.studies[0] if about.studies else None
    if first is not None:
        made["images"] = command("images", [first.run.path], {"study": first.place["study"]})
    return made


def _settings(run: Run) -> tuple[str, dict[str, Any]]:
    record = run.record
    stated = {
        "made by": record.origin,
        "network": record.network.model,
        "data": Path(record.data.folder).name,
        "fingerprint of the data": record.data.fingerprint,
        "minority groups": ", ".join(record.data.minority) or "none",
        "best epoch by": record.best_by,
        **_flat(record.settings),
        **{f"{name} (when the run was made)": version for name, version in record.versions.items()},
    }
    return str(run.path), stated


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


def _columns(figure: Figure) -> list[str]:
    """Columns of a table that are shown: what is the same in every row, of what is chosen, is left out."""
    constant = [name for name in figure.choosers if name in ONE_AT_A_TIME and len(figure.options(name)) < 2]
    return [name for name in figure.table if name not in constant]


def _marked(name: str, figure: Figure) -> str:
    """Columns that say the same in all rows that are shown together."""
    return Markup(' class="one-at-a-time"') if name in figure.choosers and name in ONE_AT_A_TIME else ""


def _cell(value: Any, name: str, figure: Figure) -> Markup:
    """A cell: a number with its stored value, text as text."""
    text = written(name, value)
    if isinstance(value, str) or text == "-" or pd.isna(value):
        kind = Markup(' class="prose"') if name == "reason" else ""
        return Markup("<td{}{}>{}</td>").format(kind, _marked(name, figure), text)
    plain = value.item() if hasattr(value, "item") else value
    exact = str(plain).lower() if isinstance(plain, bool) else repr(plain)
    return Markup('<td class="number" data-value="{}">{}</td>').format(exact, text)


def _attributes(row: Mapping[str, Any], figure: Figure) -> Markup:
    """The values by which a row is chosen."""
    return Markup("").join(Markup(' data-{}="{}"').format(name, str(row[name])) for name in figure.choosers)
