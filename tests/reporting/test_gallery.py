"""The gallery: the right images, with the right predictions and activations."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from report_page import NAMES, Page, in_words

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Images
from spurious_memorization.reporting.gallery import top_activating as top_activating_module
from spurious_memorization.reporting.gallery.top_activating import top_activating

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


def test_changed_images_are_those_of_the_outcomes(page: Page, studied: sm.Study, squares: Path) -> None:
    paths = pd.read_csv(squares / "metadata.csv")["path"]
    y = pd.read_csv(squares / "metadata.csv")["y"]
    outcomes, variants = studied.outcomes("train"), studied.variants()
    before = outcomes.query("variant == -1").set_index("sample")["predicted"]
    selected = variants.query("family == 'selected' and fold == -1 and repeat == 0")
    items = page.data["gallery"]["items"]
    assert len(items) == len(selected)
    for row in selected.itertuples():
        about = in_words(studied.effects()).query("selected_set == @row.selected_set").iloc[0]
        (shown,) = [e for e in items if all(e[name] == about[name] for name in ("edit", "criterion", "size"))]
        after = outcomes.query("variant == @row.variant").set_index("sample")["predicted"]
        changed = set(after.index[after != before[after.index]])
        assert sum(shown["selected"]["changed"].values()) == len(changed)
        assert shown["selected"]["units"] == row.units.split(",")
        samples = {int(p["sample"].split(":")[1]): p for p in shown["selected"]["images"]}
        assert set(samples) <= changed
        for group, n in shown["selected"]["changed"].items():
            assert sum(p["group"] == group for p in samples.values()) == min(n, 6)
        for sample, image in samples.items():
            assert (image["before"], image["after"]) == (f"class {before[sample]}", f"class {after[sample]}")
            stored = page.data["gallery"]["samples"][image["sample"]]
            assert stored["path"] == paths[sample]
            assert stored["label"] == f"class {y[sample]}"


def test_images_are_the_right_files(page: Page, squares: Path) -> None:
    assert page.data["gallery"]["samples"]
    paths = pd.read_csv(squares / "metadata.csv")["path"]
    originals = {path: np.asarray(Image.open(squares / path).convert("RGB"), float) for path in paths}
    for sample in page.data["gallery"]["samples"].values():
        kind, _, encoded = sample["image"].partition(",")
        assert kind == "data:image/jpeg;base64"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), float)
        others = [other for path, other in originals.items() if path != sample["path"]]
        assert all(np.abs(shown - other).mean() > np.abs(shown - originals[sample["path"]]).mean() for other in others)


def test_top_activating_images_by_hand(page: Page, studied: sm.Study, squares: Path) -> None:
    """A batch norm follows conv1, none follows conv2."""
    run = sm.Run(studied.path.parent.parent)
    network, train = run.network(3), run.read_data(squares).train
    with torch.no_grad():
        network.bn1.weight[3] *= -1
        first = network.conv1(train.batch().inputs)
        second = network.conv2(network.relu1(network.bn1(first)))
    found = top_activating(network, train, ["conv1:3", "conv2:7", "conv1:0"], k=5)
    for unit, values in (("conv1:3", -first[:, 3]), ("conv2:7", second[:, 7]), ("conv1:0", first[:, 0])):
        best = values.amax((1, 2))
        order = best.argsort(descending=True)[:5]
        rows = found[found["unit"] == unit]
        assert rows["sample"].tolist() == train.index[order.numpy()].tolist()
        np.testing.assert_allclose(rows["activation"], best[order], rtol=1e-4)
    for item in page.data["gallery"]["items"]:
        assert set(item["top_activating"]) == {*item["selected"]["units"], *item["control"]["units"]}
        assert item["n_searched"] == len(train)
    stored = pd.read_parquet(studied.path / "top-activating.parquet")
    assert stored.groupby("unit").size().eq(12).all()


@pytest.mark.slow
def test_the_pass_over_the_images_is_kept(run: sm.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sm.report([run.path]).read_bytes()
    monkeypatch.setattr(top_activating_module, "top_activating", None)
    assert sm.report([run.path]).read_bytes() == first


@pytest.mark.slow
def test_single_weights_have_no_top_activating_images(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    sm.study(run, sm.StudySettings(criterion=("weight_norm",), unit="weight", size=("3", "50%"), controls=2))
    shown = Page(sm.report([run.path]))
    (item,) = shown.data["gallery"]["items"]  # the units of the large set aren't listed
    assert item["top_activating"] == {}
    assert item["size"] == "3"
    assert len(shown.tables["accuracy_changes"]) == 2 * 2 * 4


def test_images_of_a_choice(run: sm.Run, tmp_path: Path) -> None:
    choice = sm.FigureSettings(criterion="weight_norm", size="2", edit="zero", group=NAMES[1], format="csv")
    (file,) = sm.draw_figures("images", [run.path], tmp_path, choice)
    table = pd.read_csv(file)
    assert (table["group"] == NAMES[1]).all()
    assert (table["criterion"] == "weight_norm").all()
    source = run.read_data().source
    assert isinstance(source, Images)
    assert [source.paths[i] for i in table["sample"]] == table["path"].tolist()
