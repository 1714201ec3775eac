"""The report: one page that holds everything it shows, opened from disk without a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from ..atomic import write_text
from ..data.samples import SPLITS, Dataset
from ..data.sources import Pictures
from ..errors import UserError
from ..run import Run, versions
from ..settings import Execution
from .accuracy import accuracy, comparison
from .colours import CONFIG
from .columns import heading, written
from .counts import counts
from .figure import CHOOSERS, Figure, command
from .gallery import Exhibit, exhibits, pictures_of
from .layers import ablation, layers
from .pictures import MOST_PICTURES, SIDE_ON_PAGE, of_each_group, summary, thumbnail
from .shifts import shifts, verdicts
from .subjects import Subjects, subjects
from .tables import findings

FIGURES = {
    "accuracy": accuracy,
    "shifts": shifts,
    "verdicts": verdicts,
    "layers": layers,
    "ablation": ablation,
    "comparison": comparison,
    "counts": counts,
}
"""Every figure and table but the pictures, in the order of the page."""

LABELS = {"map": "ablation map", "criterion": "selected by", "size": "size of the set"}
"""What choosers are called where it isn't their name."""

CHANGED_OF_EACH_GROUP = (6, 4, 2, 1)
"""So many changed pictures of each group; the first number with which all pictures fit into the page."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of all studies.

    Arguments:
        exhibits: of each study whose pictures are there, those that change most minority answers first.
        reasons: for each other run, why there are none.
    """

    exhibits: tuple[Exhibit, ...]
    reasons: Mapping[str, str]


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    study: str | None = None,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> Path:
    """Write the report of one or several runs: a self-contained HTML file.

    It shows what is stored. The only thing calculated is which training pictures excite the shown channels most; that
    is kept as `exciting.parquet` in the study's folder. Where the data are gone, the page says so in the place of the
    pictures.

    Arguments:
        runs: their directories.
        out: the file; `report.html` in the first run if not given.
        study: name of the only study to show; all finished ones if not given.
        data_folder: where the runs' data are now, if they were moved.
        execution: of the pass over the training pictures.

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


def gallery(about: Subjects, data_folder: Path | None = None, execution: Execution | None = None) -> Gallery:
    """The pictures of every study, and why others have none."""
    found: list[Exhibit] = []
    reasons: dict[str, str] = {}
    for run in about.runs:
        try:
            data = pictures_of(run, data_folder)
            for studied in about.studies:
                if studied.run is run:
                    found += exhibits(studied, data, execution)
        except UserError as error:
            reasons[str(run.path)] = str(error)
    return Gallery(tuple(found), reasons)


def page(about: Subjects, pictures: Gallery) -> str:
    """The page as HTML."""
    figures = {name: made for name, of in FIGURES.items() if (made := of(about)) is not None}
    data = {
        "config": CONFIG,
        "choosers": CHOOSERS,
        "runs": [str(run.path) for run in about.runs],
        "figures": {name: _figure_data(figure) for name, figure in figures.items() if figure.chart is not None},
        "gallery": _gallery_data(pictures),
    }
    scripts = {"vega": _vega(), "code": _template_text("page.js"), "data": _json(data)}
    parts = {
        "about": about,
        "figures": figures,
        "gallery": pictures,
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
        loader=jinja2.PackageLoader("spurious_memorization.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "columns": _columns, "attributes": _attributes}
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


def _json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever text is in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figure_data(figure: Figure) -> dict[str, Any]:
    return {
        "spec": figure.chart,
        "rows": {name: _column(figure.rows[name]) for name in figure.rows},
        "choosers": figure.choosers,
        "panels": figure.panels,
    }


def _column(values: pd.Series) -> Any:
    """A column's values; of repeated text the different ones once, with their numbers."""
    plain = [None if pd.isna(value) else value for value in values.astype(object)]
    if any(isinstance(value, str) for value in plain):
        levels = list(dict.fromkeys(plain))
        number = {level: i for i, level in enumerate(levels)}
        return {"levels": levels, "codes": [number[value] for value in plain]}
    return plain


def _gallery_data(pictures: Gallery) -> dict[str, Any]:
    """Every exhibit, each sample and picture once."""
    n = next((n for n in CHANGED_OF_EACH_GROUP if len(_shown(pictures.exhibits, n)) <= MOST_PICTURES), 1)
    samples: dict[str, Any] = {}
    sources: dict[int, int] = {}
    shown = []
    for exhibit in pictures.exhibits:
        number = sources.setdefault(id(exhibit.data.source), len(sources))
        before = dict(samples)
        entry = _exhibit_data(exhibit, n, number, samples)
        if len(samples) > MOST_PICTURES:
            samples = before
            continue
        shown.append(entry)
    return {"exhibits": shown, "samples": samples, "left_out": len(pictures.exhibits) - len(shown)}


def _shown(found: Sequence[Exhibit], n: int) -> set[tuple[int, int]]:
    """Data set and sample of every picture that would be shown."""
    keys: set[tuple[int, int]] = set()
    for exhibit in found:
        for changed in (exhibit.selected, exhibit.control):
            if changed is not None:
                keys |= {
                    (id(exhibit.data.source), int(changed.sample[i])) for i in of_each_group(changed, exhibit.data, n)
                }
        keys |= {(id(exhibit.data.source), sample) for excited in exhibit.exciting.values() for sample, _ in excited}
    return keys


def _exhibit_data(exhibit: Exhibit, n: int, source: int, samples: dict[str, Any]) -> dict[str, Any]:
    data = exhibit.data
    names, classes = data.groups.names, data.groups.classes

    def key(sample: int) -> str:
        name = f"{source}:{sample}"
        if name not in samples:
            path = data.source.paths[sample] if isinstance(data.source, Pictures) else ""
            picture = thumbnail(data, sample, SIDE_ON_PAGE)
            samples[name] = {"path": path, "label": classes[data.y[sample]], "picture": picture}
        return name

    def side(which: str) -> dict[str, Any] | None:
        changed = exhibit.selected if which == "selected" else exhibit.control
        if changed is None:
            return None
        counts = pd.Series(data.g[changed.sample]).value_counts()
        return {
            "units": changed.units,
            "summary": summary(changed, exhibit.split),
            "measured": changed.measured,
            "changed": {names[g]: int(count) for g, count in counts.items()},
            "pictures": [
                {
                    "sample": key(int(changed.sample[i])),
                    "group": names[data.g[changed.sample[i]]],
                    "before": classes[changed.before[i]],
                    "after": classes[changed.after[i]],
                }
                for i in of_each_group(changed, data, n)
            ],
        }

    return {
        **exhibit.place,
        "unit": exhibit.unit,
        "split": exhibit.split,
        "minority": [names[g] for g in data.minority],
        "selected": side("selected"),
        "control": side("control"),
        "beside": exhibit.selected_beside,
        "n_seen": exhibit.n_seen,
        "exciting": {
            unit: [
                {"sample": key(sample), "group": names[data.g[sample]], "excitation": value}
                for sample, value in excited
            ]
            for unit, excited in exhibit.exciting.items()
        },
    }


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
        choice = {
            c: figure.options(c)[0] for c in figure.choosers if c != "run" and c in ("study", "split", "edit", "map")
        }
        made[name] = command(name, [run.path for run in runs], choice)
    first = about.studies[0] if about.studies else None
    if first is not None:
        made["pictures"] = command("pictures", [first.run.path], {"study": first.place["study"]})
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
    constant = [
        name for name in ("run", "study", "edit", "map") if name in figure.table and len(set(figure.table[name])) < 2
    ]
    return [name for name in figure.table if name not in constant]


def _cell(value: Any, name: str) -> Markup:
    """A cell: a number with its stored value, text as text."""
    text = written(name, value)
    if isinstance(value, str) or text == "-" or pd.isna(value):
        return Markup("<td>{}</td>").format(text)
    exact = (
        str(bool(value)).lower() if isinstance(value, bool) else repr(value.item() if hasattr(value, "item") else value)
    )
    return Markup('<td class="number" data-value="{}">{}</td>').format(exact, text)


def _attributes(row: Mapping[str, Any], figure: Figure) -> Markup:
    """The values by which a row is chosen."""
    return Markup("").join(Markup(' data-{}="{}"').format(name, str(row[name])) for name in figure.choosers)
