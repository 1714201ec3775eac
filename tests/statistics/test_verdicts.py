"""From tests to verdicts, case by case."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from spurious_memorization.statistics.damage import DamageMatched
from spurious_memorization.statistics.selectivity import Selectivity
from spurious_memorization.statistics.verdicts import Answers, answer_questions

YES = Selectivity(difference=0.4, p=0.001, p_margin=0.3, majority_change=0.0, overlap=1.0, n_minority=20, n_majority=80)
MATCHED = DamageMatched(
    n=99,
    n_near=99,
    damage=1.0,
    damage_ratio=1.0,
    p_localized=0.01,
    drop=0.1,
    p_memorizing=0.01,
    contrast=2.0,
    contrast_matched=0.5,
)


def selective(**changes: float) -> dict[str, Selectivity]:
    return {"selective": replace(YES, **changes)}


def matched(**changes: float) -> dict[str, DamageMatched]:
    return {"damage": replace(MATCHED, **changes)}


def changed(**changes: object) -> Answers:
    recorded = {
        "accuracy_change": -0.5,
        "p_influential": 0.01,
        "n_controls": 99,
        "selective": YES,
        "damage": MATCHED,
        "p_contrast": 0.01,
        **changes,
    }
    return answer_questions(**recorded)  # type: ignore[arg-type]


NOT_ASKED = {"damage": None}

CASES = [
    ({}, (True, True, True, True), "memorizing", ""),
    (matched(p_memorizing=0.05), (True, True, True, True), "memorizing", ""),
    (matched(p_memorizing=0.0501), (True, True, True, False), "critical", ""),
    (matched(p_memorizing=math.nan), (True, True, True, None), "critical", ""),
    ({"p_contrast": 0.0101}, (True, True, True, False), "critical", ""),
    ({"p_contrast": math.nan}, (True, True, True, None), "critical", ""),
    (matched(p_localized=0.05), (True, True, True, True), "memorizing", ""),
    (matched(p_localized=0.0501), (True, True, False, True), "influential", ""),
    (matched(n=19), (True, True, True, True), "memorizing", ""),
    (
        matched(n=18),
        (True, True, None, None),
        "influential",
        "18 sets with the same damage: at least 19 are needed",
    ),
    (NOT_ASKED, (True, True, None, None), "influential", ""),
    (
        {"is_unchanged": True},
        (True, True, True, False),
        "critical",
        "training left these units as they were: they hold no samples",
    ),
    (
        {"is_unchanged": True, **matched(p_memorizing=math.nan)},
        (True, True, True, None),
        "critical",
        "training left these units as they were",
    ),
    ({"is_unchanged": True, **NOT_ASKED}, (True, True, None, None), "influential", ""),
    ({"selective": None}, (True, None, True, True), "influential", ""),
    (selective(p=0.06), (True, False, True, True), "influential", ""),
    (selective(p=0.05), (True, True, True, True), "memorizing", ""),
    (selective(p_margin=1.0), (True, True, True, True), "memorizing", ""),
    (selective(difference=0.049), (True, False, True, True), "influential", ""),
    (selective(difference=0.05), (True, True, True, True), "memorizing", ""),
    (selective(difference=0.15 - 0.1), (True, True, True, True), "memorizing", ""),
    (selective(overlap=0.5), (True, True, True, True), "memorizing", ""),
    (
        selective(overlap=0.49),
        (True, None, True, True),
        "influential",
        "only 49% of the group have majority samples of their label and margin",
    ),
    (
        selective(difference=math.nan, p=math.nan, overlap=0.0),
        (True, None, True, True),
        "influential",
        "only 0% of the group have majority samples",
    ),
    ({"p_influential": 0.05}, (True, True, True, True), "memorizing", ""),
    # a critical set need not be influential
    ({"p_influential": 0.0501}, (False, True, True, True), "memorizing", ""),
    ({"p_influential": 0.3, **matched(p_memorizing=0.2)}, (False, True, True, False), "critical", ""),
    ({"p_influential": 0.3, "selective": None}, (False, None, True, True), "none", ""),
    ({"p_influential": 0.3, **selective(p=0.06)}, (False, False, True, True), "none", ""),
    ({"p_influential": 0.05, **matched(p_localized=0.2)}, (True, True, False, True), "influential", ""),
    ({"p_influential": 0.0501, **matched(p_localized=0.2)}, (False, True, False, True), "selective", ""),
    ({"p_influential": 0.3, **NOT_ASKED}, (False, True, None, None), "selective", ""),
    ({"p_influential": 0.3, "selective": None, **NOT_ASKED}, (False, None, None, None), "none", ""),
    ({"p_influential": 0.3, **selective(difference=0, p=1), **NOT_ASKED}, (False, False, None, None), "none", ""),
    # null sets that gain don't make it influential
    ({"accuracy_change": -0.0}, (False, True, False, True), "selective", ""),
    ({"accuracy_change": 0.2, "selective": None}, (False, None, False, True), "none", ""),
    (
        {"p_influential": math.nan},
        (None, True, True, True),
        "no verdict",
        "the null sets were measured on no sample of this group",
    ),
    ({"n_controls": 18}, (None, True, True, True), "no verdict", "18 null sets: at least 19 are needed"),
    ({"n_controls": 19, "p_influential": 0.05}, (True, True, True, True), "memorizing", ""),
    (
        {"n_controls": 0, "p_influential": math.nan},
        (None, True, True, True),
        "no verdict",
        "0 null sets: at least 19 are needed",
    ),
]


@pytest.mark.parametrize(("changes", "expected", "verdict", "reason"), CASES)
def test_answers(changes, expected, verdict, reason):
    found = changed(**changes)
    answers = (found.influential, found.selective, found.localized, found.memorizing)
    assert answers == expected
    assert found.verdict == verdict
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)
    for part in answers:
        assert part is None or type(part) is bool


def test_several_reasons_are_all_given():
    found = changed(n_controls=3, **selective(overlap=0.1), **matched(n=2))
    assert found.reason.count("; ") == 2
    assert found.verdict == "no verdict"


@pytest.mark.parametrize(("influential", "selective"), [*itertools.product([True, False, None], repeat=2)])
@pytest.mark.parametrize(("localized", "memorizing"), [*itertools.product([True, False, None], repeat=2)])
def test_the_verdict_is_the_strongest_word(influential, selective, localized, memorizing):
    found = Answers(influential=influential, selective=selective, localized=localized, memorizing=memorizing)
    verdict = found.verdict
    is_critical = bool(influential is not None and selective and localized)
    assert (verdict == "no verdict") == (influential is None)
    assert (verdict in ("critical", "memorizing")) == is_critical
    assert (verdict == "memorizing") == (is_critical and bool(memorizing))
    assert (verdict == "influential") == (influential is True and not is_critical)
    assert (verdict == "selective") == (influential is False and selective is True and not is_critical)
    assert (verdict == "none") == (influential is False and not selective)
