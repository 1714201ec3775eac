"""The command `spurmem`: one module a command, each a thin layer over the Python API."""

from . import data, demo, edit, import_, study, trace, train
from .app import main

__all__ = ["data", "demo", "edit", "import_", "main", "study", "trace", "train"]
