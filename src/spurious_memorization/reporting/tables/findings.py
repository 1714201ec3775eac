"""What a study found, in plain sentences: which groups are memorized, and where in the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ...datasets.sources import Noun
from ...input_files import shown
from ...statistics.effects import tested_split
from ...statistics.verdicts import VERDICTS
from ..wording import damage_matched_text, edit_text, is_usual_source, null_sets_text, selected_by
from .number_formats import format_value, interval, is_missing, p_text

FOUND = ("critical", "memorizing")


def p_influential(effects: pd.DataFrame) -> pd.Series:
    """The p-value that decides the first question: the larger one of `p_adjusted` and `p_beyond_norm`."""
    return effects[["p_adjusted", "p_beyond_norm"]].max(axis=1, skipna=False)


def findings(
    effects: pd.DataFrame,
    groups: pd.DataFrame | None = None,
    candidates: str | None = None,
    groupings: pd.DataFrame | None = None,
    noun: Noun = "image",
) -> list[str]:
    """What was found about each minority group, then how the tests ended, and at last whether groups were discovered.

    For each group, the first sentence says whether it is memorized and whether the memory is localized. If it is, a
    second one gives the figures of the strongest set.

    Arguments:
        effects: of a study.
        groups: its groups, as `Study.groups` gives them; without their rows nothing is said about memorization.
        candidates: the table of candidate groups that the groups are from; None if they were given.
        groupings: verdicts with the candidate groups of each seed, as `Study.groupings` gives them.
        noun: what a sample is called.
    """
    tests = effects[(effects["split"] == tested_split(effects)) & effects["minority"]]
    origin = [] if candidates is None else [_are_candidates(candidates, noun)]
    if tests.empty:
        return ["No minority group was measured, so there is no verdict.", *origin]
    tests = tests.assign(p_influential=p_influential(tests))
    about = {} if groups is None else {row["group_name"]: row for row in groups.to_dict(orient="records")}
    found = []
    for name, of_group in tests.sort_values("group", kind="stable").groupby("group_name", sort=False):
        found += _of_group(str(name), of_group, about.get(name), _unseen(effects))
        if groupings is not None:
            found.append(_by_grouping(groupings[groupings["group_name"] == name].iloc[1:]))
    return [*found, _how_tests_ended(tests), *origin]


def headline(effects: pd.DataFrame, groups: pd.DataFrame) -> str | None:
    """The sentence on one minority group: whether it is memorized, and where.

    It is the most memorized one, of those whose memory was localized if there are such groups.

    Arguments:
        effects: of a study.
        groups: its groups, as `Study.groups` gives them.

    Returns:
        The sentence; None if no minority group was measured in training and on unseen samples.
    """
    tests = effects[(effects["split"] == tested_split(effects)) & effects["minority"]]
    known = groups[groups["group_name"].isin(tests["group_name"]) & groups["difference"].notna()]
    if known.empty:
        return None
    found = known["group_name"].isin(tests.loc[tests["verdict"].isin(FOUND), "group_name"])
    about = known.assign(found=found & known["memorized"].astype(bool)).nlargest(1, ["found", "difference"]).iloc[0]
    of_group = tests[tests["group_name"] == about["group_name"]]
    of_group = of_group.assign(p_influential=p_influential(of_group))
    return _of_group(str(about["group_name"]), of_group, about, _unseen(effects))[0]


def _of_group(name: str, tests: pd.DataFrame, about: Mapping[str, Any] | None, unseen: pd.DataFrame) -> list[str]:
    """The sentences on one group: the answer and, if there is a critical set, its figures and those of its transplant.

    Arguments:
        name: of the group.
        tests: on this group, in the tested split.
        about: what is known of the group.
        unseen: effects on unseen samples.
    """
    memorized, head = _is_memorized(name, about)
    decided = tests[tests["verdict"] != "no verdict"]
    chosen = decided[decided["verdict"].isin(FOUND)]
    if chosen.empty:
        if decided.empty:
            return [f"{head}: no test on it could be decided."]
        missing = "no evidence that it is localized" if memorized else "no critical set was found for it"
        return [f"{head}{',' if memorized else ':'} {missing}{_nearest(decided)}."]
    first = _strongest(chosen)
    more = f", the strongest of {len(chosen)} such sets" if len(chosen) > 1 else ""
    if memorized:
        answer = f"localized in {_named_units(first)}, selected by {selected_by(first)}{more}"
    else:
        verb = "is" if first["n_units"] == 1 else "are"
        answer = f"{_named_units(first)}, selected by {selected_by(first)}, {verb} critical for it{more}"
    return [f"{head}: {answer}.", _figures(first), *_transplants(first, tests, unseen)]


def _by_grouping(others: pd.DataFrame) -> str:
    """How often the other groupings give each verdict on a group.

    Arguments:
        others: the group's rows, one per seed.
    """
    counts = others["verdict"].value_counts()
    verdicts = ", ".join(f"{verdict} in {counts[verdict]}" for verdict in VERDICTS if counts.get(verdict, 0))
    sizes = others["n_train"]
    memorized = sum(not is_missing(value) and bool(value) for value in others["memorized"])
    name = others["group_name"].iloc[0]
    return (
        f"Each of {len(others)} seeds draws {name} anew, with {sizes.min():,} to {sizes.max():,} training samples: it "
        f"is memorized in {memorized} of them, and its strongest verdict is {verdicts}."
    )


def _unseen(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects on unseen samples: in test if it was measured, otherwise in val."""
    there = [split for split in ("test", "val") if (effects["split"] == split).any()]
    return effects[effects["split"] == there[0]] if there else effects.iloc[:0]


def _transplants(first: Mapping[str, Any], tests: pd.DataFrame, unseen: pd.DataFrame) -> list[str]:
    """What happens if the same units get the weights of a twin, which was trained without the samples.

    It is a second, causal test: if the units store the samples, it takes these away, and nothing else.
    """
    if first["kind"] == "transplant":
        return []
    found = []
    same = (tests["kind"] == "transplant") & (tests["units"] == first["units"])
    for row in tests[same & (tests["verdict"] != "no verdict")].to_dict(orient="records"):
        of_set = unseen[(unseen["selected_set"] == row["selected_set"]) & (unseen["group"] == row["group"])]
        change = [f"{format_value(value, 'points')} points on unseen ones" for value in of_set["accuracy_change"]]
        found.append(
            f"A second test gives these units the weights of a twin that was trained without the samples: "
            f"{format_value(row['tested_accuracy_change'], 'points')} points on training samples "
            f"({p_text(row['p_influential'])}){''.join(f', {text}' for text in change)}; verdict {row['verdict']}."
        )
    return found


def _is_memorized(name: str, about: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Whether a group is memorized, and the beginning of the sentence that says so."""
    if about is None:
        return False, f"It is not known whether {name} is memorized, since training samples were not measured"
    if is_missing(about["memorized"]):
        missing = "unseen" if about["n_train"] else "training"
        return False, f"It is not known whether {name} is memorized, since no {missing} samples of it were measured"
    figures = (
        f"({_percent(about['train_accuracy'])} in training, {_percent(about['unseen_accuracy'])} on unseen samples, "
        f"difference {100 * about['difference']:.0f} points, {100 * about['low']:.0f} to {100 * about['high']:.0f})"
    )
    if about["memorized"]:
        return True, f"{name} is memorized {figures}"
    return False, f"{name} is not memorized, as far as these samples show {figures}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _strongest(chosen: pd.DataFrame) -> Mapping[str, Any]:
    """The memorizing set, otherwise the critical one, that hits the minority hardest compared with the majority."""
    best = chosen[chosen["verdict"] == "memorizing"] if (chosen["verdict"] == "memorizing").any() else chosen
    first: Mapping[str, Any] = best.loc[best["difference"].idxmax()].to_dict()
    return first


def _figures(first: Mapping[str, Any]) -> str:
    nulls = interval(first["control_low"], first["control_high"], "points").strip("()")
    further = -first["tested_accuracy_change"] - first["matched_drop"]
    text = (
        f"{edit_text(first)} changes its accuracy by {format_value(first['tested_accuracy_change'], 'points')} points "
        f"({null_sets_text(first['drawn_from'])}: {nulls}, {p_text(first['p_influential'])}); it loses "
        f"{100 * first['difference']:.1f} points more than majority samples of the same margin "
        f"({p_text(first['p_selective'])}), and {100 * further:.1f} points more than with "
        f"{damage_matched_text(first['matched_from'])} ({p_text(first['p_localized'])})"
    )
    contrast = (
        f"the margins of its training samples fall {format_value(first['contrast'], 'signed')} further than those of "
        f"unseen ones ({p_text(first['p_contrast'])}), and {format_value(first['matched_contrast'], 'signed')} further "
        f"with sets of the same damage ({p_text(first['p_memorizing'])})"
    )
    if first["verdict"] == "memorizing":
        return _sentence([text, f"it holds training samples: {contrast}"])
    if is_missing(first["p_memorizing"]):
        return _sentence([text, "it is not known whether it holds training samples or a feature of the group"])
    return _sentence([text, f"it may hold a feature of the group: {contrast}"])


def _nearest(decided: pd.DataFrame) -> str:
    """What stands in the way: the best verdict, and the answer that is missing."""
    influential = decided[decided["verdict"] == "influential"]
    if influential.empty:
        return f" (smallest p of {len(decided)} {_tests(len(decided))}: {_smallest(decided['p_influential'])})"
    both = influential[[not is_missing(answer) and bool(answer) for answer in influential["selective"]]]
    if influential["selective"].isna().all():
        return "; there are too few majority samples of the same margin to compare it with"
    if both.empty:
        return "; sets that lower its accuracy lower that of majority samples of the same margin as well"
    if both["localized"].isna().all():
        return "; too few random sets disturb the network as much as the sets that are influential and selective"
    return (
        "; random sets that disturb the network as much lower its accuracy as far "
        f"(smallest p: {_smallest(both['p_localized'])})"
    )


def _smallest(p: pd.Series) -> str:
    return format_value(p.min(), "p")


def _how_tests_ended(tests: pd.DataFrame) -> str:
    counts = tests["verdict"].value_counts()
    decided = int(counts.drop("no verdict", errors="ignore").sum())
    parts = []
    if decided:
        ended = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS[:-1] if counts.get(verdict, 0)]
        parts.append(f"verdicts of {decided} {_tests(decided)}: {', '.join(ended)}")
    undecided = tests[tests["verdict"] == "no verdict"]
    if len(undecided):
        reason = undecided["reason"].iloc[0]
        n = len(undecided)
        parts.append(f"{n} {'test has' if n == 1 else 'tests have'} no verdict{f' ({reason})' if reason else ''}")
    sources = [source for source in tests["drawn_from"].unique() if not is_usual_source(source)]
    parts += [f"they hold for {null_sets_text(source)}" for source in sources]
    return _sentence(parts)


def _are_candidates(table: str, noun: Noun) -> str:
    return (
        f"The groups are candidates from {shown(table)}, not labels: look at their {noun}s before you trust a verdict. "
        "Samples that networks get wrong are atypical by choice, so low accuracy on them is no finding by itself."
    )


def _tests(n: int) -> str:
    return "test" if n == 1 else "tests"


def _named_units(row: Mapping[str, Any]) -> str:
    """ "3 channels of conv1 (conv1:56,conv1:1,conv1:2)"; a large set is only counted."""
    counted = f"{row['n_units']} {row['unit']}{'s' if row['n_units'] != 1 else ''}"
    if not isinstance(row["units"], str):
        return counted
    layers = dict.fromkeys(unit.rpartition(":")[0] for unit in row["units"].split(","))
    named = f" of {' and '.join(layers)}" if len(layers) < 3 else f" of {len(layers)} layers"
    return f"{counted}{named} ({row['units']})"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
