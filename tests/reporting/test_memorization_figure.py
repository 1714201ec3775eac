"""Memorization scores in the report and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from browser import opened
from report_page import Page

import spurious_memorization as sm
from spurious_memorization.reporting.figures.memorization import memorization
from spurious_memorization.reporting.gallery.most_memorized import most_memorized_images
from spurious_memorization.reporting.inputs import read_inputs

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scores(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> sm.MemorizationScores:
    settings = sm.MemorizationSettings(**tiny.QUICK, networks=4, share=0.5)
    return sm.memorization_scores(squares, tmp_path_factory.mktemp("scores") / "scores", settings)


def test_the_bins_hold_every_sample(scores: sm.MemorizationScores, trained: sm.Run) -> None:
    figure = memorization(read_inputs([trained.path], memorization=scores.path))
    assert figure is not None
    table = scores.scores()
    for name, rows in figure.rows.groupby("group"):
        of_group = table.loc[table["group_name"] == name, "score"]
        assert rows["n"].sum() == len(of_group)
        assert rows["share"].sum() == pytest.approx(1)
        for row in rows.itertuples():
            assert row.n == ((of_group >= row.low) & (of_group < row.high)).sum()
    assert (np.isclose(figure.rows["high"] - figure.rows["low"], 0.1)).all()
    assert figure.table.rows["group_name"].tolist() == list(sm.read_data(trained.record.data.folder).groups.names)
    assert memorization(read_inputs([trained.path])) is None


@pytest.mark.slow
def test_the_command_of_the_figure_names_the_scores(
    scores: sm.MemorizationScores, trained: sm.Run, tmp_path: Path, chromium: Any
) -> None:
    file = sm.report([trained.path], tmp_path / "report.html", memorization=scores.path)
    with opened(chromium, file) as shown:
        command = shown.page.inner_text("[data-command=memorization]")
    assert command == f"spurmem figure memorization {trained.path} --memorization {scores.path}"


@pytest.mark.slow
def test_the_report_shows_them(scores: sm.MemorizationScores, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "report.html"
    said = tiny.spurmem(capsys, "report", trained.path, "--out", page, "--memorization", scores.path)
    assert said.status == 0, said.err
    shown = Page(page)
    assert "Most memorized training images" in shown.text
    first = most_memorized_images(scores, sm.Run(trained.path).read_data())
    for name, of_group in scores.scores().query("minority").groupby("group_name"):
        highest = of_group.nlargest(6, "score")["score"].tolist()
        labels = [float(image.label.split(" ")[0]) for image in first if image.group == name]
        assert labels == pytest.approx(highest, abs=0.0051)
    html = page.read_text(encoding="utf-8")
    for image in first:
        assert f'alt="{image.group}: score {image.label}" title="{image.path}"' in html
    assert f"spurmem figure memorization {trained.path} --memorization {scores.path}" in shown.text
    groups = scores.groups().set_index("group_name")
    for row in shown.tables["memorization"]:
        assert row["score"] == pytest.approx(groups.loc[row["group"], "score"], abs=1e-6)
    assert len(shown.tables["memorization"]) == 4
    plain = tmp_path / "plain.html"
    sm.report([trained.path], plain)
    assert "Most memorized training images" not in Page(plain).text


@pytest.mark.slow
def test_the_figure_as_a_file(scores: sm.MemorizationScores, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    words = ("figure", "memorization", trained.path, "--out", tmp_path)
    assert "then give --memorization" in tiny.spurmem(capsys, *words).error
    said = tiny.spurmem(capsys, *words, "--memorization", scores.path)
    assert said.status == 0, said.err
    assert (tmp_path / "memorization.svg").read_text(encoding="utf-8").count("<path") > 5


def test_scores_of_other_data_are_refused(
    scores: sm.MemorizationScores, trained: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    folder = tiny.make_images(tmp_path / "other", train=10)
    other = sm.train(folder, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 1}))
    said = tiny.spurmem(capsys, "report", trained.path, other.path, "--memorization", scores.path)
    assert "holds the scores of other data than" in said.error
    assert "holds no memorization scores" in tiny.spurmem(
        capsys, "report", trained.path, "--memorization", tmp_path
    ).error  # fmt: skip
