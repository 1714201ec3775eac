"""Rules that choose epochs, and what they lose on test, against plain loops over a made-up history."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import made_runs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_terminal import check_every_number_is_printed
from statsmodels.stats.proportion import proportion_confint

import spurious_memorization as sm
from spurious_memorization.comparison.selection_rules import (
    ALL_METHODS,
    SelectionRule,
    chosen_epochs,
    least_memorizing_epoch,
    mean_regrets,
    regrets,
)
from spurious_memorization.reporting.tables.selection_tables import epoch_choices, epoch_choices_overall

N = {"train": (40, 6, 9, 45), "val": (14, 3, 5, 13), "test": (20, 8, 6, 10)}
EPOCHS = range(5)
LABELS = (0, 0, 1, 1)


def label_of(group: int) -> int:
    return LABELS[group]


def made_history(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (epoch, split, group, n, rng.binomial(n, rng.uniform(0.4, 1)), 1.0)
        for epoch in EPOCHS
        for split, sizes in N.items()
        for group, n in enumerate(sizes)
    ]
    return pd.DataFrame(rows, columns=["epoch", "split", "group", "n", "correct", "loss"])


def counts(history: pd.DataFrame, epoch: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = history[(history["epoch"] == epoch) & (history["split"] == split)].sort_values("group")
    return rows["correct"].to_numpy(), rows["n"].to_numpy()


def of_classes(history: pd.DataFrame, epoch: int, split: str) -> np.ndarray:
    correct, n = counts(history, epoch, split)
    return np.array([correct[:2].sum() / n[:2].sum(), correct[2:].sum() / n[2:].sum()])


def first_best(values: dict[int, float]) -> int:
    best = max(values.values())
    return min(epoch for epoch, value in values.items() if value >= best - 1e-12)


def expected_epochs(history: pd.DataFrame, among: list[int]) -> dict[str, int]:
    values: dict[str, dict[int, float]] = {rule: {} for rule in get_args(SelectionRule)}
    for epoch in among:
        correct, n = counts(history, epoch, "val")
        bounds = proportion_confint(correct, n, method="wilson")
        values["worst_group_accuracy"][epoch] = (correct / n).min()
        values["worst_group_bound"][epoch] = min(bounds[0])
        values["worst_class_accuracy"][epoch] = of_classes(history, epoch, "val").min()
        values["average"][epoch] = correct.sum() / n.sum()
    averages, n_val = values["average"], sum(N["val"])
    best = max(averages.values())
    for epoch in among:
        if averages[epoch] >= best - np.sqrt(best * (1 - best) / n_val) - 1e-12:
            train, val = of_classes(history, epoch, "train"), of_classes(history, epoch, "val")
            values["held_out_memorization"][epoch] = -max(train[val <= val.min()] - val.min())
    return {rule: first_best(of_rule) for rule, of_rule in values.items()}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), first=st.integers(0, 2))
def test_every_rule_against_a_loop(seed: int, first: int) -> None:
    history, among = made_history(seed), list(EPOCHS)[first:]
    chosen = chosen_epochs(history.sample(frac=1, random_state=0), among, label_of)
    assert chosen == expected_epochs(history, among)
    frame = regrets(chosen, history, among).set_index("rule")
    worst = {epoch: np.divide(*counts(history, epoch, "test")).min() for epoch in among}
    assert list(frame["oracle_epoch"].unique()) == [first_best(worst)]
    for rule, epoch in chosen.items():
        assert frame.loc[rule, "worst_group_accuracy"] == pytest.approx(worst[epoch])
        assert frame.loc[rule, "regret"] == pytest.approx(max(worst.values()) - worst[epoch])
    assert (frame["regret"] >= 0).all()


def test_the_least_memorizing_of_equally_good_epochs() -> None:
    """Epoch 2 is best on val by one sample, and knows its training samples by heart. Epoch 0 is worse on average."""
    rows = [
        (epoch, split, group, 100, right, 1.0)
        for epoch, of_split in {
            0: {"train": (60, 60), "val": (60, 60)},
            1: {"train": (85, 82), "val": (85, 80)},
            2: {"train": (100, 100), "val": (86, 80)},
        }.items()
        for split, of_groups in of_split.items()
        for group, right in enumerate(of_groups)
    ]
    history = pd.DataFrame(rows, columns=["epoch", "split", "group", "n", "correct", "loss"])
    assert least_memorizing_epoch(history, [0, 1, 2], int) == 1
    assert least_memorizing_epoch(history, [0, 2], int) == 2
    assert least_memorizing_epoch(history[history["split"] == "val"], [1, 2], int) == 1  # the earliest, without train


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> sm.Comparison:
    place = tmp_path_factory.mktemp("runs")
    data = made_runs.make_data(place / "pets")
    for seed in range(3):
        made_runs.make_run(place / "erm" / f"seed_{seed}", data, seed=seed)
        start = f"{place / 'erm' / f'seed_{seed}'}@3"
        made_runs.make_run(place / "continue" / f"seed_{seed}", data, "erm-continue", seed=seed, start=start)
    return sm.compare([place / "erm", place / "continue"])


def test_selections_of_runs(found: sm.Comparison) -> None:
    assert len(found.selections) == 6 * 5
    epochs = found.selections.pivot_table(index="run", columns="rule", values="epoch")
    for rule in ("worst_group_accuracy", "average"):
        chosen = found.runs.set_index("run")[f"epoch_by_{rule}"]
        assert (epochs.loc[chosen.index, rule] == chosen).all()
        rows = found.selections[found.selections["rule"] == rule].set_index("run")["worst_group_accuracy"]
        own = found.values.query("chosen_by == @rule and measure == 'worst_group_accuracy' and split == 'test'")
        assert rows.to_dict() == pytest.approx(own.set_index("run")["value"].to_dict())
    starts = found.selections["method"] == "erm-continue"
    assert (found.selections.loc[~starts, ["epoch", "oracle_epoch"]] > 0).all(axis=None)  # no random start


def test_means_over_seeds_and_over_all_methods(found: sm.Comparison) -> None:
    means = mean_regrets(found.selections).set_index(["method", "rule"])
    assert list(means.index.get_level_values("method").unique()) == ["erm", "erm-continue", ALL_METHODS]
    for (method, rule), row in means.iterrows():
        own = found.selections[found.selections["rule"] == rule]
        own = own if method == ALL_METHODS else own[own["method"] == method]
        assert row["n_runs"] == len(own) == (6 if method == ALL_METHODS else 3)
        assert row["regret"] == pytest.approx(own["regret"].mean())
        assert row["regret_std"] == pytest.approx(own["regret"].std(ddof=1))
        assert row["epochs"] == ", ".join(map(str, own["epoch"]))
    alone = found.selections[found.selections["method"] == "erm"]
    assert set(mean_regrets(alone)["method"]) == {"erm"}


def test_the_tables(found: sm.Comparison) -> None:
    table, overall = epoch_choices(found), epoch_choices_overall(found)
    assert len(table.rows) == 15
    assert "over all 6 runs" in overall.title
    means = mean_regrets(found.selections)
    last = means[means["method"] == ALL_METHODS].iloc[-1]
    cell = f"{100 * last['regret']:.1f} ±{100 * last['regret_std']:.1f}"
    assert f"| least memorization of the worst class | - | {100 * last['worst_group_accuracy']:.1f}" in table.formatted(
        "markdown"
    )
    for shown in (table, overall):
        assert cell in shown.formatted("markdown").splitlines()[-3 if shown.formatted("markdown")[-1] != "|" else -1]
        for width in (60, 100, 140):
            check_every_number_is_printed(shown, width)


def test_the_rules_shown_on_a_folder(tmp_path: Path) -> None:
    data = made_runs.make_data(tmp_path / "pets")
    one = sm.compare([made_runs.make_run(tmp_path / "one", data)])
    assert set(one.selections["rule"]) == set(get_args(SelectionRule))
    assert "all methods" not in epoch_choices(one).formatted("markdown")
