"""`spurmem demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from ..demo.settings import DemoSettings
from .app import Answer

if TYPE_CHECKING:
    from ..calibration.known_answers import KnownAnswers


def demo_command(
    *,
    out: Path = Path("demo"),
    controls_only: Annotated[bool, Parameter(negative=())] = False,
    verbose: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[DemoSettings | None, Parameter(name="*")] = None,
) -> Answer:
    """Show what the tool can do: two controls, data, training, scores, study, repair and report, in minutes on a CPU.

    Arguments:
        out: folder for the controls, data, runs, figures and report
        controls_only: run the positive and the negative control alone
        verbose: print every table, not only the finding; a finished demo is not run again
    """
    from ..demo.flow import CONTROLS_FILE, run_controls, run_demo
    from ..reporting.inputs import read_inputs
    from ..reporting.page.in_short import cards, control_sentences
    from ..reporting.tables.run_tables import accuracy_table
    from ..reporting.tables.study_tables import all_study_tables, summary_table

    settings = settings or DemoSettings()
    if controls_only:
        answers = run_controls(out, settings.seed)
        return Answer(control_sentences(answers), _facts(answers))
    made = run_demo(out, settings)
    record, history, effects = made.run.record.data, made.run.history(), made.study.effects()
    last = made.run.choose_epoch("last")
    more: list[RenderableType] = []
    if verbose:
        more = [accuracy_table(history, last, record.groups, record.minority), *all_study_tables(made.study)]
    runs = [made.run.path, made.repaired.path]
    inputs = read_inputs(runs, memorization=made.scores.path, controls=out / CONTROLS_FILE)
    run = shlex.quote(str(made.run.path))
    text: list[RenderableType] = [
        *(card.sentence for card in cards(inputs)),
        summary_table(effects),
        *more,
        f"report {made.report}: open it in a browser",
        f"data {made.data}, runs {made.run.path} and {made.repaired.path}, figures {out / 'figures'}",
        f"next: spurmem trace {run} --criterion gradient; spurmem study {run} --help",
    ]
    facts = {
        "controls": _facts(made.controls),
        "run": str(made.run.path),
        "study": str(made.study.path),
        "accuracy": history.query("epoch == @last").to_dict(orient="records"),
        "groups": made.study.groups().to_dict(orient="records"),
        "effects": effects.to_dict(orient="records"),
        "figures": [str(file) for file in made.figures],
        "report": str(made.report),
    }
    return Answer(text, facts)


def _facts(answers: KnownAnswers) -> dict[str, Any]:
    """Both answers, and whether they are right."""
    both = {"positive": answers.positive, "negative": answers.negative}
    return {name: {"is_right": of.is_right, **of.model_dump(mode="json")} for name, of in both.items()}
