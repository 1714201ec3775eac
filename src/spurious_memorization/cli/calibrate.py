"""`spurmem calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from ..calibration.settings import CalibrateExecution, CalibrateSettings
from .app import Answer


def calibrate_command(
    *,
    out: Path = Path("calibration"),
    settings: Annotated[CalibrateSettings | None, Parameter(name="*")] = None,
    execution: Annotated[CalibrateExecution | None, Parameter(name="*")] = None,
) -> Answer:
    """Test this tool on networks with a known answer: with planted channels to find, and without any.

    Arguments:
        out: folder for the records of the trials; the same command continues a call that was stopped
    """
    from ..calibration.calibrate import calibrate
    from ..calibration.rates import described_verdicts, false_rates, power, recalls
    from ..reporting.tables.calibration_tables import false_rate_table, leaderboard, power_table, verdicts_table

    records = calibrate(out, settings, execution=execution)
    rates, found = false_rates(records), power(records)
    known, ranked = described_verdicts(records), recalls(records)
    text: list[RenderableType] = []
    text += [false_rate_table(rates)] if rates else []
    text += [power_table(found)] if len(found) else []
    text += [verdicts_table(known)] if len(known) else []
    text += [leaderboard(ranked)] if len(ranked) else []
    facts = {
        "rates": {row: asdict(rate) for row, rate in rates.items()},
        **{
            name: of.to_dict(orient="records")
            for name, of in (("power", found), ("verdicts", known), ("recall", ranked))
        },
    }
    return Answer([*text, f"records in {out}"], facts)
