"""The engine computes on one thread where more threads only take processor time from other programs."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_cases import samples_of, units
from engine_networks import Branching
from tiny_networks import small_convnet
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine import evaluate, fallback
from spurious_memorization.engine import threads as threads_module
from spurious_memorization.engine.evaluate import engine_for, on_one_thread_where_it_pays
from spurious_memorization.engine.prefix.engine import PrefixEngine


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that PyTorch was told, first 2. None is started: other tests fork this process."""
    told = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: told[-1])
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    return told


class Watched(Sequence):
    """Edits that note the number of threads when they are asked for."""

    def __init__(self, edits: Sequence[sm.Edit]) -> None:
        self.edits, self.seen = edits, set[int]()

    def __len__(self) -> int:
        return len(self.edits)

    def __getitem__(self, position):
        self.seen.add(torch.get_num_threads())
        return self.edits[position]


def networks() -> dict[str, tuple[nn.Module, Tensor, str]]:
    torch.manual_seed(0)
    branching = Branching(lambda x: x if x.abs().sum() >= 0 else -x)
    return {
        "shared prefix": (small_convnet(), torch.randn(6, 3, 8, 8), "conv1:3"),
        "plain": (branching, torch.randn(6, 6), "inner:3"),
    }


@pytest.mark.parametrize("path", ["shared prefix", "plain"])
def test_the_number_of_threads_is_what_it_was_after_the_work(path, threads, monkeypatch):
    monkeypatch.setattr(PrefixEngine, "compiled", lambda engine: engine)  # compiling takes seconds
    net, x, text = networks()[path]
    samples = samples_of(x, 2)
    edits = Watched([sm.edits.zero(units(net, text))])
    engine = engine_for(net, samples)
    assert engine.description.startswith(path)
    block = engine.run(edits, range(-1, 1), samples)
    assert edits.seen == {2}
    edits.seen.clear()
    again = engine.on_threads(1).compiled().run(edits, range(-1, 1), samples)
    assert edits.seen == {1}
    assert torch.get_num_threads() == 2
    assert np.array_equal(again.loss, block.loss)


@pytest.mark.parametrize("path", ["shared prefix", "plain"])
def test_the_number_of_threads_is_what_it_was_after_an_error(path, threads):
    class Broken(Watched):
        def __getitem__(self, position):
            super().__getitem__(position)
            raise sm.UserError("on purpose")

    net, x, text = networks()[path]
    edits = Broken([sm.edits.zero(units(net, text))])
    with pytest.raises(sm.UserError, match="on purpose"):
        engine_for(net, samples_of(x, 2)).on_threads(1).run(edits, range(-1, 1), samples_of(x, 2))
    assert edits.seen == {1}
    assert torch.get_num_threads() == 2


class Clock:
    """Time that passes only where a test says so: (seconds, seconds of processor time) on one thread and on two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, one: tuple[float, float], two: tuple[float, float]) -> None:
        self.one, self.two = one, two
        self.seconds = self.processor = 0.0
        run, clock = PrefixEngine.run, self

        def measured(engine, edits, rows, samples):
            seconds, processor = clock.one if torch.get_num_threads() == 1 else clock.two
            clock.seconds, clock.processor = clock.seconds + seconds, clock.processor + processor
            return run(engine, edits, rows, samples)

        monkeypatch.setattr(PrefixEngine, "run", measured)
        time = SimpleNamespace(perf_counter=lambda: self.seconds, process_time=lambda: self.processor)
        monkeypatch.setattr(threads_module, "time", time)


@pytest.mark.parametrize(
    ("one", "two", "is_one_enough"),
    [
        ((1, 1), (1, 2), True),
        ((1, 1), (9, 9), True),  # on a busy machine
        ((1, 1), (0.6, 1.2), False),  # the second thread helps
        ((1, 1), (0.8, 1.6), False),
        ((1, 1), (1, 1.1), False),  # the second thread does nothing
    ],
)
def test_one_thread_where_it_takes_clearly_less(one, two, is_one_enough, threads, monkeypatch):
    Clock(monkeypatch, one, two)
    net, x, text = networks()["shared prefix"]
    edits, samples = Watched([sm.edits.zero(units(net, text))]), samples_of(x, 2)
    engine = on_one_thread_where_it_pays(engine_for(net, samples), edits, samples)
    edits.seen.clear()
    engine.run(edits, range(-1, 1), samples)
    assert edits.seen == {1 if is_one_enough else 2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("why", ["one thread", "large", "full passes"])
def test_where_nothing_is_measured(why, threads, monkeypatch):
    Clock(monkeypatch, (1, 1), (9, 9))
    if why == "one thread":
        threads.append(1)
    if why == "large":
        monkeypatch.setattr(evaluate, "SMALL", 10)
    net, x, text = networks()["plain" if why == "full passes" else "shared prefix"]
    engine, edits = engine_for(net, samples_of(x, 2)), Watched([sm.edits.zero(units(net, text))])
    assert on_one_thread_where_it_pays(engine, edits, samples_of(x, 2)) is engine
    assert edits.seen == set()


def test_a_failing_engine_goes_on_with_as_many_threads(threads, monkeypatch):
    def fails(*_: object) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(PrefixEngine, "run", fails)
    monkeypatch.setattr(fallback, "log", lambda _: None)
    net, x, text = networks()["shared prefix"]
    edits = Watched([sm.edits.zero(units(net, text))])
    engine_for(net, samples_of(x, 2)).on_threads(1).run(edits, range(-1, 1), samples_of(x, 2))
    assert edits.seen == {1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")
def test_a_study_says_that_it_computes_on_one_thread(trained, threads, monkeypatch, capsys):
    said = []
    clock = Clock(monkeypatch, (1, 1), (1, 1))
    for clock.two in ((1, 1), (1, 2)):
        settings = sm.StudySettings(criterion=("weight_norm",), size=("1",), controls=0, split=("train",))
        sm.study_in_memory(trained.network(3), trained.read_data(), settings)
        said.append("on one thread, since more save no time" in capsys.readouterr().err)
        assert torch.get_num_threads() == 2
    assert said == [False, True]
