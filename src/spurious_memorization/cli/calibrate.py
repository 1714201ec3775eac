"""`spurmem calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..calibration.settings import CalibrateSettings
from .app import Answer


def calibrate_command(
    *,
    out: Path = Path("calibration"),
    workers: int | None = None,
    settings: Annotated[CalibrateSettings | None, Parameter(name="*")] = None,
) -> Answer:
    """Test this tool on networks with a known answer: with planted channels to find, and without any.

    Arguments:
        out: folder for the records of the trials; the same command continues a call that was stopped
        workers: number of processes, each with one thread; by default one per core
    """
    from ..calibration.calibrate import DESCRIPTIVE, calibrate
    from ..calibration.rates import false_rates, planted_verdicts, recalls
    from ..reporting.tables.calibration_tables import (
        false_rate_table,
        planted_lines,
        positive_rate_table,
        recall_table,
    )

    records = calibrate(out, settings, workers=workers)
    rates = {
        kind: false_rates(records, kind) for kind in ("exact_nulls", *DESCRIPTIVE) if (records["kind"] == kind).any()
    }
    text: list[RenderableType] = [false_rate_table(rates["exact_nulls"])]
    if (records["kind"] == "planted").any():
        text += [recall_table(recalls(records)), *planted_lines(records)]
    if len(rates) > 1:
        text.append(positive_rate_table({kind: rate for kind, rate in rates.items() if kind != "exact_nulls"}))
    facts = {
        "rates": {kind: {q: asdict(rate) for q, rate in found.items()} for kind, found in rates.items()},
        "recall": recalls(records).to_dict(orient="records"),
        "planted_verdicts": planted_verdicts(records),
    }
    return Answer([*text, f"records in {out}"], facts)
