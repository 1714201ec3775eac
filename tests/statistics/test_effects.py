"""Effects: accuracy changes compared with fairlearn's, verdicts with the pure functions; and pseudo-minorities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from max_statistic import step_down
from outcome_cases import by_group, cases

import spurious_memorization as sm
from spurious_memorization.datasets.pseudo_minority import with_pseudo_minority
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.intervals import paired_interval
from spurious_memorization.statistics.contrast import contrast_p
from spurious_memorization.statistics.damage import SetEffects, damage_matched
from spurious_memorization.statistics.sample_effects import SampleEffects
from spurious_memorization.statistics.selectivity import GroupEffects, selectivity
from spurious_memorization.statistics.verdicts import answer_questions

QUICK = settings(max_examples=25, deadline=None)


def unit(number: int) -> sm.Units:
    return sm.Units("channel", ("a.weight",), np.array([0]), np.array([number]))


@pytest.mark.slow
@QUICK
@given(case=cases(), n_null=st.integers(0, 3))
def test_effects_are_differences_of_two_metric_frames(case, n_null):
    samples, before, after = case
    units = [unit(i) for i in range(len(after.edits))]
    selected = sm.edits.zero(units[0])
    matched = [sm.edits.zero(u) for u in units[1:]]
    matched = [edit.on(edit.units, matched_to=selected.digest()) for edit in matched[:n_null]]
    edits = (selected, *matched, *(sm.edits.zero(u) for u in units[1 + len(matched) :]))
    table = sm.effects(
        sm.Outcomes(edits=edits, index=before.index, before=before, after=after, engine="plain"), samples
    )
    accuracy_changes = [by_group(samples, row) - by_group(samples, before.predicted[0]) for row in after.predicted]
    names = [samples.dataset.groups.names[g] for g in accuracy_changes[0].index]
    assert sorted(set(table["edit"])) == [i for i, edit in enumerate(edits) if edit.matched_to is None]
    for edit, here in table.groupby("edit"):
        here = here.set_index("group").loc[names]
        np.testing.assert_allclose(here["accuracy_change"], accuracy_changes[edit], atol=1e-12)
        np.testing.assert_allclose(here["accuracy_after"] - here["accuracy_before"], accuracy_changes[edit], atol=1e-12)
        assert ((here["low"] <= here["accuracy_change"]) & (here["accuracy_change"] <= here["high"])).all()
        others = np.array(accuracy_changes[1 : 1 + len(matched)]) if edit == 0 else np.empty((0, len(names)))
        assert (here["n_controls"] == len(others)).all()
        if len(others):
            np.testing.assert_allclose(here["control_low"], others.min(0))
            np.testing.assert_allclose(here["control_high"], others.max(0))
            np.testing.assert_allclose(here["control_median"], np.median(others, 0), atol=1e-12)
            assert (
                here["n_controls_as_large"].tolist()
                == (others <= accuracy_changes[0].to_numpy() + 1e-9).sum(0).tolist()
            )
        else:
            assert here[["control_low", "control_median", "control_high"]].isna().all(axis=None)
            assert (here["n_controls_as_large"] == 0).all()


def test_effects_by_hand():
    data = sm.from_tensors(torch.zeros(6, 1), [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], classes=("no", "yes"))
    index, zeros = np.arange(6), np.zeros((1, 6), np.float32)
    before = Block(
        edits=np.array([-1]), index=index, predicted=np.array([[0, 0, 1, 1, 1, 0]], np.int16), loss=zeros, margin=zeros
    )
    after = Block(
        edits=np.array([0]),
        index=index,
        predicted=np.array([[0, 1, 0, 0, 1, 1]], np.int16),
        loss=zeros,
        margin=zeros + 2,
    )
    outcomes = sm.Outcomes(edits=(sm.edits.zero(unit(0)),), index=index, before=before, after=after, engine="plain")
    table = sm.effects(outcomes, data.train).set_index("group")
    assert list(table.index) == ["no with 0", "yes with 0", "yes with 1"]  # nobody is "no with 1"
    assert table["n"].tolist() == [3, 1, 2]
    assert table["accuracy_before"].tolist() == pytest.approx([2 / 3, 1, 1 / 2])
    assert table["accuracy_change"].tolist() == pytest.approx([0, -1, 1 / 2])
    assert table["margin_change"].tolist() == [2, 2, 2]
    assert (table["kind"].unique().tolist(), table["n_units"].unique().tolist()) == (["zero"], [1])
    low, high = paired_interval(1, 1, 3)
    assert (table["low"].iloc[0], table["high"].iloc[0]) == (low, high)


def test_nothing_but_null_sets():
    data = sm.from_tensors(torch.zeros(4, 3, 8, 8), y=[0, 1, 0, 1], a=[0, 0, 1, 1])
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    with pytest.raises(sm.UserError, match="every edit stands beside another one"):
        sm.effects(sm.evaluate(model, [], data.train), data.train)


N_NULL, N_DAMAGE = 60, 60
FIRST, SECOND = N_NULL, 2 * N_NULL + N_DAMAGE + 1  # positions of two selected sets


def planted(seed: int, n: int = 300) -> tuple[sm.Dataset, list[sm.Edit], dict[str, sm.Outcomes]]:
    """Outcomes of two edits and the null sets of each: the first hurts class 1 with attribute 0 in training alone, the
    second nobody. Beside the first one there are sets of other sizes, which disturb the network more or less. Groups: 0
    and 3 are majorities, 1 and 2 minorities; of class 2, whose attributes are even, group 5 has one sample in training
    and none elsewhere."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < 0.15, 1 - y, y)
    split = np.where(rng.random(n) < 0.6, "train", np.where(rng.random(n) < 0.5, "val", "test"))
    y, a = np.append(y, [2] * 9), np.append(a, [0] * 8 + [1])
    split = np.append(split, ["train"] * 4 + ["test"] * 4 + ["train"])
    data = sm.from_tensors(torch.zeros(len(y), 1), y, a, split)
    first, second = sm.edits.zero(unit(0)), sm.edits.zero(unit(1))
    null = [sm.edits.zero(unit(2 + i)) for i in range(2 * N_NULL)]
    beside = [
        sm.edits.zero(units_below(2 + i)).on(units_below(2 + i), matched_to=first.digest()) for i in range(N_DAMAGE)
    ]
    edits = [
        *(edit.on(edit.units, matched_to=first.digest()) for edit in null[:N_NULL]),
        first,
        *beside,
        *(edit.on(edit.units, matched_to=second.digest()) for edit in null[N_NULL:]),
        second,
    ]
    strength = np.full(len(edits), 0.3)
    strength[FIRST + 1 : FIRST + 1 + N_DAMAGE] = rng.uniform(0.2, 0.45, N_DAMAGE)
    found = {}
    for name in ("train", "test"):
        samples = data.samples(name)
        margin = rng.normal(1, 1, len(samples)).astype(np.float32)
        after = margin - (strength[:, None] * rng.normal(size=(len(edits), len(samples)))).astype(np.float32)
        if name == "train":
            after[FIRST, samples.g == 2] -= rng.uniform(1, 4, (samples.g == 2).sum())
        found[name] = outcomes(edits, samples, margin, after)
    return data, edits, found


def units_below(number: int) -> sm.Units:
    """A set of several units."""
    return sm.Units("channel", ("a.weight",), np.zeros(number, np.int64), np.arange(number))


def outcomes(edits: list[sm.Edit], samples: sm.Samples, margin: np.ndarray, after: np.ndarray) -> sm.Outcomes:
    """Those with these margins."""

    def block_of(numbers: np.ndarray, margins: np.ndarray) -> Block:
        predicted = np.where(margins > 0, samples.y, (samples.y + 1) % 3).astype(np.int16)
        return Block(
            edits=numbers,
            index=samples.index,
            predicted=predicted,
            loss=np.abs(margins),
            margin=margins.astype(np.float32),
        )

    before = block_of(np.array([-1]), margin[None])
    edited = block_of(np.arange(len(edits)), after)
    return sm.Outcomes(edits=tuple(edits), index=samples.index, before=before, after=edited, engine="plain")


def margins_by_hand(data: sm.Dataset, of: sm.Outcomes, position: int, group: int) -> SampleEffects:
    """What an edit does to the margins of a group."""
    index = [i for i in of.index.tolist() if data.g[i] == group]
    fell = [of.after.margin[position, k] - of.before.margin[0, k] for k, i in enumerate(of.index) if i in index]
    zeros = np.zeros(len(index))
    return SampleEffects(
        index=np.array(index),
        half=np.zeros(len(index), np.int64),
        accuracy_change=zeros,
        margin_before=zeros,
        margin_change=np.array(fell, np.float64),
    )


def by_hand(data: sm.Dataset, found: dict[str, sm.Outcomes], position: int, group: int) -> tuple[float, float, float]:
    """Damage, drop in training and contrast of one edit."""
    squares: list[float] = []
    fell: dict[str, list[float]] = {"train": [], "test": []}
    drops = []
    for name, of in found.items():
        for k, i in enumerate(of.index):
            loss = float(of.before.margin[0, k]) - float(of.after.margin[position, k])
            if name == "test" or data.g[i] in data.majority:
                squares.append(loss**2)
            if data.g[i] == group:
                fell[name].append(loss)
                if name == "train":
                    right = [row[k] == data.y[i] for row in (of.before.predicted[0], of.after.predicted[position])]
                    drops.append(float(right[0]) - float(right[1]))
    contrast = np.mean(fell["train"]) - np.mean(fell["test"]) if fell["train"] and fell["test"] else np.nan
    return math.sqrt(np.mean(squares)), float(np.mean(drops)), float(contrast)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_what_the_pure_functions_say(seed):
    data, _, found = planted(seed)
    train, test = found["train"], found["test"]
    table = sm.effects(train, data.train, unseen=(test, data.test), seed=seed)
    assert table["edit"].unique().tolist() == [FIRST, SECOND]
    samples, names = data.train, list(data.groups.names)
    assert data.minority == (1, 2, 5)
    right = train.after.predicted == samples.y
    changes = right - (train.before.predicted[0] == samples.y).astype(float)
    margin, lost = train.before.margin[0].astype(float), train.before.margin[0] - train.after.margin.astype(float)
    present = [g for g in range(6) if (samples.g == g).any()]
    for position, null in ((FIRST, slice(0, N_NULL)), (SECOND, slice(FIRST + 1 + N_DAMAGE, SECOND))):
        here = table[table["edit"] == position].set_index("group")
        assert list(here.index) == [names[g] for g in present]
        drops = -np.array([[change[samples.g == g].mean() for g in present] for change in changes])
        adjusted = step_down(drops[position], drops[null])
        np.testing.assert_allclose(here["p_adjusted"], adjusted)
        np.testing.assert_allclose(here["p_beyond_norm"], adjusted)  # no norms are known
        np.testing.assert_allclose(here["p"], (1 + here["n_controls_as_large"]) / (1 + N_NULL))
        compared = []
        for g in data.minority:
            of_label = (samples.g == g) | ((samples.y == g // 2) & np.isin(samples.g, data.majority))
            compared.append(
                GroupEffects(
                    is_minority=samples.g[of_label] == g,
                    half=np.zeros(of_label.sum(), int),
                    margin_before=margin[of_label],
                    accuracy_change=changes[[position]][:, of_label],
                    margin_change=-lost[[position]][:, of_label],
                )
            )
        second = dict(zip(data.minority, selectivity(compared, seed=seed), strict=True))
        for g, drop, p_one in zip(present, drops[position], adjusted, strict=True):
            row, chosen, third = here.loc[names[g]], None, None
            if g in data.minority:
                (chosen,) = second[g]
                recorded = row[["difference", "p_selective", "p_selective_margin", "majority_change", "overlap"]]
                expected = (chosen.difference, chosen.p, chosen.p_margin, chosen.majority_change, chosen.overlap)
                assert recorded.tolist() == pytest.approx(expected, nan_ok=True)
            else:
                assert row[["difference", "p_selective", "overlap", "p_localized", "contrast"]].isna().all()
            if g in data.minority and position == FIRST:
                own, *beside = (by_hand(data, found, e, g) for e in range(FIRST, FIRST + 1 + N_DAMAGE))
                third = damage_matched(
                    *(
                        SetEffects(**dict(zip(("damage", "drop", "contrast"), np.array(of).T, strict=True)))
                        for of in ([own], beside)
                    )
                )
                recorded = row[["damage", "damage_ratio", "matched_drop", "contrast", "matched_contrast"]]
                expected = (third.damage, third.damage_ratio, third.drop, third.contrast, third.contrast_matched)
                assert recorded.tolist() == pytest.approx(expected, nan_ok=True, abs=1e-6)
                assert row["n_damage_matched"] == third.n
                assert row[["p_localized", "p_memorizing"]].tolist() == pytest.approx(
                    (third.p_localized, third.p_memorizing), nan_ok=True
                )
                fell = (margins_by_hand(data, found[split], position, g) for split in ("train", "test"))
                assert row["p_contrast"] == pytest.approx(contrast_p(*fell, seed=seed), nan_ok=True, abs=1e-3)
            told = answer_questions(
                -drop, p_one, n_controls=N_NULL, selective=chosen, damage=third, p_contrast=row["p_contrast"]
            )
            for word in ("influential", "selective", "localized", "memorizing", "verdict"):
                assert row[word] == getattr(told, word)
            assert told.reason in row["reason"]
    first, second = (table[table["edit"] == e].set_index("group") for e in (FIRST, SECOND))
    assert first.loc[names[2], "verdict"] == "memorizing"
    assert not set(second["verdict"]) & {"memorizing", "critical"}
    assert second["localized"].isna().all()
    assert first.loc[names[5], "memorizing"] is None  # one sample in training, none in test


def test_what_was_not_measured_is_not_told():
    data, edits, found = planted(0)
    table = sm.effects(found["train"], data.train).set_index(["edit", "group"])
    third = ["damage", "damage_ratio", "p_localized", "contrast", "p_memorizing"]
    assert table[["localized", "memorizing", *third]].isna().all(axis=None)
    assert (table["n_damage_matched"] == 0).all()
    group = data.groups.names[2]
    assert table.loc[(FIRST, group), "verdict"] == "influential"
    few = sm.effects(
        part_of(found["train"], edits, slice(FIRST - 10, FIRST + 1)), data.train
    ).set_index("group")  # fmt: skip
    assert (few["n_controls"] == 10).all()
    assert (few["verdict"] == "no verdict").all()
    assert few["reason"].str.contains("10 null sets: at least 19 are needed").all()
    assert few["p"].notna().all()  # told all the same
    alone = sm.effects(part_of(found["train"], edits, slice(FIRST, FIRST + 1)), data.train)
    assert alone["p"].isna().all()
    assert (alone["verdict"] == "no verdict").all()
    assert alone["reason"].str.contains("0 null sets").all()
    unseen = part_of(found["test"], edits, slice(FIRST - 20, FIRST + 11)), data.test
    some = sm.effects(part_of(found["train"], edits, slice(FIRST - 20, FIRST + 11)), data.train, unseen=unseen)
    row = some.set_index("group").loc[group]
    assert row["influential"] is True
    assert row["localized"] is None
    assert "sets with the same damage: at least 19 are needed" in row["reason"]


def part_of(whole: sm.Outcomes, edits: list[sm.Edit], rows: slice) -> sm.Outcomes:
    """The outcomes of some of the edits, numbered from 0."""
    after = replace(whole.after.at(rows), edits=np.arange(rows.stop - rows.start))
    return replace(whole, edits=tuple(edits[rows]), after=after)


def test_only_some_of_the_samples():
    """Effects on some of those that were measured are effects on these alone."""
    data, _, found = planted(1)
    some = data.train.at(data.train.index[::2])
    table = sm.effects(found["train"], some, unseen=(found["test"], data.test))
    counts = np.bincount(some.g, minlength=6)
    here = table[table["edit"] == FIRST]
    assert dict(zip(here["group"], here["n"], strict=True)) == {
        data.groups.names[g]: counts[g] for g in range(6) if counts[g]
    }
    where = np.isin(found["train"].index, some.index)
    lost = (found["train"].before.margin[0] - found["train"].after.margin[FIRST])[where]
    row = here.set_index("group").loc[data.groups.names[2]]
    new = found["test"].before.margin[0] - found["test"].after.margin[FIRST]
    assert row["contrast"] == pytest.approx(lost[some.g == 2].mean() - new[data.test.g == 2].mean(), rel=1e-5)
    assert row["margin_change"] == pytest.approx(-lost[some.g == 2].mean(), rel=1e-5)


def test_a_label_without_a_majority_group_is_named():
    """Class 1 has as many samples of either attribute as there would be by chance, so that it has no majority."""
    y, a = np.repeat([0, 0, 1, 1], [30, 2, 20, 12]), np.repeat([0, 1, 0, 1], [30, 2, 20, 12])
    data = sm.from_tensors(torch.zeros(64, 1), y, a).with_minority(["1 with 0"])
    assert data.majority == (0, 3)
    data = data.with_minority(["1 with 0", "1 with 1"])
    edits, rng = [sm.edits.zero(unit(0))], np.random.default_rng(0)
    edits += [sm.edits.zero(unit(i)).on(unit(i), matched_to=edits[0].digest()) for i in range(1, 21)]
    margin = rng.normal(1, 1, 64)
    found = outcomes(edits, data.train, margin, margin - rng.normal(0, 1, (21, 64)))
    table = sm.effects(found, data.train).set_index("group")
    for group in ("1 with 0", "1 with 1"):
        assert table.loc[group, "reason"].startswith("label 1 has no majority group; only 0% of the group")
        assert table.loc[group, "selective"] is None
        assert table.loc[group, "influential"] in (True, False)
    assert table.loc[["0 with 0", "0 with 1"], "reason"].tolist() == ["", ""]


def test_unseen_samples_need_the_same_edits_and_data():
    data, edits, found = planted(2)
    other = part_of(found["test"], edits, slice(0, 60))
    with pytest.raises(sm.UserError, match="the same edits and the same data set"):
        sm.effects(found["train"], data.train, unseen=(other, data.test))
    with pytest.raises(sm.UserError, match="the same edits and the same data set"):
        sm.effects(found["train"], data.train, unseen=(found["test"], replace(data).test))


# pseudo-minorities


@st.composite
def datasets(draw: st.DrawFn) -> sm.Dataset:
    """Correlated labels and attributes: 2 or 3 of either, several splits."""
    values, n = draw(st.integers(2, 3)), draw(st.integers(60, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, values, n)
    a = np.where(rng.random(n) < draw(st.sampled_from([0.05, 0.15, 0.3])), rng.integers(0, values, n), y)
    split = np.array(["train", "val", "test"])[rng.choice(3, n, p=[0.7, 0.1, 0.2])]
    names = tuple("abc"[:values])
    return sm.from_tensors(torch.zeros(n, 1), y, a, split, classes=names, attributes=tuple("xyz"[:values]))


@QUICK
@given(data=datasets(), seed=st.integers(0, 2**32))
def test_pseudo_minorities_are_drawn_from_the_majority(data, seed):
    of_label = {label: [g for g in data.majority if g // len(data.groups.attributes) == label] for label in range(3)}
    asked = {}
    for g in data.minority:
        label = data.groups.label_of(g)
        if of_label[label]:
            asked.setdefault(label, g)
    if not asked:
        with pytest.raises(sm.UserError, match="pseudo-minorities can't be drawn"):
            with_pseudo_minority(data, seed)
        return
    before = (data.a.copy(), data.groups, data.named_minority)
    pseudo = with_pseudo_minority(data, seed)
    assert (data.a.tolist(), data.groups, data.named_minority) == (before[0].tolist(), *before[1:])
    assert pseudo.groups.classes == data.groups.classes
    assert pseudo.groups.attributes == (*data.groups.attributes, f"a random draw ({seed})")
    minority = [pseudo.groups.names[g] for g in pseudo.minority]
    assert minority == [f"{data.groups.classes[label]} with a random draw ({seed})" for label in asked]
    moved = pseudo.a != data.a
    assert (pseudo.y == data.y).all()
    assert (pseudo.split == data.split).all()
    assert pseudo.source is data.source
    assert set(pseudo.a[moved]) == {len(data.groups.attributes)}
    assert np.isin(data.g[moved], data.majority).all()
    for split in data.splits:
        here = data.split == split
        for label in range(len(data.groups.classes)):
            majority = here & np.isin(data.g, of_label[label])
            wanted = (here & (data.g == asked[label])).sum() if label in asked else 0
            assert (moved & here & (data.y == label)).sum() == min(wanted, majority.sum() // 2)
    assert with_pseudo_minority(data, seed).a.tolist() == pseudo.a.tolist()


def test_pseudo_minorities_depend_on_the_seed_and_are_even():
    y, a = np.repeat([0, 0, 1, 1], [400, 40, 40, 400]), np.repeat([0, 1, 0, 1], [400, 40, 40, 400])
    data = sm.from_tensors(torch.zeros(880, 1), y, a)
    times = sum((with_pseudo_minority(data, seed).a == 2).astype(int) for seed in range(200))
    assert times[(data.g == 1) | (data.g == 2)].max() == 0
    drawn = times[(data.g == 0) | (data.g == 3)]  # Binomial(200, 0.1) each
    assert drawn.sum() == 200 * 80
    assert drawn.min() >= 3
    assert drawn.max() <= 40
    pseudo = with_pseudo_minority(data, 0)
    # what is compared with them: the rest of their majority
    assert [pseudo.groups.names[g] for g in pseudo.majority] == ["0 with 0", "1 with 1"]
    assert len(pseudo.train.of_group("1 with a random draw (0)")) == 40


def test_without_a_minority_nothing_is_drawn():
    even = sm.from_tensors(torch.zeros(8, 1), [0, 1] * 4, [0, 0, 1, 1] * 2)
    with pytest.raises(sm.UserError, match="no minority group has a majority group with the same label"):
        with_pseudo_minority(even)


# halves


@QUICK
@given(data=datasets(), seed=st.integers(0, 2**32))
def test_halves_cut_each_group_of_each_split_in_two(data, seed):
    halves = data.halves(seed)
    assert halves.shape == (len(data),)
    for split in data.splits:
        samples = data.samples(split)
        parts = [samples.of_half(half, seed) for half in (0, 1)]
        assert sorted([*parts[0].index, *parts[1].index]) == samples.index.tolist()
        assert all((halves[part.index] == half).all() for half, part in enumerate(parts))
        counts = [np.bincount(part.g, minlength=len(data.groups)) for part in parts]
        assert ((counts[0] - counts[1] == 0) | (counts[0] - counts[1] == 1)).all()
        assert samples.of_half(None, seed) is samples
    assert data.halves(seed).tolist() == halves.tolist()
    assert data.halves(seed + 1).tolist() != halves.tolist()
