"""The command `spurmem`: one module per command, each a thin layer over the Python API.

A command module imports settings at its top, so that every help text appears at once. It imports what needs torch or
pandas inside the functions that use it.
"""

from __future__ import annotations

from collections.abc import Callable

from .app import Answer, app, main
from .calibrate import calibrate_command
from .check_groups import check_groups_command
from .compare import compare_command
from .data import data_app
from .demo import demo_command
from .directions import directions_command
from .discover import discover_command
from .edit import edit_command
from .export import export_command
from .figure import figure_command
from .import_ import import_command
from .memorization import memorization_command
from .mitigate import mitigate_command
from .report import report_command
from .reproduce import reproduce_command
from .study import study_command
from .trace import trace_command
from .train import train_command
from .words import words_command

__all__ = ["main"]

COMMANDS: dict[str, Callable[..., Answer | None]] = {
    "calibrate": calibrate_command,
    "check-groups": check_groups_command,
    "compare": compare_command,
    "demo": demo_command,
    "discover": discover_command,
    "directions": directions_command,
    "edit": edit_command,
    "export": export_command,
    "figure": figure_command,
    "import": import_command,
    "memorization": memorization_command,
    "mitigate": mitigate_command,
    "report": report_command,
    "reproduce": reproduce_command,
    "study": study_command,
    "trace": trace_command,
    "train": train_command,
    "words": words_command,
}

for _name, _command in COMMANDS.items():
    app.command(_command, name=_name)
app.command(data_app)
