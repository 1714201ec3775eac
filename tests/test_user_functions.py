"""A user's function that goes wrong: one line with its name and its own error, and no call for another purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import users_mistakes

import spurious_memorization as sm
from spurious_memorization.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")

Capture = pytest.CaptureFixture[str]

ANYWHERE = {
    "os:system": "os:system belongs to Python itself",
    "builtins:print": "builtins:print belongs to Python itself",
    "users_mistakes:constant": "is a int: name an importable module and a function in it",
    "users_mistakes:gone": "users_mistakes:gone: AttributeError: module 'users_mistakes' has no attribute 'gone'",
    "torch:zeros": "torch:zeros is no Python function",
    "users_mistakes:three_arguments": "users_mistakes:three_arguments is not made for this: missing a required",
    "users_mistakes:raises": "users_mistakes:raises fails: ValueError: the reason: --debug shows where",
    "users_mistakes:leaves": "users_mistakes:leaves fails: SystemExit",
}

CRITERIA = {
    "users_mistakes:no_arguments": "users_mistakes:no_arguments is not made for this: too many positional arguments",
    "users_mistakes:nothing": "must return {tensor name: scores}, not a NoneType",
    "users_mistakes:a_list": "must return {tensor name: scores}, not a list",
    "users_mistakes:an_empty_mapping": "must return {tensor name: scores}, not an empty mapping",
    "users_mistakes:another_tensor": "gives scores for 'conv9.weight', which has no channels: it may name conv1.weight",
    "users_mistakes:another_length": "gives scores of shape (7,) for conv1.weight, not (8,)",
    "users_mistakes:words": "gives no numbers for conv1.weight",
    "users_mistakes:not_a_number": "gives NaN for conv1.weight",
}


@pytest.fixture(autouse=True)
def _never_called() -> None:
    users_mistakes.CALLED.clear()
    yield
    assert users_mistakes.CALLED == []


@pytest.mark.parametrize("name", [*ANYWHERE, *CRITERIA])
def test_criteria(name: str, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    assert {**ANYWHERE, **CRITERIA}[name] in tiny.spurmem(capsys, "trace", run.path, "--criterion", name).error


@pytest.mark.parametrize("name", [*ANYWHERE, "users_mistakes:no_arguments"])
def test_edits(name: str, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    flags = ("--units=conv1:1", f"--edit={name}", "--out", tmp_path / "out")
    assert {**ANYWHERE, **CRITERIA}[name] in tiny.spurmem(capsys, "edit", trained.path, *flags).error
    assert not (tmp_path / "out").exists()


def test_a_study_begins_when_its_edits_can_be_made(trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    wrong = ("--units=conv1:1", "--edit=zero", "--edit=users_mistakes:raises")
    assert "users_mistakes:raises fails" in tiny.spurmem(capsys, "study", run.path, *wrong).error
    assert not (run.path / "studies").exists()


FACTORIES = {
    **ANYWHERE,
    "users_mistakes:nothing": "users_mistakes:nothing gave an object of type NoneType, not a torch.nn.Module",
    "users_mistakes:Network": "users_mistakes:Network is not made for this: missing a required argument: 'width'",
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories(name: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = tiny.train_flags(tmp_path / "out", model=name)
    assert FACTORIES[name] in tiny.spurmem(capsys, "train", squares, *flags).error


@pytest.mark.parametrize("name", ["no_such_module:f", "users_mistakes:raises", "users_mistakes:flat_numbers"])
@pytest.mark.parametrize("command", ["train", "train --seeds=0..1", "mitigate", "memorization", "discover", "import"])
def test_a_network_that_cannot_be_made_leaves_nothing(
    command: str, name: str, squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "runs" / "deeper" / ("out.csv" if command == "discover" else "out")
    epochs = [f"--weights={trained.checkpoint(3)}"] if command == "import" else ["--epochs=1"]
    said = tiny.spurmem(capsys, *command.split(), squares, f"--model={name}", *epochs, "--out", out)
    assert said.error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_processes_that_cannot_make_the_network_leave_nothing(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = (*tiny.train_flags(tmp_path / "runs" / "out", model="users_mistakes:raises"), "--on=processes:2")
    assert "users_mistakes:raises fails" in tiny.spurmem(capsys, "train", squares, *flags).error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["memorization", "discover"])
def test_the_same_call_works_with_the_right_network(
    command: str, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / ("out.csv" if command == "discover" else "out")
    few = ["--networks=2"] if command == "memorization" else ["--seeds=0", "--eiil-steps=10"]
    for name, status in (("users_mistakes:raises", 2), (tiny.NETWORK, 0)):
        flags = tiny.train_flags(out, model=name, epochs=2)
        assert tiny.spurmem(capsys, command, squares, *flags, *few).status == status


def test_arrays_and_lists_are_scores(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    ranking, *_ = sm.trace(run, sm.TraceSettings(criterion=("users_mistakes:arrays_and_lists",)))
    assert str(sm.top(ranking.scores, 2)) == "conv2:11,conv2:10"


@pytest.mark.parametrize("text", ["raise SystemExit(0)", "import no_such_module", "x = (", "raise RuntimeError"])
def test_a_module_that_cannot_be_imported(
    text: str, squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_module.py").write_text(text)
    flags = tiny.train_flags(tmp_path / "out", model="broken_module:f")
    assert "broken_module:f: " in tiny.spurmem(capsys, "train", squares, *flags).error


def test_a_module_of_the_user_may_have_the_name_of_one_of_pythons(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "this.py").write_text("def f(): return 1")
    flags = tiny.train_flags(tmp_path / "out", model="this:f")
    assert "this:f gave an object of type int" in tiny.spurmem(capsys, "train", squares, *flags).error


def test_debug_shows_where_the_function_fails(trained: sm.Run) -> None:
    with pytest.raises(sm.UserError) as caught:
        main(["trace", str(trained.path), "--criterion=users_mistakes:raises", "--debug"])
    assert isinstance(caught.value.__cause__, ValueError)
