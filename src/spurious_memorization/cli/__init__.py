"""The command `spurmem`: one module a command, each a thin layer over the Python API."""

from __future__ import annotations

import ast
from pathlib import Path

from .app import app, main

__all__ = ["main"]

COMMANDS = {
    "calibrate": "calibrate:calibrate_command",
    "compare": "compare:compare_command",
    "demo": "demo:demo_command",
    "edit": "edit:edit_command",
    "figure": "figure:figure_command",
    "import": "import_:import_command",
    "mitigate": "mitigate:mitigate_command",
    "report": "report:report_command",
    "reproduce": "reproduce:reproduce_command",
    "study": "study:study_command",
    "trace": "trace:trace_command",
    "train": "train:train_command",
}
"""Where each command is. Its module is imported when it is called: torch alone takes more than a second."""


def _docstring(place: str) -> str:
    """The docstring of `module:function`, read without importing it."""
    module, function = place.split(":")
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == function]
    return ast.get_docstring(found[0]) or ""


for _name, _place in COMMANDS.items():
    app.command(f"{__name__}.{_place}", name=_name, help=_docstring(_place))
app.command(f"{__name__}.data:data_app", name="data", help="Make, prepare and check data sets.")
