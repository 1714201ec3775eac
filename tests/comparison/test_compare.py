"""Runs side by side, against calculations with plain pandas, fairlearn and SciPy."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import made_runs
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from fairlearn.metrics import MetricFrame
from narrow_terminal import check_every_number_is_printed
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

import spurious_memorization as sm
from spurious_memorization.reporting.tables.comparison_tables import comparison_tables, method_accuracies
from spurious_memorization.runs.records import TrainingCost
from spurious_memorization.training.epoch_selection import val_halves

RULES = ("worst_group_accuracy", "average")
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_runs.make_data(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of ERM, erm-continue from each of them, two seeds of GroupDRO, and another seed of JTT."""
    place = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        name = f"seed_{seed}"
        made_runs.make_run(
            place / "erm" / name, data, seed=seed, training_cost=TrainingCost(sample_passes=300, seconds=30 + seed)
        )
        cost = TrainingCost(sample_passes=200, seconds=20, sample_passes_before=300, seconds_before=30 + seed)
        start = f"{place / 'erm' / name}@3"
        made_runs.make_run(place / "continue" / name, data, "erm-continue", seed=seed, training_cost=cost, start=start)
    for seed in (2, 0):
        made_runs.make_run(place / "dro" / f"seed_{seed}", data, "group-dro", seed=seed, options={"step": 0.01})
    made_runs.make_run(place / "jtt", data, "jtt", seed=7, options={"errors_of": f"{place / 'erm' / 'seed_0'}@1"})
    return place


@pytest.fixture(scope="module")
def found(runs: Path) -> sm.Comparison:
    return sm.compare([runs / name for name in ("erm", "continue", "dro", "jtt")])


def answers(run: sm.Run, epoch: int, split: str) -> pd.DataFrame:
    """Label, group and predicted class of every sample; of val those of the selecting half."""
    data = run.read_data()
    samples = val_halves(data)[1] if split == "val" else data.samples(split)
    probabilities = run.predictions(epoch, split).loc[samples.index].to_numpy()
    answers = pd.DataFrame({"y": samples.y, "g": samples.g, "predicted": probabilities.argmax(1)})
    return answers.assign(of_one=probabilities[:, 1], confidence=probabilities.max(1))


def by_group(rows: pd.DataFrame) -> pd.Series:
    frame = MetricFrame(
        metrics=accuracy_score, y_true=rows["y"], y_pred=rows["predicted"], sensitive_features=rows["g"]
    )
    return frame.by_group


@pytest.mark.slow
def test_every_measure_of_every_run(found: sm.Comparison) -> None:
    shares = np.array(made_runs.COUNTS["train"]) / sum(made_runs.COUNTS["train"])
    assert len(found.members) == 9
    for member in found.members:
        rules = {"worst_group_accuracy": lambda rows: by_group(rows).min(), "average": lambda rows: _plain(rows)}
        for rule, value_of in rules.items():
            candidates = range(0 if member.run.record.settings["start"] else 1, 4)
            on_val = [value_of(answers(member.run, epoch, "val")) for epoch in candidates]
            epoch = candidates[int(np.argmax(on_val))]
            recorded = found.runs.set_index("run").loc[str(member.run.path)]
            assert recorded[f"epoch_by_{rule}"] == epoch
            own = found.values.query("run == @member.run.path.as_posix() and chosen_by == @rule")
            expected = {}
            for split in SPLITS:
                rows = answers(member.run, epoch, split)
                groups = by_group(rows)
                expected[split] = {
                    ("average", ""): _plain(rows),
                    ("average_train_weighted", ""): float(shares @ groups),
                    ("average_group_balanced", ""): groups.mean(),
                    ("worst_group_accuracy", ""): groups.min(),
                    **{("group_accuracy", found.data.groups.names[g]): value for g, value in groups.items()},
                    **beyond_accuracy(rows, found.data.groups.names),
                }
            train, test = expected["train"], expected["test"]
            expected["gap"] = {what: train[what] - test[what] for what in train}
            for split, values in expected.items():
                got = own[own["split"] == split].set_index(["measure", "group_name"])["value"].to_dict()
                assert got == pytest.approx(values, abs=1e-6)  # torchmetrics counts in float32


def beyond_accuracy(rows: pd.DataFrame, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """The measures of classes and of confidence, by scikit-learn, torchmetrics and sorting."""
    kept = rows.sort_values("confidence", ascending=False).head(math.ceil(0.8 * len(rows)))
    wrong = kept["y"] != kept["predicted"]
    calibration = {names[g]: calibration_error(of_group) for g, of_group in rows.groupby("g")}
    return {
        ("balanced_accuracy", ""): balanced_accuracy_score(rows["y"], rows["predicted"]),
        ("worst_class_accuracy", ""): recall_score(rows["y"], rows["predicted"], average=None).min(),
        ("auroc", ""): roc_auc_score(rows["y"], rows["of_one"]),
        ("calibration_error", ""): calibration_error(rows),
        ("worst_group_calibration_error", ""): max(calibration.values()),
        **{("group_calibration_error", name): value for name, value in calibration.items()},
        ("selective_error", ""): wrong.mean(),
        ("worst_group_selective_error", ""): wrong.groupby(kept["g"]).mean().max(),
    }


def calibration_error(rows: pd.DataFrame) -> float:
    of_one, y = (torch.tensor(rows[name].tolist()) for name in ("of_one", "y"))
    return float(multiclass_calibration_error(torch.stack([1 - of_one, of_one], 1), y, 2, n_bins=15, norm="l1"))


def _plain(rows: pd.DataFrame) -> float:
    return float((rows["y"] == rows["predicted"]).mean())


def test_counts_are_those_of_the_splits(found: sm.Comparison) -> None:
    whole = found.counts.groupby(["run", "chosen_by", "split"])["n"].agg(tuple)
    assert set(whole.xs("train", level="split")) == {made_runs.COUNTS["train"]}
    assert set(whole.xs("test", level="split")) == {made_runs.COUNTS["test"]}
    assert set(whole.xs("val", level="split")) == {(7, 6, 6, 7)}


def test_runs_equal_but_for_their_seed_are_one_method(found: sm.Comparison, runs: Path) -> None:
    assert found.methods == ("erm", "erm-continue", "group-dro", "jtt")
    seeds = found.runs.groupby("method")["seed"].agg(list).to_dict()
    assert seeds == {"erm": [0, 1, 2], "erm-continue": [0, 1, 2], "group-dro": [0, 2], "jtt": [7]}
    shutil.move(runs / "erm", runs / "moved")
    try:  # what a run started from may be gone
        assert sm.compare([runs / "continue"]).methods == ("erm-continue",)
    finally:
        shutil.move(runs / "moved", runs / "erm")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("split", ["train", "val", "test", "gap"])
def test_over_seeds(rule: str, split: str, found: sm.Comparison) -> None:
    assert found.baseline == "erm-continue"
    here = found.values.query("chosen_by == @rule and split == @split")
    for what, values in here.groupby(["measure", "group_name"]):
        table = values.pivot_table(index="seed", columns="method", values="value")
        rows = found.summary.query("chosen_by == @rule and split == @split and measure == @what[0]")
        rows = rows[rows["group_name"] == what[1]].set_index("method")
        assert list(rows["n_seeds"]) == [3, 3, 2, 1]
        np.testing.assert_allclose(rows["mean"], table.mean()[rows.index])
        np.testing.assert_allclose(rows["std"], table.std(ddof=1)[rows.index], atol=1e-12)
        for method, n in (("erm", 3), ("group-dro", 2)):
            both = table[[method, "erm-continue"]].dropna()
            row = rows.loc[method]
            assert row["n_paired"] == len(both) == n
            assert row["difference"] == pytest.approx((both[method] - both["erm-continue"]).mean())
            if np.ptp(both[method] - both["erm-continue"]) < 1e-9:
                continue  # SciPy gives no interval for equal differences
            interval = stats.ttest_rel(both[method], both["erm-continue"]).confidence_interval(0.95)
            assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        for method in ("jtt", "erm-continue"):
            assert rows.loc[method, "n_paired"] == 0
            assert rows.loc[method, ["difference", "low", "high"]].isna().all()


def test_one_seed_has_a_difference_without_an_interval(runs: Path) -> None:
    found = sm.compare([runs / "erm" / "seed_0", runs / "dro" / "seed_0"], baseline="erm")
    rows = found.summary.query("method == 'group-dro' and measure == 'average' and split == 'test'")
    values = found.values.query("measure == 'average' and split == 'test'")
    for row in rows.to_dict(orient="records"):
        of = values[values["chosen_by"] == row["chosen_by"]].set_index("method")["value"]
        assert row["n_paired"] == 1
        assert row["difference"] == pytest.approx(of["group-dro"] - of["erm"])
        assert np.isnan([row["low"], row["high"], row["std"]]).all()


def test_a_group_without_samples_counts_for_nothing(tmp_path: Path) -> None:
    counts = {"train": (9, 0, 2, 9), "val": (6, 4, 5, 5), "test": (8, 6, 0, 7)}
    folder = made_runs.make_data(tmp_path / "data", counts)
    found = sm.compare([made_runs.make_run(tmp_path / "run", folder)])
    values = found.values.query("chosen_by == 'average' and measure == 'group_accuracy'")
    names = values.groupby("split")["group"].agg(list).to_dict()
    assert names == {"train": [0, 2, 3], "val": [0, 1, 2, 3], "test": [0, 1, 3], "gap": [0, 3]}
    test = found.values.query("chosen_by == 'average' and split == 'test'").set_index(["measure", "group"])["value"]
    accuracies = test["group_accuracy"]
    assert test["average_train_weighted", -1] == pytest.approx((accuracies[0] + accuracies[3]) / 2)
    assert test["average_group_balanced", -1] == pytest.approx(accuracies.mean())
    assert test["worst_group_accuracy", -1] == accuracies.min()


def test_costs_with_what_came_before(found: sm.Comparison) -> None:
    costs = found.runs.set_index(["method", "seed"])
    assert costs.loc[("erm", 1), ["seconds", "total_seconds", "total_sample_passes"]].tolist() == [31, 31, 300]
    assert costs.loc[("erm-continue", 2), ["seconds", "sample_passes"]].tolist() == [20, 200]
    assert costs.loc[("erm-continue", 2), ["total_seconds", "total_sample_passes"]].tolist() == [52, 500]
    assert costs.loc[("jtt", 7), ["seconds", "total_seconds"]].isna().all()


@pytest.mark.slow
def test_names_of_methods_tell_them_apart(data: Path, tmp_path: Path) -> None:
    made = [
        made_runs.make_run(
            tmp_path / f"{mask}_{lr}", data, "pruned-contrast", lr=lr, options={"mask": mask, "keep": [1]}
        )
        for mask, lr in (("none", 0.1), ("random", 0.1), ("random", 0.2))
    ]
    found = sm.compare([*made, made_runs.make_run(tmp_path / "erm", data, batch_size=7)])
    assert found.methods == (
        "pruned-contrast mask=none lr=0.1",
        "pruned-contrast mask=random lr=0.1",
        "pruned-contrast mask=random lr=0.2",
        "erm",
    )
    assert any(note.startswith("The methods differ in lr, too: 0.1 (") for note in found.notes)
    with pytest.raises(sm.UserError, match="several methods have this objective: name one of 'pruned-contrast mask"):
        sm.compare(made, baseline="pruned-contrast")
    assert sm.compare(made, baseline=found.methods[1]).baseline == found.methods[1]


def test_what_a_reader_must_know(data: Path, tmp_path: Path) -> None:
    one = made_runs.make_run(tmp_path / "one", data, epochs=2)
    found = sm.compare([one, made_runs.make_run(tmp_path / "two", data, "jtt")])
    assert found.baseline is None
    assert found.summary["difference"].isna().all()
    assert f"{one.path} is not finished: 2 of 3 epochs." in found.notes
    assert any("name a baseline" in note for note in found.notes)


@pytest.mark.slow
def test_the_command(runs: Path, found: sm.Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    places = [runs / name for name in ("erm", "continue", "dro", "jtt")]
    said = tiny.spurmem(capsys, "compare", *places)
    assert said.status == 0, said.err
    words = (
        "Accuracy in %, epochs chosen by worst-group accuracy on half of val",
        "Accuracy in %, epochs chosen by average accuracy on half of val",
        "Test accuracy minus that of erm-continue, in points",
        "seeds in", "Cost, and the epochs chosen", "bird with", "0, 1, 2",
        "Beyond accuracy, on test in %", "AUROC", "Choosing the epoch: what each rule loses", "all", "worst class",
    )  # fmt: skip
    for part in words:
        assert part in said.out
    facts = json.loads(tiny.spurmem(capsys, "compare", *places, "--baseline", "group-dro", "--json").out)
    assert facts["baseline"] == "group-dro"
    assert facts["methods"] == list(found.methods)
    assert len(facts["summary"]) == len(found.summary)
    assert [row["regret"] for row in facts["selections"]] == pytest.approx(list(found.selections["regret"]))
    assert [row["run"] for row in facts["runs"]] == list(found.runs["run"])
    text = tiny.spurmem(capsys, "compare", *places, "--format", "csv").out
    printed = pd.read_csv(io.StringIO(text))
    printed["group_name"] = printed["group_name"].fillna("")
    pd.testing.assert_frame_equal(printed, found.summary, check_dtype=False)
    markdown = tiny.spurmem(capsys, "compare", *places, "--format", "markdown").out
    row = found.summary.query(
        "method == 'erm' and split == 'train' and measure == 'average' and chosen_by == 'average'"
    )
    assert f"| erm | 3 | train | {100 * row['mean'].item():.1f} ±{100 * row['std'].item():.1f} |" in markdown
    assert tiny.spurmem(capsys, "compare", *places, "--format", "latex").out.count(r"\begin{tabular}") == 7


@pytest.mark.parametrize("width", [60, 80, 100, 120, 129, 130, 140, 200])
def test_no_figure_is_lost_in_a_narrow_terminal(width: int, found: sm.Comparison) -> None:
    for table in comparison_tables(found):
        check_every_number_is_printed(table, width)


@pytest.mark.slow
def test_refusals(runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        return tiny.spurmem(capsys, "compare", *arguments).error

    erm, dro = runs / "erm", runs / "dro"
    assert "no run is given" in refused()
    assert f"{data} is not a run" in refused(erm, data)
    said = refused(erm, dro, "--baseline", "erm-continue")
    assert "erm-continue is not among the runs: name one of 'erm', 'group-dro'" in said
    said = refused(erm, erm / "seed_1")
    assert f"{erm / 'seed_1'} and {erm / 'seed_1'} are the same method (erm) with the same seed (1)" in said
    other = made_runs.make_data(tmp_path / "other", {**made_runs.COUNTS, "test": (9, 9, 9, 9)})
    said = refused(erm, made_runs.make_run(tmp_path / "elsewhere", other).path)
    assert f"{erm / 'seed_0'} and {tmp_path / 'elsewhere'} were made with different data" in said
    no_val = made_runs.make_data(tmp_path / "no_val", {"train": (5, 5, 5, 5), "test": (5, 5, 5, 5)})
    assert "no val split" in refused(made_runs.make_run(tmp_path / "blind", no_val).path)
    no_test = made_runs.make_data(tmp_path / "no_test", {"train": (5, 5, 5, 5), "val": (5, 5, 5, 5)})
    assert "no test split" in refused(made_runs.make_run(tmp_path / "untested", no_test).path)
    begun = made_runs.make_run(tmp_path / "begun", data, "jtt", epochs=0)
    assert f"{begun.path} has no finished epoch" in refused(erm, begun.path)
    (begun.path / "history.parquet").unlink()
    assert "has no finished epoch" in refused(erm, begun.path)
    shutil.rmtree(tiny.copied(sm.Run(erm / "seed_0"), tmp_path / "copy").path / "predictions")
    assert "has no predictions of epoch 0 on 'val'" in refused(tmp_path / "copy")


def test_trained_runs(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    """A training, a continuation of it and an edited network, as the program itself makes them."""
    settings = {**tiny.QUICK, "epochs": 1, "objective": "erm-continue", "start": f"{trained.path}@2"}
    more = sm.train(squares, tmp_path / "more", sm.TrainSettings(**settings))
    found = sm.compare([trained, more])
    assert found.methods == ("erm", "erm-continue")
    assert found.baseline == "erm-continue"
    costs = found.runs.set_index("method")
    n = len(trained.read_data().train)
    assert costs.loc["erm", "total_sample_passes"] == 3 * n
    assert costs.loc["erm-continue", "total_sample_passes"] == 2 * n + n
    assert costs.loc["erm-continue", "total_seconds"] > costs.loc["erm-continue", "seconds"] > 0


def test_the_columns_of_groups_hold_their_accuracy(found: sm.Comparison) -> None:
    table = method_accuracies(found, "average").rows
    accuracies = found.summary.query("measure == 'group_accuracy' and chosen_by == 'average'")
    for row in accuracies.to_dict(orient="records"):
        shown = table[(table["method"] == row["method"]) & (table["split"] == row["split"])]
        assert shown[f"group {row['group']} mean"].tolist() == [row["mean"]]
