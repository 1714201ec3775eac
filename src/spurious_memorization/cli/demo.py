"""`spurmem demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..demo.settings import DemoSettings
from .app import Answer


def demo_command(
    *,
    out: Path = Path("demo"),
    verbose: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[DemoSettings | None, Parameter(name="*")] = None,
) -> Answer:
    """Run every step on generated images: data, training, study and report. It takes minutes on a CPU.

    Arguments:
        out: folder for images, run, figures and report
        verbose: print every table, not only the finding; a finished demo is not run again
    """
    from ..demo.flow import run_demo
    from ..reporting.tables.findings import findings
    from ..reporting.tables.run_tables import accuracy_table
    from ..reporting.tables.study_tables import all_study_tables, summary_table

    made = run_demo(out, settings)
    record, history, effects = made.run.record.data, made.run.history(), made.study.effects()
    last = made.run.choose_epoch("last")
    more: list[RenderableType] = []
    if verbose:
        more = [accuracy_table(history, last, record.groups, record.minority), *all_study_tables(made.study)]
    text: list[RenderableType] = [
        *findings(effects, made.study.groups()),
        summary_table(effects),
        *more,
        f"report {made.report}: open it in a browser",
        f"images {made.data}, run {made.run.path}, study {made.study.path}, figures {out / 'figures'}",
        f"next: spurmem trace {made.run.path} --criterion gradient; spurmem study {made.run.path} --help",
    ]
    facts = {
        "run": str(made.run.path),
        "study": str(made.study.path),
        "accuracy": history.query("epoch == @last").to_dict(orient="records"),
        "groups": made.study.groups().to_dict(orient="records"),
        "effects": effects.to_dict(orient="records"),
        "figures": [str(file) for file in made.figures],
        "report": str(made.report),
    }
    return Answer(text, facts)
