"""`spurmem demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..demo import DemoSettings, demo
from ..reporting.tables import accuracy_change_table, accuracy_table, findings, verdict_table
from .app import Answer


def demo_command(
    *, out: Path = Path("demo"), settings: Annotated[DemoSettings | None, Parameter(name="*")] = None
) -> Answer:
    """The whole flow on generated images, on a CPU, in minutes; it ends in a report.

    Arguments:
        out: folder for images, run, figures and report
    """
    made = demo(out, settings)
    record, history, effects = made.run.record.data, made.run.history(), made.study.effects()
    last = made.run.choose_epoch("last")
    text: list[RenderableType] = [
        accuracy_table(history, last, record.groups, record.minority),
        *(accuracy_change_table(effects, split) for split in dict.fromkeys(effects["split"])),
        verdict_table(effects, "train"),
        *findings(effects),
        f"images {made.data}, run {made.run.path}, study {made.study.path}",
        "figures " + ", ".join(str(file) for file in made.figures),
        f"report {made.report}: open it in a browser",
        f"next: spurmem trace {made.run.path} --criterion gradient; spurmem study {made.run.path} --help",
    ]
    facts = {
        "run": str(made.run.path),
        "study": str(made.study.path),
        "accuracy": history.query("epoch == @last").to_dict(orient="records"),
        "effects": effects.to_dict(orient="records"),
        "figures": [str(file) for file in made.figures],
        "report": str(made.report),
    }
    return Answer(text, facts)
