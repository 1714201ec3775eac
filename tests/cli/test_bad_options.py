"""Wrong options: an error of one line, exit status 2, and nothing lost or half written."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", "--size=21"), "choose from 1 to 20"),
        (("study", "--size=1..x"), "1..x"),
        (("study", "--edit=rewind:epochs=4"), "needs the checkpoint of epoch -1"),
        (("study", "--edit=rewind:epochs=none"), "needs a whole number of epochs"),
        (("study", "--edit=erase"), "unknown edit 'erase'"),
        (("study", "--edit=zero:std=1"), "no parameter 'std'"),
        (("study", "--edit=os:no_such_function"), "os:no_such_function"),
        (("study", "--split=holdout"), "unknown split 'holdout'"),
        (("study", "--split="), "no split is given"),
        (("study", "--units=conv1:99"), "99 is too large"),
        (("study", "--controls=-1"), "controls"),
        (("study", "--precision=int8"), "precision"),
        (("study", "--device=tpu"), "no device 'tpu' here"),
        (("trace", "--criterion=size"), "unknown criterion 'size'"),
        (("trace", "--criterion=os:no_such_function"), "os:no_such_function"),
        (("trace", "--epoch=9"), "no checkpoint of epoch '9'"),
        (("trace", "--group=whales"), "no group 'whales'"),
        (("trace", "--traced-on=holdout"), "holdout"),
        (("trace", "--unit=layer"), "layer"),
        (("trace", "--nonsense"), "--nonsense"),
        (("study", "--nonsense=3"), "--nonsense"),
        (("study", "--config=missing.yaml"), "missing.yaml"),
        (("edit", "--units=conv1:1", "--edit=melt", "--out={out}"), "unknown edit 'melt'"),
        (("edit", "--units=conv1", "--out={out}"), "write TENSOR:NUMBER"),
        (("edit", "--units=conv1:1,conv1:1", "--out={out}"), "named twice"),
        (("edit", "--unit=weight", "--units=conv1:1", "--edit=mean", "--out={out}"), "edit mean is for channels"),
        (("edit", "--units=conv1:1"), "--out"),
    ],
)
def test_a_command_on_a_run(
    arguments: tuple[str, ...], message: str, run: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    before = tiny.contents(run.path)
    command, *flags = (argument.replace("{out}", str(tmp_path / "out")) for argument in arguments)
    if command == "study":
        flags += ["--criterion=magnitude", "--name=mine"]
    assert message in tiny.spurmem(capsys, command, run.path, *flags).error
    after = tiny.contents(run.path)
    assert {name: after[name] for name in after if not name.startswith("rankings/")} == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=resnet1"], "unknown network 'resnet1'"),
        (["--model=tiny_networks:missing"], "tiny_networks:missing"),
        (["--model=no_such_module:factory"], "no_such_module"),
        (["--model=os:getcwd"], "os:getcwd belongs to Python itself"),
        (["--objective=other"], "objective"),
        (["--recipe=mine"], "recipe"),
        (["--epochs=many"], "epochs"),
        (["--attribute=place"], "no attribute column 'place'"),
        (["--minority=whales"], "no group 'whales'"),
        (["--best-by=taste"], "best-by"),
        (["--from=nowhere"], "nowhere is not a run"),
        (["--weights=nowhere.pth"], "weight file nowhere.pth does not exist"),
        (["--device=tpu"], "no device 'tpu' here"),
        (["--device=cpu:x"], "no device 'cpu:x' here"),
        (["--device=cuda:999"], "no device 'cuda:999' here"),
        (["--model=tiny_networks:normed_features", "--batch-size=1"], "so use a --batch-size above 1"),
        (["--checkpoint-every=0"], "checkpoint-every"),
        (["--seeds=one"], "seeds 'one'"),
        (["--ressume"], "--ressume"),
    ],
)
def test_a_training_that_cannot_begin(
    flags: list[str], message: str, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    given = {flag.split("=")[0] for flag in flags}
    usual = [flag for flag in tiny.train_flags(tmp_path / "out") if flag.split("=")[0] not in given]
    assert message in tiny.spurmem(capsys, "train", squares, *usual, *flags).error
    assert not sm.Run(tmp_path / "out").exists
    assert tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "out", epochs=0)).status == 0


@pytest.mark.parametrize("content", ["epochs: [1", "- epochs\n- 1", "epochz: 3", "epochs: many", "\xff", "a: !!int x"])
def test_a_broken_config_file(content: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "c.yaml").write_bytes(content.encode("latin-1"))
    command = ("train", squares, "--model", tiny.NETWORK, "--out", tmp_path / "out", "--config", tmp_path / "c.yaml")
    assert "epoch" in (error := tiny.spurmem(capsys, *command).error) or "c.yaml" in error
    assert not (tmp_path / "out").exists()


def test_places_that_are_no_runs_or_data(tmp_path: Path, capsys: Capture) -> None:
    for command in ("trace", "study"):
        assert "is not a run" in tiny.spurmem(capsys, command, tmp_path / "nothing").error
    assert "does not exist" in tiny.spurmem(capsys, "train", tmp_path / "nothing", "--out", tmp_path / "out").error
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match="is not a run"):
        main(["trace", str(tmp_path), "--debug"])


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 200] * 30), "nul\0byte"])
@pytest.mark.parametrize("command", ["train", "trace", "compare", "report", "figure accuracy", "data check"])
def test_a_name_that_no_file_can_have(command: str, name: str, capsys: Capture) -> None:
    out = ("--out", name) if command == "train" else ()
    error = tiny.spurmem(capsys, *command.split(), name, *out).error
    assert len(error) < 700


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "..", "/tmp/x", "n" * 300])
def test_the_name_of_a_study_is_that_of_a_folder(name: str, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    said = tiny.spurmem(capsys, "study", run.path, "--criterion=magnitude", "--controls=2", f"--name={name}")
    assert said.error
    assert not (tmp_path / "outside").exists()
