"""The command `spurmem`: one module a command, each a thin layer over the Python API."""

from . import calibrate, compare, data, demo, edit, import_, mitigate, reproduce, study, trace, train
from .app import main

__all__ = [
    "calibrate",
    "compare",
    "data",
    "demo",
    "edit",
    "import_",
    "main",
    "mitigate",
    "reproduce",
    "study",
    "trace",
    "train",
]
