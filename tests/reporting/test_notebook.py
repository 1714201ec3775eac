"""What a notebook shows of data sets, runs, rankings and studies; and the plain frames behind it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml

import spurious_memorization as sm

HTML: dict[type, Callable[[Any], str]] = {}
"""What the extension registers, as IPython's formatter holds it."""


class Formatter:
    """IPython's formatter of HTML."""

    @staticmethod
    def for_type(kind: type, function: Callable[[Any], str]) -> None:
        HTML[kind] = function


@pytest.fixture(scope="module", autouse=True)
def _extension() -> None:
    """`%load_ext spurious_memorization`."""
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": Formatter}))
    sm.load_ipython_extension(shell)


def html_of(shown: object) -> str:
    """What a notebook shows."""
    return HTML[type(shown)](shown)


INJECTED = "<script>alert('x')</script>"


def table(html: str) -> pd.DataFrame:
    """The one table of the HTML, as text."""
    rows = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return pd.DataFrame(cells[1:], columns=cells[0])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A run on data whose names hold markup, in a folder whose name does too."""
    folder = tiny.make_images(tmp_path_factory.mktemp("hostile") / "data")
    about = yaml.safe_load((folder / "dataset.yaml").read_text())
    about |= {"name": INJECTED, "classes": [INJECTED, "b & c"], "attributes": {"a": ["<b>bold", "'\""]}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(about))
    out = tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)>"
    return sm.train(folder, out, sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))


@pytest.fixture(scope="module")
def studied(hostile: sm.Run) -> sm.Study:
    settings = sm.StudySettings(criterion=("weight_norm",), size=("1",), controls=5)
    return sm.study(hostile, settings)


def test_text_of_the_data_is_escaped(hostile, studied):
    for shown in (hostile.read_data(), hostile, studied):
        html = html_of(shown)
        assert "<script" not in html
        assert "<img" not in html
        assert "<b>" not in html
    assert "&lt;script&gt;" in html_of(hostile)
    assert "&lt;img" in html_of(hostile)
    assert "&lt;script&gt;" in html_of(studied)


def test_names_of_tensors_are_escaped():
    html = html_of(sm.Scores({"<i>conv.weight": torch.tensor([1.0, 2.0])}))
    assert "<i>" not in html
    assert "&lt;i&gt;conv:1" in html


def test_a_run_shows_its_history(trained):
    shown = table(html_of(trained))
    last = trained.history().query("epoch == 3")
    names = trained.record.data.groups.names
    for row in last[last["n"] > 0].itertuples():
        cell = shown[row.split].iloc[row.group]
        assert cell.startswith(f"{100 * row.correct / row.n:.1f} % <span")
        assert cell.endswith(f"n={row.n})</span>")
    marked = [
        f'{name} <span class="detail">*</span>' if name in trained.record.data.minority else name for name in names
    ]
    assert shown["group"].tolist() == marked


def test_a_run_that_has_not_begun_says_so(trained, tmp_path):
    run = tiny.copied(trained, tmp_path / "run")
    (run.path / "history.parquet").unlink()
    with pytest.raises(sm.UserError, match=r"history\.parquet does not exist: train again with --resume"):
        html_of(run)
    shutil.rmtree(run.path / "checkpoints")
    assert "nothing was measured yet" in html_of(run)
    with pytest.raises(sm.UserError, match="is not a run"):
        html_of(sm.Run(tmp_path))


def test_a_study_shows_its_effects(studied):
    shown = table(html_of(studied))
    effects = studied.effects().query("minority and split == 'train'")
    assert len(shown) == len(effects) > 0
    assert shown["accuracy change"].tolist() == [
        f"{round(100 * change, 1) + 0.0:+.1f}" for change in effects["tested_accuracy_change"]
    ]
    assert shown["verdict"].tolist() == effects["verdict"].tolist()


def test_a_study_that_is_not_finished_says_so(studied, tmp_path):
    assert "not finished" in html_of(sm.Study(tmp_path))


def test_counts_of_a_data_set(squares):
    data = sm.read_data(squares)
    counts = data.counts()
    assert counts["group"].tolist() == list(data.groups.names)
    for split in data.splits:
        assert counts[split].tolist() == np.bincount(data.samples(split).g, minlength=len(data.groups)).tolist()
    assert set(counts.loc[counts["role"] == "minority", "group"]) == {data.groups.names[g] for g in data.minority}
    shown = table(html_of(data))
    assert shown["train"].astype(int).tolist() == counts["train"].tolist()


def test_first_units_of_a_ranking():
    scores = sm.Scores({"one.weight": torch.tensor([3.0, 1.0]), "two.weight": torch.tensor([[2.0], [4.0]])}, "weight")
    first = scores.first(3)
    assert first["unit"].tolist() == ["two:1", "one:0", "two:0"]
    assert first["score"].tolist() == [4.0, 3.0, 2.0]
    assert first["rank"].tolist() == [1, 2, 3]
    assert len(scores.first(10)) == 4
    assert table(html_of(scores))["weight"].tolist() == scores.first()["unit"].tolist()


def test_reprs_are_one_line(squares, trained, studied):
    data = sm.read_data(squares)
    scores = sm.criteria.weight_norm(trained.network(3))
    for shown in (data, data.train, scores, trained, studied):
        assert "\n" not in repr(shown)
        assert repr(shown).startswith("<")
        assert not hasattr(shown, "_repr_html_")
    for shown in (data, data.train, scores):
        assert len(repr(shown)) < 100
    assert "train 40" in repr(data)
    assert "40 in train" in repr(data.train)
