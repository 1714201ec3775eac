"""Libraries that only some users need. They are imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import UserError, first_line


def imported(library: str, extra: str) -> ModuleType:
    """A library of an optional extra.

    Arguments:
        library: the name under which it is imported.
        extra: the extra of this package that installs it.

    Raises:
        UserError: it is not installed, or can't be imported.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"{library} is not installed or broken ({first_line(error)}): pip install 'spurious-memorization[{extra}]'"
        ) from error
