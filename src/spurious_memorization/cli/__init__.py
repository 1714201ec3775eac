"""The command `spurmem`: one module a command, each a thin layer over the Python API."""

from . import calibrate, data, demo, edit, import_, reproduce, study, trace, train
from .app import main

__all__ = ["calibrate", "data", "demo", "edit", "import_", "main", "reproduce", "study", "trace", "train"]
