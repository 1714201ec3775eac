"""Functions of the user, named as `module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import UserError, first_line


def load_user_function(name: str) -> Callable[..., Any]:
    """Import the function that `module:function` names. Modules in the working directory are found too.

    Raises:
        UserError: the module can't be imported, or it has no such function.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise UserError(f"{name}: {first_line(error)}: name an importable module and a function in it") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise UserError(f"{name} is a {type(function).__name__}: name an importable module and a function in it")
    found: Callable[..., Any] = function
    return found
