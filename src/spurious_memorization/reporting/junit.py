"""A check of groups as JUnit XML, which servers for continuous integration show as tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from ..comparison.group_check import GroupCheck
from .tables.check_tables import limit_text
from .tables.number_formats import format_value

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 doesn't allow, not even escaped."""


def junit_text(found: GroupCheck) -> str:
    """The check as JUnit XML: one suite per run, one test case per group and criterion.

    Groups that were not checked are skipped tests. The text is ASCII, so that no step of a pipeline can spoil it.
    """
    counts = _counts(found.checks)
    root = ElementTree.Element("testsuites", {"name": "spurmem check-groups", **counts})
    for run, rows in found.checks.groupby("run", sort=False):
        suite = ElementTree.SubElement(root, "testsuite", {"name": _allowed(str(run)), **_counts(rows)})
        for row in rows.to_dict(orient="records"):
            _add_case(suite, found, row)
    ElementTree.indent(root)
    encoded: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return encoded.decode("ascii")


def _add_case(suite: ElementTree.Element, found: GroupCheck, row: Mapping[str, Any]) -> None:
    name = f"{row['group_name']}: {limit_text(found, row['criterion'])}"
    case = ElementTree.SubElement(suite, "testcase", {"classname": _allowed(row["run"]), "name": _allowed(name)})
    if row["outcome"] == "not checked":
        reason = f"n = {row['n']}, fewer than {found.min_samples} samples"
        ElementTree.SubElement(case, "skipped", {"message": reason})
        return
    shares = ("accuracy", "threshold", "low", "high", "noise_low", "noise_high")
    text = {name: format_value(row[name], "percent") for name in shares}
    accuracy = f"accuracy {text['accuracy']} ({row['correct']} of {row['n']})"
    facts = (
        f"{accuracy} on {found.split} in epoch {row['epoch']}, 95 % interval {text['low']} to {text['high']}, "
        f"threshold {text['threshold']}, noise {text['noise_low']} to {text['noise_high']}"
    )
    if row["outcome"] == "failed":
        noise = "within noise" if row["within_noise"] else "beyond noise"
        message = f"{accuracy} is below {text['threshold']}, {noise}"
        ElementTree.SubElement(case, "failure", {"message": message, "type": row["criterion"]}).text = facts
    else:
        ElementTree.SubElement(case, "system-out").text = facts


def _counts(checks: pd.DataFrame) -> dict[str, str]:
    outcomes = checks["outcome"].value_counts()
    numbers = {"failures": outcomes.get("failed", 0), "errors": 0, "skipped": outcomes.get("not checked", 0)}
    return {"tests": str(len(checks)), **{name: str(n) for name, n in numbers.items()}}


def _allowed(text: str) -> str:
    """The text with a backslash code in place of every character that XML doesn't allow."""
    return _NOT_IN_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
