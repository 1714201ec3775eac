"""What a study says before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from torch import Tensor

import spurious_memorization as sm
from spurious_memorization.console import duration
from spurious_memorization.engine import pass_time
from spurious_memorization.engine.prefix import engine as prefix_module
from spurious_memorization.studies import shorter_study

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

IMAGES = {"train": 40, "test": 12}
CONV1, CONV2, HEAD = 16 * 16 * 8 * 3 * 9, 8 * 8 * 12 * 8 * 9, 12 * 2  # multiplications of the small network's layers


class Clock:
    """Time that passes only where a test says so.

    Arguments:
        running: share of it in which the thread runs.
    """

    def __init__(self, running: float = 1.0) -> None:
        self.now, self.running = 0.0, running

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def thread_time(self) -> float:
        return self.now * self.running


def pass_takes(monkeypatch: pytest.MonkeyPatch, *, clock: Clock | None = None, **seconds: float) -> None:
    """Let a full pass of one sample take this number of seconds, by floating-point type. Later passes take longer."""
    clock, done = clock or Clock(), list[str]()

    def slower_and_slower(network: Any, value: Tensor, _shared: object) -> None:
        dtype = str(network.dtype).removeprefix("torch.")
        clock.now += len(value) * seconds[dtype] * (1 + done.count(dtype))
        done.append(dtype)

    monkeypatch.setattr(pass_time, "time", clock)
    monkeypatch.setattr(prefix_module, "_pass", slower_and_slower)


def plan(run: sm.Run, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[sm.Study, list[str]]:
    """A study, and the lines that it said up to the first outcome."""
    given: dict[str, Any] = {"size": ("1..2",), "controls": 3, "cross_fit": False}
    capsys.readouterr()
    result = sm.study(run, sm.StudySettings(**{**given, **changes}))
    lines = capsys.readouterr().err.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("train, edited networks:"))
    return result, lines[first : first + 6]


def multiplications(units: str) -> int:
    """What an edit of these channels needs for one sample, in addition to the unedited network: a channel that is
    the only one of its layer is followed alone into the next; otherwise all from its layer on is calculated again."""
    layers = [unit.split(":")[0] for unit in units.split(",")]
    if all(layers.count(name) == 1 for name in layers):
        return HEAD if "conv1" in layers else 0
    return CONV1 + CONV2 + HEAD if "conv1" in layers else CONV2 + HEAD


def needed_passes(variants: pd.DataFrame) -> float:
    full = CONV1 + CONV2 + HEAD
    each = [multiplications(units) / full for units in variants["units"]]
    return sum(n * (sum(each) + 2) for n in IMAGES.values())  # selected and controls both begin without an edit


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


def test_plan_counts_networks_images_computation_and_time(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_takes(monkeypatch, float32=0.5)
    result, lines = plan(run, capsys)
    variants = result.variants()
    families = variants["family"].value_counts()
    assert lines[:4] == [
        f"{split}, {label}: {families[family]} on {n} images"
        for split, n in IMAGES.items()
        for label, family in (("edited networks", "selected"), ("controls, round 1", "random"))
    ]
    needed = needed_passes(variants)
    full = sum(n * (len(variants) + 2) for n in IMAGES.values())
    assert 0.1 < needed / full < 0.9
    assert lines[4] == (
        f"engine: shared prefix; {1 - needed / full:.0%} of the computation saved, about {duration(0.5 * needed)}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("running", "said"), [(0.5, "ran for 50% of the time"), (0.95, None)])
def test_plan_says_if_the_machine_is_busy(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, running: float, said: str | None
) -> None:
    pass_takes(monkeypatch, clock=Clock(running), float32=0.1)
    _, lines = plan(run, capsys)
    notes = [line for line in lines if "other programs keep this machine busy" in line]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_a_long_study_names_a_shorter_one_and_its_time(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shorter_study, "MIN_PER_GROUP", 1)
    pass_takes(monkeypatch, float32=2.0)
    asked = {"split": ("train",), "controls": 19}
    _, lines = plan(run, capsys, **asked)
    (said,) = [line for line in lines if "--per-group" in line]
    assert said.endswith("null sets on at most 4 images per group, and these are all of each minority group in train")
    pass_takes(monkeypatch, float32=2.0)
    _, of_shorter = plan(run, capsys, **asked, per_group=4)
    assert [line.partition(" on ")[2] for line in of_shorter[:2]] == ["40 images", "16 images"]
    (engine,) = [line for line in of_shorter if line.startswith("engine: ")]
    assert said.startswith(f"--per-group 4 would take {engine.partition('saved, ')[2]}:")
    assert not any("--per-group" in line for line in of_shorter)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "least"), [(0.01, 1), (2.0, 16)], ids=["short", "nothing to leave out"])
def test_other_studies_name_no_shorter_one(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float, least: int
) -> None:
    monkeypatch.setattr(shorter_study, "MIN_PER_GROUP", least)
    pass_takes(monkeypatch, float32=seconds)
    _, lines = plan(run, capsys, split=("train",), controls=19)
    assert not any("--per-group" in line for line in lines)


@pytest.mark.slow
def test_plan_of_full_passes_says_why(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(*_: object, **__: object) -> None:
        raise RuntimeError("not here")

    monkeypatch.setattr(torch.export, "export", untraceable)
    _, lines = plan(run, capsys)
    assert lines[4].startswith(
        "engine: plain: torch.export can't trace it (not here); 0% of the computation saved, about "
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bfloat16", "said"),
    [
        (0.2, ["bf16 takes 2.0 times as long as float32 on this machine: --precision float32 is faster"]),
        (0.1, []),
        (0.05, []),
    ],
)
def test_plan_says_where_bf16_is_slower(
    run: sm.Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bfloat16: float,
    said: list[str],
) -> None:
    pass_takes(monkeypatch, float32=0.1, bfloat16=bfloat16)
    result, lines = plan(run, capsys, precision="bf16")
    assert lines[4].endswith(f"about {duration(bfloat16 * needed_passes(result.variants()))}")
    assert [line for line in lines if "times as long" in line] == said


@pytest.mark.slow
def test_one_precision_is_timed_where_float32_is_chosen(
    run: sm.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_takes(monkeypatch, float32=0.1)
    _, lines = plan(run, capsys, precision="float32")
    assert not any("times as long" in line for line in lines)
