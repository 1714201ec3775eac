"""`spurmem import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..runs.import_settings import ImportSettings
from ..runs.importing import import_network
from ..settings import Execution
from .app import Answer
from .train import finished


def import_command(
    data: Path,
    /,
    *,
    out: Path,
    settings: Annotated[ImportSettings, Parameter(name="*")],
    execution: Annotated[Execution | None, Parameter(name="*")] = None,
) -> Answer:
    """Turn weight files of a network that was trained elsewhere into a run.

    Arguments:
        data: the data folder to study it on
        out: the run's directory
    """
    return finished([import_network(data, out, settings, execution=execution)])
