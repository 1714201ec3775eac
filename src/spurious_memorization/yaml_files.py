"""YAML files with named entries, read safely: plain values only, as they are written."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, first_line
from .input_files import read_text, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 20


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2: `no` and `12:30` are text, and there are no dates."""


_PlainLoader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})$", "-+0123456789"),
    (
        "float",
        r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)|[0-9]*\.[0-9]+|[0-9]+\.|\.inf)$|\.nan$",
        "-+.0123456789",
    ),
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))


def read_yaml(file: Path, example: str) -> dict[str, Any]:
    """Read the named entries of a YAML file. An empty file has none.

    Arguments:
        file: a regular file in UTF-8.
        example: an entry such as "epochs: 12", which an error message quotes.

    Raises:
        UserError: the file can't be read or is no valid YAML; it has other things than named entries, tags, anchors,
            names given twice, control characters, or more than 20 levels.
    """
    text = read_text(file, max_bytes=MAX_BYTES)
    try:
        entries = _checked(text)
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{shown(file)} is not valid YAML{place}: {error.problem}: correct it") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{shown(file)} is not valid YAML: {first_line(error)}: correct it") from error
    if not isinstance(entries, dict):
        raise UserError(f"{shown(file)} must contain entries such as `{example}`")
    return entries


def _checked(text: str) -> Any:
    """The content of a YAML text, once it is known to be plain and shallow. Raises `MarkedYAMLError` otherwise."""
    depth = 0
    for event in yaml.parse(text, Loader=_PlainLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if wrong := _wrong(event, depth):
            raise _error(wrong, event)
    loader = _PlainLoader(text)
    try:
        node = loader.get_single_node()
        _check_keys(node)
        return {} if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _wrong(event: yaml.Event, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"more than {MAX_DEPTH} levels are nested"
    if getattr(event, "anchor", None) is not None:
        return "anchors and aliases (& and *) are not used here"
    if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
        return "tags (!) are not used here"
    value = getattr(event, "value", "")
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n" for c in value):
        return "the text contains a control character"
    return None


def _check_keys(node: yaml.Node | None) -> None:
    """Check that the names in every mapping are text, and that none is given twice."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)
    if not isinstance(node, yaml.MappingNode):
        return
    names: set[str] = set()
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise _error("a name is not text: put it in quotes", key)
        if key.value in names:
            raise _error(f"{key.value!r} is given twice", key)
        names.add(key.value)
        _check_keys(value)


def _error(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
