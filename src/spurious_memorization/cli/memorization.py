"""`spurmem memorization`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import RenderableType

from ..memorization.settings import MemorizationSettings
from ..settings import MAX_COUNT
from ..training.settings import TrainingsExecution
from .app import Answer


def memorization_command(
    data: Path,
    /,
    *,
    out: Path,
    show: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 10,
    proxies: Path | None = None,
    settings: Annotated[MemorizationSettings | None, Parameter(name="*")] = None,
    execution: Annotated[TrainingsExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Measure which training samples are memorized: those that a network gets right only if it was trained on them.

    Arguments:
        data: the data folder
        out: folder for the answers of the networks; the same command continues a call that was stopped
        show: number of the most memorized samples that are shown
        proxies: a run on the same data, whose cheap proxies (such as the loss) are compared with the scores
    """
    from ..memorization.proxies import memorization_proxies, proxy_correlations
    from ..memorization.scores import memorization_scores
    from ..reporting.tables.memorization_tables import memorization_table, most_memorized_table, proxies_table
    from ..runs.run import Run

    of_run = None if proxies is None else memorization_proxies(Run(proxies), execution=execution)
    found = memorization_scores(data, out, settings, execution=execution)
    groups, scores = found.groups(), found.scores()
    text: list[RenderableType] = [
        memorization_table(groups, len(found.networks())),
        most_memorized_table(scores, show),
    ]
    facts: dict[str, Any] = {
        "groups": groups.to_dict(orient="records"),
        "samples": scores.to_dict(orient="records"),
    }
    if of_run is not None:
        correlations = proxy_correlations(found, of_run)
        text.append(proxies_table(correlations))
        facts["proxies"] = correlations.to_dict(orient="records")
    return Answer([*text, f"answers in {out}"], facts)
