"""The time that a study still takes: what was planned, and what the blocks really take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

import spurious_memorization as sm
from spurious_memorization.edits.edit import Edit
from spurious_memorization.engine import outcomes
from spurious_memorization.engine.fallback import FallbackEngine
from spurious_memorization.engine.outcomes import Block
from spurious_memorization.engine.pass_time import TimedPass
from spurious_memorization.studies import block_workers, time_to_go
from spurious_memorization.studies.time_to_go import TimeToGo, Work

Capture = pytest.CaptureFixture[str]

SECONDS = {"s": 1, "min": 60, "h": 3600}


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (time_to_go, block_workers):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def lines(capsys: Capture) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if " to go in all" in line]


def measure(left: TimeToGo, clock: Clock, blocks: int, seconds: float, passes: float = 10, workers: int = 1) -> None:
    """Blocks that take so long each, so many of them at the same time."""
    for number in range(blocks):
        if number % workers == 0:
            clock.now += seconds
        left.block_done(passes, seconds)


def test_the_plan_holds_where_blocks_take_what_was_planned(clock: Clock, capsys: Capture) -> None:
    left = TimeToGo({"a": Work(1000, 100), "b": Work(500, 50)}, seconds_per_pass=2)
    left.begin("a", "part a", Work(1000, 100), workers=1)
    assert left.seconds == 3000
    measure(left, clock, 99, seconds=20)
    assert lines(capsys) == ["part a: about 50 min to go in all"]
    measure(left, clock, 1, seconds=20)
    left.begin("b", "part b", Work(500, 50), workers=1)
    assert left.seconds == pytest.approx(1000)
    measure(left, clock, 50, seconds=20)
    assert lines(capsys) == ["part b: about 17 min to go in all"]
    assert left.seconds == 0


@pytest.mark.parametrize("really", [20, 0.5])
def test_the_time_is_corrected_and_approaches_the_true_one(really: float, clock: Clock, capsys: Capture) -> None:
    """The plan was made while the machine was busy, or before it was."""
    left = TimeToGo({"a": Work(4000, 400), "b": Work(10_000, 1000)}, seconds_per_pass=0.5)
    left.begin("a", "part a", Work(4000, 400), workers=1)
    assert left.seconds == 7000
    measure(left, clock, 1, seconds=really)
    assert left.seconds == pytest.approx(1399 * really)
    (line,) = lines(capsys)
    assert line.startswith("part a: about ")
    assert line.endswith(" to go in all (1.9 h were expected)")
    measure(left, clock, 100, seconds=really)
    assert lines(capsys) == []
    measure(left, clock, 150, seconds=3 * really)  # now the machine is busier
    assert left.seconds == pytest.approx(1149 * 3 * really, rel=0.01)
    said = lines(capsys)
    assert 1 <= len(said) <= 5
    assert all("were expected" in line for line in said)


def test_blocks_that_are_stored_take_no_time(clock: Clock) -> None:
    left = TimeToGo({"a": Work(1000, 100), "b": Work(500, 50)}, seconds_per_pass=2)
    left.begin("a", "part a", Work(0, 0), workers=1)
    assert left.seconds == 1000
    left.begin("b", "part b", Work(100, 10), workers=1)
    assert left.seconds == 200


def test_several_workers_share_the_blocks(clock: Clock, capsys: Capture) -> None:
    left = TimeToGo({"a": Work(320, 32), "b": Work(20, 2)}, seconds_per_pass=60)
    left.begin("a", "part a", Work(320, 32), workers=8)
    assert left.seconds == 320 * 60 / 8 + 20 * 60 / 2
    measure(left, clock, 7, seconds=600, workers=8)
    assert lines(capsys) == []  # the eighth is about to come
    left.block_done(10, 600)
    assert lines(capsys) == ["part a: about 40 min to go in all"]
    measure(left, clock, 24, seconds=600, workers=8)
    assert left.seconds == pytest.approx(600)
    assert lines(capsys) == []


def test_further_rounds_are_added(clock: Clock, capsys: Capture) -> None:
    left = TimeToGo({"a": Work(100, 10)}, seconds_per_pass=2)
    left.begin("a", "part a", Work(100, 10), workers=1)
    measure(left, clock, 10, seconds=20)
    assert lines(capsys) == ["part a: about 3 min to go in all"]
    left.begin("b", "round 2", Work(300, 30), workers=1)
    assert lines(capsys) == ["round 2: about 10 min to go in all"]
    measure(left, clock, 30, seconds=20)
    assert lines(capsys) == []


def test_without_a_plan_the_first_block_tells_the_time(clock: Clock, capsys: Capture) -> None:
    left = TimeToGo()
    left.begin("a", "part a", Work(100, 10), workers=1)
    assert left.seconds is None
    measure(left, clock, 1, seconds=20)
    assert lines(capsys) == ["part a: about 3 min to go in all"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")
def test_a_study_whose_engine_is_slower_than_planned(
    trained: sm.Run, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in (("EDITS_PER_BLOCK", 5), ("MIN_SAMPLES_PER_BLOCK", 7), ("OUTCOMES_PER_BLOCK", 1)):
        monkeypatch.setattr(outcomes, name, value)
    run, said = FallbackEngine.run, list[tuple[float, str]]()

    def slow(engine: FallbackEngine, edits: Sequence[Edit], rows: range, samples: sm.Samples) -> Block:
        passes = 1 + engine.pass_fractions(edits[max(0, rows.start) : rows.stop]).sum()
        clock.now += 30 * float(passes) * len(samples)
        return run(engine, edits, rows, samples)

    monkeypatch.setattr(FallbackEngine, "run", slow)
    monkeypatch.setattr(FallbackEngine, "pass_time", lambda *_: TimedPass(1.0))
    monkeypatch.setattr(time_to_go, "log", lambda line: said.append((clock.now, line)))
    settings = sm.StudySettings(criterion=("weight_norm",), size=("1..6",), controls=0, split=("train", "test"))
    sm.study_in_memory(trained.network(3), trained.read_data(), settings)
    assert len(said) >= 2
    assert "were expected" in said[0][1]
    for then, line in said:
        told = re.search(r"about ([\d.]+) (s|min|h) to go", line)
        assert told is not None
        assert float(told[1]) * SECONDS[told[2]] == pytest.approx(clock.now - then, rel=0.1)
