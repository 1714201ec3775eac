"""Head or features: refitted heads against plain scikit-learn on features from a hook."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import made_runs
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from narrow_terminal import check_every_number_is_printed
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spurious_memorization as sm
from spurious_memorization.comparison import refitted_heads as module
from spurious_memorization.reporting.tables.head_tables import head_or_features

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy images whose brightness tells the label, not always rightly; networks with random weights."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    rows = []
    (place / "data").mkdir()
    for split, n in {"train": 10, "val": 24, "test": 40}.items():
        for group in range(4):
            for k in range(n):
                y, a = divmod(group, 2)
                image = rng.normal(90 + 25 * y, 30, 3)[None, None] + rng.normal(30 * a, 20, (8, 8, 3))
                name = f"{split}_{group}_{k}.png"
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(place / "data" / name)
                rows.append((name, y, a, split))
    pd.DataFrame(rows, columns=["path", "y", "a", "split"]).to_csv(place / "data" / "metadata.csv", index=False)
    (place / "data" / "dataset.yaml").write_text(yaml.safe_dump({"image_size": 8}))
    for seed in range(3):
        made_runs.make_run(place / "erm" / f"seed_{seed}", place / "data", seed=seed)
        made_runs.make_run(place / "dro" / f"seed_{seed}", place / "data", "group-dro", seed=seed + 1)
    return place


@pytest.fixture(scope="module")
def found(place: Path) -> sm.RefittedHeads:
    return sm.refitted_heads([place / "dro", place / "erm"])


def hooked(model: torch.nn.Module, samples: sm.Samples) -> np.ndarray:
    seen: list[torch.Tensor] = []
    hook = model.fc.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        model(samples.batch().inputs)
    hook.remove()
    return seen[0].double().numpy()


def refitted_by_scikit_learn(run: sm.Run, epoch: int) -> dict[str, float]:
    """Groups are equally large in val, so that every balanced draw has all of its samples."""
    data = run.read_data()
    fitting, selecting = sm.val_halves(data)
    model = run.network(epoch)
    best, chosen = -1.0, None
    for strength in (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01):
        regression = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", random_state=0, max_iter=1000)
        fit = make_pipeline(StandardScaler(), regression).fit(hooked(model, fitting), fitting.y)
        right = fit.predict(hooked(model, selecting)) == selecting.y
        worst = min(right[selecting.g == group].mean() for group in range(4))
        if worst > best:
            best, chosen = worst, fit
    right = chosen.predict(hooked(model, data.test)) == data.test.y
    worst = min(right[data.test.g == group].mean() for group in range(4))
    return {"worst_group_accuracy": worst, "average": right.mean()}


def test_refitted_heads_are_those_of_scikit_learn(found: sm.RefittedHeads) -> None:
    refitted = found.values[found.values["head"] == "refitted"]
    assert len(refitted) == 6 * 2 * 2
    for (path, epoch), rows in refitted.groupby(["run", "epoch"]):
        expected = refitted_by_scikit_learn(sm.Run(path), epoch)
        for row in rows.itertuples():
            assert row.value == pytest.approx(expected[row.measure], abs=0.026)  # one sample: draws differ in order
    averages = refitted.loc[refitted["measure"] == "average", "value"]
    assert averages.between(0.55, 0.95).all()  # neither chance nor all


@pytest.mark.slow
def test_as_trained_is_what_compare_shows(found: sm.RefittedHeads, place: Path) -> None:
    values = sm.compare([place / "dro", place / "erm"]).values.query("split == 'test' and group == -1")
    keys = ["run", "chosen_by", "measure"]
    both = found.values[found.values["head"] == "as trained"].merge(values, on=keys, suffixes=("", "_compared"))
    assert len(both) == 6 * 2 * 2
    np.testing.assert_allclose(both["value"], both["value_compared"])


def test_differences_to_erm_are_paired_by_seed(found: sm.RefittedHeads) -> None:
    assert found.baseline == "erm"  # though it is not the first
    keys = ["chosen_by", "measure"]
    summary = found.summary[found.summary["head"] == "refitted"]
    blocks = dict(iter(summary.groupby(keys)))
    assert len(blocks) == 4
    for key, values in found.values[found.values["head"] == "refitted"].groupby(keys):
        table = values.pivot_table(index="seed", columns="method", values="value")
        got = blocks[key].set_index("method")
        np.testing.assert_allclose(got["mean"], table.mean()[got.index])
        np.testing.assert_allclose(got["std"], table.std(ddof=1)[got.index])
        pairs = table.dropna()
        assert list(pairs.index) == [1, 2]
        row, difference = got.loc["group-dro"], pairs["group-dro"] - pairs["erm"]
        assert row["n_paired"] == 2
        assert row["difference"] == pytest.approx(difference.mean())
        interval = stats.ttest_rel(pairs["group-dro"], pairs["erm"]).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


@pytest.mark.slow
def test_a_second_call_only_reads(found: sm.RefittedHeads, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        stored = sorted((place / "erm" / f"seed_{seed}" / "refitted_heads").iterdir())
        own = found.values[found.values["run"] == str(place / "erm" / f"seed_{seed}")]
        assert [file.name for file in stored] == [f"epoch_{epoch:03d}.json" for epoch in sorted(set(own["epoch"]))]

    def fail(*_: object) -> None:
        raise AssertionError("features are computed again")

    monkeypatch.setattr(module, "features_of", fail)
    again = sm.refitted_heads(sm.compare([place / "dro", place / "erm"]))
    pd.testing.assert_frame_equal(again.values, found.values)


def test_neither_batches_nor_a_new_call_change_the_result(found: sm.RefittedHeads, place: Path, tmp_path: Path) -> None:
    run = tiny.copied(sm.Run(place / "erm" / "seed_0"), tmp_path / "copy")
    shutil.rmtree(run.path / "refitted_heads")
    again = sm.refitted_heads([run], execution=sm.Execution(eval_batch_size=7, device="cpu"))
    first = found.values[found.values["run"] == str(place / "erm" / "seed_0")].reset_index(drop=True)
    columns = ["chosen_by", "epoch", "strength", "head", "measure", "value"]
    pd.testing.assert_frame_equal(again.values[columns], first[columns])
    assert again.summary["difference"].isna().all()


@pytest.mark.slow
def test_a_result_that_was_made_otherwise_is_made_again(found: sm.RefittedHeads, place: Path, tmp_path: Path) -> None:
    run = tiny.copied(sm.Run(place / "erm" / "seed_0"), tmp_path / "copy")
    for file in (run.path / "refitted_heads").iterdir():
        right = file.read_text()
        stored = json.loads(right)
        for change in ({"seed": 5}, {"fit": {**stored["fit"], "draws": 3}}, {"correct_as_trained": [0, 0, 0, 0]}):
            file.write_text(json.dumps({**stored, "correct": [1, 1, 1, 1], **change}))
            sm.refitted_heads([run])
            assert file.read_text() == right


@pytest.mark.slow
def test_a_broken_result_is_named(found: sm.RefittedHeads, place: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(sm.Run(place / "erm" / "seed_0"), tmp_path / "copy")
    file = next((run.path / "refitted_heads").iterdir())
    right = file.read_text()
    stored = json.loads(right)
    for broken in (
        "",
        right[:40],
        "[1]",
        json.dumps({**stored, "correct": [1, 1]}),
        json.dumps({**stored, "correct": [999, 1, 1, 1]}),
        json.dumps({**stored, "strength": None}),
    ):
        file.write_text(broken)
        said = tiny.spurmem(capsys, "compare", run.path, "--refit-heads").error
        assert f"{file} is broken" in said
        assert "delete it and run the same command again" in said
    file.write_text(json.dumps({**stored, "more": 1}))
    assert (
        "has entries that this one doesn't know (more)"
        in tiny.spurmem(capsys, "compare", run.path, "--refit-heads").error
    )
    assert tiny.spurmem(capsys, "compare", run.path).status == 0
    file.unlink()
    assert tiny.spurmem(capsys, "compare", run.path, "--refit-heads").status == 0
    assert file.read_text() == right


@pytest.mark.slow
def test_the_command(found: sm.RefittedHeads, place: Path, capsys: Capture) -> None:
    places = (place / "dro", place / "erm", "--refit-heads")
    said = tiny.spurmem(capsys, "compare", *places)
    assert "Head or features?" in said.out
    assert "Head or features?" not in tiny.spurmem(capsys, "compare", *places[:2]).out
    facts = json.loads(tiny.spurmem(capsys, "compare", *places, "--json").out)["refitted_heads"]
    assert [row["value"] for row in facts["values"]] == pytest.approx(list(found.values["value"]))
    assert len(facts["summary"]) == len(found.summary)
    printed = pd.read_csv(io.StringIO(tiny.spurmem(capsys, "compare", *places, "--format", "csv").out))
    of_heads = printed[printed["table"] == "refitted_heads"]
    np.testing.assert_allclose(of_heads["mean"], found.summary["mean"])
    assert set(printed["table"]) == {"summary", "selections", "refitted_heads"}
    markdown = tiny.spurmem(capsys, "compare", *places, "--format", "markdown").out
    row = found.summary.query("method == 'erm' and head == 'refitted' and measure == 'average'").iloc[0]
    assert f"| {100 * row['mean']:.1f} ±{100 * row['std']:.1f} | - |" in markdown
    assert "worst group, refitted, minus that of erm" in markdown


@pytest.mark.parametrize("width", [60, 100, 140])
def test_no_figure_is_lost_in_a_narrow_terminal(width: int, found: sm.RefittedHeads) -> None:
    check_every_number_is_printed(head_or_features(found), width)


@pytest.mark.slow
def test_networks_without_a_linear_head_are_left_out(place: Path, tmp_path: Path, capsys: Capture) -> None:
    settings = {**tiny.QUICK, "model": "made_runs:convolutional_head", "epochs": 1}
    run = sm.train(place / "data", tmp_path / "conv", sm.TrainSettings(**settings))
    said = tiny.spurmem(capsys, "compare", run.path, "--refit-heads")
    assert said.status == 0, said.err
    assert f"No head of {run.path} is refitted: its logits don't come from one linear layer." in said.out
    assert "Head or features?" not in said.out
    both = sm.refitted_heads([run, place / "erm" / "seed_0"])
    assert set(both.values["run"]) == {str(place / "erm" / "seed_0")}
    assert len(both.notes) == 1
    csv = tiny.spurmem(capsys, "compare", run.path, "--refit-heads", "--format", "csv")
    assert csv.status == 0, csv.err


def test_a_group_without_a_sample_to_fit_on(tmp_path: Path) -> None:
    counts = {"train": (5, 5, 5, 5), "val": (6, 1, 5, 5), "test": (8, 6, 4, 7)}
    data = made_runs.make_data(tmp_path / "data", counts)
    found = sm.refitted_heads([made_runs.make_run(tmp_path / "run", data)])
    assert found.values.empty
    assert found.notes == (
        "No head is refitted: group 'bird with night' has no sample to fit on; it needs at least two in val.",
    )


@pytest.mark.slow
def test_three_classes(tmp_path: Path) -> None:
    data = tiny.make_images(tmp_path / "data", classes=3, attributes=3)
    run = sm.train(data, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))
    found = sm.refitted_heads([run])
    stored = json.loads((run.path / "refitted_heads" / "epoch_001.json").read_text())
    assert stored["n"] == [3] * 9
    refitted = found.values[found.values["head"] == "refitted"].set_index(["chosen_by", "measure"])["value"]
    assert refitted["average", "average"] == pytest.approx(sum(stored["correct"]) / 27)
    assert refitted["average", "worst_group_accuracy"] == pytest.approx(min(stored["correct"]) / 3)
    assert sm.compare([run]).values.query("measure == 'auroc' and split != 'gap'")["value"].between(0, 1).all()


def test_a_run_that_is_being_written(found: sm.RefittedHeads, place: Path, tmp_path: Path) -> None:
    run = tiny.copied(sm.Run(place / "erm" / "seed_0"), tmp_path / "copy")
    with run.writing():
        sm.refitted_heads([run])  # stored results are only read
        shutil.rmtree(run.path / "refitted_heads")
        with pytest.raises(sm.UserError, match="another"):
            sm.refitted_heads([run])
