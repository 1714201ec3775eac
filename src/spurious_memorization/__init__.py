"""Find, prove, look at and repair the neurons that memorise an image classifier's minority examples.

Plain functions on plain data, in the order in which they are used:

    data     read_data, data
    criteria worst, magnitude, gradient, taylor, ablation, random, top
    edits    zero, mean, random_init, random_noise, rewind
    engine   evaluate
    study    matched_controls, effects, examine, agreement
    repair   pruned_units, nt_xent, val_halves, selected_epoch
    runs     train, import_network, study, mitigate, compare
"""

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0.dev0"

_HOMES = {
    name.name: f"{__name__}.{statement.module}"
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for name in statement.names
}
"""The module of every public name, from the stub beside this file, which type checkers read: one list for both."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: importing torch takes seconds, and `--help` needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the functions `data` and `study` from being hidden by the subpackages of these names."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
