"""Functions of the user, named as `module:function`. Whatever they do wrong is one line that names the function."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError, first_line


def load_user_function(name: str) -> Callable[..., Any]:
    """Import the function that `module:function` names. Modules in the working directory are found too.

    Returns:
        The function. Each call first checks that the function takes these arguments. Whatever it raises becomes a
        `UserError` that names it; the original error is its cause.

    Raises:
        UserError: the module can't be imported, it belongs to Python itself, or it has no such function.
    """
    function = _imported(name)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is no Python function: name an importable module and a function in it") from error

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise UserError(
                f"{name} is not made for this: {first_line(error)}; its arguments are {signature}"
            ) from error
        with _reported(f"{name} fails"):
            return function(*arguments, **named)

    return checked


def _imported(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    package = module_name.partition(".")[0]
    here = Path.cwd()
    if package in sys.stdlib_module_names and not ((here / package).is_dir() or (here / f"{package}.py").is_file()):
        raise UserError(f"{name} belongs to Python itself: name a function that was written for this purpose")
    sys.path.insert(0, str(here))
    try:
        with _reported(name, "name an importable module and a function in it"):
            function = getattr(importlib.import_module(module_name), function_name)
    finally:
        sys.path.remove(str(here))
    if not callable(function):
        raise UserError(f"{name} is a {type(function).__name__}: name an importable module and a function in it")
    found: Callable[..., Any] = function
    return found


@contextmanager
def _reported(what: str, remedy: str = "--debug shows where") -> Iterator[None]:
    """Make a `UserError` of what a user's code raises, also of `sys.exit`. Ctrl-C stays what it is."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        said = first_line(error)
        kind = type(error).__name__
        raise UserError(f"{what}: {said if said == kind else f'{kind}: {said}'}: {remedy}") from error
