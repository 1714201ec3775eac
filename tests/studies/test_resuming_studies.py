"""Stopped, repeated and broken studies."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from study_oracle import (
    MEAN,
    MINORITY,
    REWIND,
    same,
    small,
)

import spurious_memorization as sm
from spurious_memorization.engine.protocol import Engine
from spurious_memorization.studies import pipeline as study_module

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")


def test_the_record(whole: sm.Study, trained: sm.Run) -> None:
    record = whole.record
    assert record["epoch"] == 3
    assert record["settings"]["controls"] == 3
    assert [r["group"] for r in record["rankings"]] == [None, "class 0 with color 1", "class 1 with color 0"]
    assert record["rankings"][0]["select"]["with_bias"] is True
    assert record["edits"] == ["zero", "mean", "rewind:epochs=2"]
    rankings = list((whole.path.parent.parent / "rankings").glob("*.safetensors"))
    assert len(rankings) == 3 + 2 * 2  # those of each half too


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [
        "results",
        pytest.param("everything", marks=pytest.mark.slow),
        pytest.param("effects", marks=pytest.mark.slow),
        pytest.param("outcomes", marks=pytest.mark.slow),
        pytest.param("rankings", marks=pytest.mark.slow),
    ],
)
def test_what_was_lost_is_made_again(lost: str, run: sm.Run, whole: sm.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole.path, run.path / "studies" / "whole")
    shutil.copytree(whole.path.parent.parent / "rankings", run.path / "rankings")
    here = sm.Study(run.path / "studies" / "whole")
    (here.path / "effects.parquet").unlink()
    networks: list[int] = []
    original = study_module.engine_for
    blocks = sorted((here.path / "outcomes").iterdir())
    rows = {file: pd.read_parquet(file)["variant"].nunique() for file in blocks}  # that before any edit too
    lost_blocks = blocks[::3]

    def counting(*arguments: object, **named: object) -> Engine:
        engine = original(*arguments, **named)
        run = engine.run
        engine.run = lambda edits, rows, samples: networks.extend(rows) or run(edits, rows, samples)
        return engine

    monkeypatch.setattr(study_module, "engine_for", counting)
    match lost:
        case "results":
            (here.path / "results.parquet").unlink()
        case "outcomes":
            for file in lost_blocks:
                file.unlink()
        case "rankings":
            shutil.rmtree(run.path / "rankings")
        case "everything":
            shutil.rmtree(here.path)
    same(sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole"), whole)
    needed = {"outcomes": sum(rows[file] for file in lost_blocks), "everything": sum(rows.values())}
    assert len(networks) == needed.get(lost, 0)


def test_a_broken_block_is_named(run: sm.Run, whole: sm.Study) -> None:
    shutil.copytree(whole.path, run.path / "studies" / "whole")
    (run.path / "studies" / "whole" / "effects.parquet").unlink()
    block = run.path / "studies" / "whole" / "outcomes" / "test_selected_00000.parquet"
    block.write_bytes(block.read_bytes()[:1000])
    with pytest.raises(sm.UserError, match=r"test_selected_00000\.parquet is broken: delete it and run the same"):
        sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")


@pytest.mark.parametrize("kills", [(4,), pytest.param(range(1, 100), marks=pytest.mark.slow)])
def test_killed_midway(kills: Sequence[int], trained: sm.Run, tmp_path: Path) -> None:
    """Killed at one table, or at each: blocks of outcomes (selected on all and on each half, null sets), variants,
    results, agreement, groups, effects. What is made of the rest is bitwise the same."""
    settings = small(criterion=("gradient",), group=(MINORITY[0],), size=("1",), split=("test",))
    whole = sm.study(tiny.copied(trained, tmp_path / "run"), settings, name="once")
    tables = [name for name in tiny.files_below(whole.path) if name.endswith(".parquet")]
    assert len(tables) == 5 + 5
    for writes in kills[: len(tables)]:
        run = tiny.copied(trained, tmp_path / f"run_{writes}")
        assert tiny.in_child(killed_at(writes, run, settings)) == -signal.SIGKILL
        study = sm.Study(run.path / "studies" / "once")
        assert not study.is_complete
        left = {file: file.stat().st_mtime_ns for file in (study.path / "outcomes").glob("*_0*.parquet")}
        assert len(left) == min(writes - 1, len(tables) - 5)
        sm.study(run, settings, name="once")
        assert all(file.stat().st_mtime_ns == time for file, time in left.items())
        kept = tiny.files_below(whole.path)
        assert kept <= tiny.files_below(study.path)
        for name in kept:
            assert (study.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def killed_at(writes: int, run: sm.Run, settings: sm.StudySettings) -> Callable[[], None]:
    """A study that is killed when it writes its n-th table."""

    def child() -> None:
        original, tables = Path.replace, []

        def last(file: Path, target: Path) -> Path:
            if target.suffix == ".parquet":
                tables.append(target)
                if len(tables) == writes:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(file, target)

        Path.replace = last  # type: ignore[method-assign]
        sm.study(run, settings, name="once")

    return child


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_no_count(batch_size: int, run: sm.Run, whole: sm.Study) -> None:
    result = sm.study(
        run, small(edit=("zero", MEAN, REWIND)), name="whole", execution=sm.Execution(eval_batch_size=batch_size)
    )
    counts = ["variant", "split", "group", "n", "correct_before", "correct_after", "became_wrong", "became_right"]
    assert result.results()[counts].equals(whole.results()[counts])
    for split in ("train", "test"):
        np.testing.assert_allclose(result.outcomes(split)["loss"], whole.outcomes(split)["loss"], atol=1e-5)


@pytest.mark.slow
def test_small_blocks_change_nothing(run: sm.Run, whole: sm.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spurious_memorization.engine.outcomes.OUTCOMES_PER_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.MAX_OUTCOMES_PER_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.MIN_SAMPLES_PER_BLOCK", 7)
    monkeypatch.setattr("spurious_memorization.engine.outcomes.EDITS_PER_BLOCK", 5)
    result = sm.study(run, small(edit=("zero", MEAN, REWIND)), name="whole")
    assert len(list((result.path / "outcomes").iterdir())) > 50
    counts = ["variant", "split", "group", "n", "correct_before", "correct_after", "became_wrong", "became_right"]
    assert result.results()[counts].equals(whole.results()[counts])
    sums = ["loss_before", "loss_after", "margin_before", "margin_after"]
    np.testing.assert_allclose(result.results()[sums], whole.results()[sums], atol=1e-4)


def test_the_second_call_reads(run: sm.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sm.study(run, small(), name="once")
    before = {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    monkeypatch.setattr(study_module, "engine_for", lambda *_, **__: pytest.fail("measured again"))
    assert sm.study(run, small(), name="once") == first
    assert before == {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    with pytest.raises(sm.UserError, match=r"study once was made with settings\.controls = 3, not 4"):
        sm.study(run, small(controls=4), name="once")
    assert before == {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}


@pytest.mark.slow
def test_without_a_name_other_settings_are_another_study(run: sm.Run) -> None:
    settings = small(criterion=("weight_norm",), split=("test",), controls=1)
    one = sm.study(run, settings)
    assert sm.study(run, settings) == one
    assert sm.study(run, settings.model_copy(update={"seed": 1})).path != one.path
