"""Objectives by name. Each method is one file in the folder `objectives`; only the file that is needed is imported.

`--objective group-dro` uses objectives/group_dro.py. A new file in the folder is a new objective.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails

from .objective_settings import ObjectiveSettings

FOLDER = Path(__file__).with_name("objectives")

T = TypeVar("T")


def objective_names() -> list[str]:
    """Names of all objectives, in alphabetical order: those of the files in the folder."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules([str(FOLDER)]))


def settings_class(name: str) -> type[ObjectiveSettings]:
    """The settings of the objective of this name.

    Raises:
        ValueError: there is no such objective.
    """
    return class_in_file(name, ObjectiveSettings)


def objective_from(objective: str | Mapping[str, Any] | ObjectiveSettings) -> ObjectiveSettings:
    """The settings of an objective.

    Arguments:
        objective: text such as "group-dro:step=0.1", the block that a run stores, or settings, which stay as they are.

    Raises:
        ValueError: the objective is unknown, or (as a pydantic.ValidationError) an option is unknown or out of range.
    """
    if isinstance(objective, ObjectiveSettings):
        return objective
    options = _options_in(objective) if isinstance(objective, str) else dict(objective)
    name = options.get("name")
    if not isinstance(name, str):
        raise ValueError("an objective needs a name, such as erm")  # noqa: TRY004  # pydantic reports ValueErrors
    kind = settings_class(name)
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise _with_name(error, name) from None


def class_in_file(name: str, base: type[T]) -> type[T]:
    """The only class derived from `base` that the file of an objective defines.

    Raises:
        ValueError: there is no such objective.
    """
    if name not in objective_names():
        raise ValueError(f"unknown objective {name!r}: choose among {', '.join(objective_names())}")
    module = importlib.import_module(f"{__package__}.objectives.{name.replace('-', '_')}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    )
    return found


def _options_in(text: str) -> dict[str, str]:
    """The options in "pruned-contrast:mask=none,fraction=0.05", and the name."""
    name, _, listed = text.partition(":")
    known = [field for field in settings_class(name).model_fields if field != "name"]
    options = {"name": name}
    for part in filter(None, listed.split(",")):
        option, equals, value = part.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"objective {name} has no option {part!r}: write {name}:option=value with one of {takes}")
        options[option] = value.strip()
    return options


def _with_name(error: ValidationError, name: str) -> ValidationError:
    """The same error, where the place of each mistake starts with the objective's name."""
    details = [
        InitErrorDetails(type=one["type"], loc=(name, *one["loc"]), input=one["input"], ctx=one.get("ctx", {}))
        for one in error.errors()
    ]
    return ValidationError.from_exception_data(name, details)


def _token(_: type, tokens: Any) -> Any:
    """What the command line gives, unchanged: the field's own validation reads it."""
    return tokens[0].value


AnyObjective = Annotated[
    SerializeAsAny[ObjectiveSettings],
    BeforeValidator(objective_from),
    Parameter(converter=_token, accepts_keys=False, n_tokens=1, metavar="OBJECTIVE"),
]
"""The type of a settings field that holds an objective. It reads what `objective_from` reads."""
