"""`spurmem import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..runs.import_settings import ImportSettings
from ..settings import Execution
from .app import Answer
from .finished import finished


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
        data: the data folder on which the network is studied
        out: the run's directory
    """
    from ..runs.importing import import_network

    return finished([import_network(data, out, settings, execution=execution)])
