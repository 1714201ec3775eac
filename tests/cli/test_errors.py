"""What a user can do wrong: one line, exit status 2, and nothing lost or half written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pytest
import tiny
import torch

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* controls")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(squares: Path, tmp_path: Path) -> Path:
    """A copy of the data folder that a test may spoil."""
    return Path(shutil.copytree(squares, tmp_path / "data"))


@pytest.fixture
def run(trained: sm.Run, tmp_path: Path) -> sm.Run:
    return tiny.copied(trained, tmp_path / "run")


def train_flags(out: Path, **changes: Any) -> list[str]:
    settings = {**tiny.QUICK, **changes}
    return ["--out", str(out), *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in tiny.files_below(folder)}


def spoil(folder: Path, what: str) -> None:
    table = pd.read_csv(folder / "metadata.csv").astype({"y": object, "split": object})
    match what:
        case "missing column":
            table = table.drop(columns="y")
        case "missing attribute":
            table = table.drop(columns="a")
        case "unknown split":
            table.loc[3, "split"] = "holdout"
        case "leading outside":
            table.loc[3, "path"] = "../secret.png"
        case "absolute":
            table.loc[3, "path"] = str(folder / "train_0_00.png")
        case "one class":
            table["y"] = 1
        case "no label":
            table.loc[3, "y"] = None
        case "no rows":
            table = table.iloc[:0]
        case "no training samples":
            table = table[table["split"] != "train"]
        case "no table":
            (folder / "metadata.csv").unlink()
            return
    table.to_csv(folder / "metadata.csv", index=False)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing column", "has no column 'y'"),
        ("missing attribute", "missing column 'a'"),
        ("unknown split", "unknown split 'holdout'"),
        ("leading outside", "'../secret.png' leads outside the data folder"),
        ("absolute", "leads outside the data folder"),
        ("one class", "at least two classes are needed"),
        ("no label", "column 'y' has no value in row 3"),
        ("no rows", "the table has no rows"),
        ("no training samples", "no samples in split 'train'"),
        ("no table", "holds no known layout"),
    ],
)
def test_a_spoiled_table(what: str, said: str, data: Path, tmp_path: Path, capsys: Capture) -> None:
    spoil(data, what)
    before = contents(data)
    assert said in tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out")).error
    assert contents(data) == before
    assert not sm.Run(tmp_path / "out").exists


@pytest.mark.parametrize("what", ["missing", "truncated", "no image"])
@pytest.mark.parametrize("file", ["train_0_01.png", "test_1_00.png"])
def test_a_spoiled_image(
    what: str, file: str, data: Path, squares: Path, tmp_path: Path, capsys: Capture, trained: sm.Run
) -> None:
    """The same command works once the image is fixed."""
    image = data / file
    match what:
        case "missing":
            image.unlink()
        case "truncated":
            image.write_bytes(image.read_bytes()[:300])
        case _:
            image.write_text("text")
    said = tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out"))
    assert ("is missing" if what == "missing" else "can't be read") in said.error
    assert file in said.error
    shutil.copy(squares / file, image)
    assert tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out")).status == 0
    assert tiny.same_networks(sm.Run(tmp_path / "out"), trained)


def test_a_image_lost_during_training(data: Path, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out", epochs=1)).status == 0
    before = contents(tmp_path / "out")
    (data / "test_1_00.png").unlink()
    study = ("study", tmp_path / "out", "--criterion=magnitude", "--controls=1")
    assert "the data in" in tiny.spurmem(capsys, *study).error
    assert contents(tmp_path / "out") == before
    shutil.copy(squares / "test_1_00.png", data)
    assert tiny.spurmem(capsys, *study).status == 0


def test_workers_say_which_image_is_spoiled(data: Path, tmp_path: Path, capsys: Capture) -> None:
    (data / "train_0_01.png").write_bytes(b"no image")
    error = tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out"), "--workers=1").error
    assert "train_0_01.png can't be read" in error


@pytest.mark.parametrize("command", ["trace", "study"])
def test_an_empty_group_is_refused_only_where_it_is_asked_for(
    command: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = pd.read_csv(data / "metadata.csv")
    emptied = (table["y"] == 0) & (table["a"] == 1) & (table["split"] == "val")
    table[~emptied].to_csv(data / "metadata.csv", index=False)
    out = tmp_path / "out"
    assert tiny.spurmem(capsys, "train", data, *train_flags(out, epochs=1)).status == 0
    before = contents(out)
    flags = ("--criterion=gradient", "--group=class 0 with color 1")
    extra = ("--controls=1", "--size=1") if command == "study" else ()
    error = tiny.spurmem(capsys, command, out, *flags, "--traced-on=val", *extra).error
    assert "group 'class 0 with color 1' has no samples in split 'val'" in error
    assert contents(out) == before
    assert tiny.spurmem(capsys, command, out, *flags, *extra).status == 0


def test_no_minority(tmp_path: Path, capsys: Capture, data: Path) -> None:
    table = pd.read_csv(data / "metadata.csv")
    table["a"] = [i % 2 for i in range(len(table))]
    table.to_csv(data / "metadata.csv", index=False)
    assert tiny.spurmem(capsys, "train", data, *train_flags(tmp_path / "out", epochs=0)).status == 0
    error = tiny.spurmem(capsys, "study", tmp_path / "out", "--criterion=gradient").error
    assert "the data have no minority group" in error
    assert "--group" in error


class Runs:
    """An object that would write a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.file, "run"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("other architecture", "of another architecture"),
        ("truncated", "w.pth is truncated"),
        ("empty", "w.pth is truncated"),
        ("malicious", "is refused"),
        ("malicious, old format", "w.pth"),
        ("text", "w.pth"),
        ("a tensor", "holds a Tensor, not a state dict"),
        ("nothing", "holds no state dict"),
        ("missing", "does not exist"),
        ("truncated safetensors", "is truncated or no safetensors file"),
        ("wrong digits", "its SHA-256 starts with"),
    ],
)
@pytest.mark.parametrize("command", ["import", "train"])
def test_a_weight_file_that_is_not_usable(
    command: str, what: str, said: str, squares: Path, tmp_path: Path, capsys: Capture, trained: sm.Run
) -> None:
    file, state = tmp_path / "w.pth", trained.state(3)
    match what:
        case "other architecture":
            torch.save({**state, "conv2.weight": torch.zeros(16, 8, 3, 3)}, file)
        case "truncated":
            torch.save(state, file)
            file.write_bytes(file.read_bytes()[:1500])
        case "empty":
            file.touch()
        case "malicious":
            torch.save({**state, "extra": Runs(tmp_path / "ran")}, file)
        case "malicious, old format":
            file.write_bytes(pickle.dumps({"extra": Runs(tmp_path / "ran")}))
        case "text":
            file.write_text("weights\n")
        case "a tensor":
            torch.save(torch.zeros(3), file)
        case "nothing":
            torch.save({"epoch": 3}, file)
        case "truncated safetensors":
            file = tmp_path / "w.safetensors"
            file.write_bytes(trained.checkpoint(3).read_bytes()[:1000])
        case "wrong digits":
            file = tmp_path / "net-00000000.pth"
            torch.save(state, file)
    flags = ("--model", tiny.NETWORK, "--weights", file, "--out", tmp_path / "out")
    assert said in tiny.spurmem(capsys, command, squares, *flags).error
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["truncated", "missing", "other"])
def test_a_spoiled_checkpoint(what: str, run: sm.Run, capsys: Capture) -> None:
    checkpoint = run.checkpoint(3)
    match what:
        case "truncated":
            checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        case "missing":
            checkpoint.unlink()
        case _:
            shutil.copy(next((run.path / "checkpoints").glob("epoch_002*")), checkpoint)
            record = (run.path / "run.json").read_text()
            (run.path / "run.json").write_text(record.replace("small_convnet", "wider_convnet"))
    before = contents(run.path)
    for command in ("trace", "study"):
        error = tiny.spurmem(capsys, command, run.path, "--epoch=3", "--criterion=magnitude").error
        assert {"truncated": "is truncated", "missing": "no checkpoint of epoch '3'", "other": "architecture"}[
            what
        ] in error
    assert contents(run.path) == before
    if what != "other":
        assert tiny.spurmem(capsys, "trace", run.path, "--epoch=2", "--criterion=magnitude").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
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
    arguments: tuple[str, ...], said: str, run: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    before = contents(run.path)
    command, *flags = (argument.replace("{out}", str(tmp_path / "out")) for argument in arguments)
    if command == "study":
        flags += ["--criterion=magnitude", "--name=mine"]
    assert said in tiny.spurmem(capsys, command, run.path, *flags).error
    after = contents(run.path)
    assert {name: after[name] for name in after if not name.startswith("rankings/")} == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model=resnet1"], "unknown network 'resnet1'"),
        (["--model=tiny_networks:missing"], "tiny_networks:missing"),
        (["--model=no_such_module:factory"], "no_such_module"),
        (["--model=os:getcwd"], "os:getcwd gave a str, not a torch.nn.Module"),
        (["--objective=other"], "objective"),
        (["--recipe=mine"], "recipe"),
        (["--epochs=many"], "epochs"),
        (["--attribute=place"], "no attribute column 'place'"),
        (["--minority=whales"], "no group 'whales'"),
        (["--best-by=taste"], "best-by"),
        (["--from=nowhere"], "nowhere is no run"),
        (["--weights=nowhere.pth"], "weight file nowhere.pth does not exist"),
        (["--device=tpu"], "no device 'tpu' here"),
        (["--checkpoint-every=0"], "checkpoint-every"),
        (["--seeds=one"], "seeds 'one'"),
        (["--ressume"], "--ressume"),
    ],
)
def test_a_training_that_cannot_begin(
    flags: list[str], said: str, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    recorded = {flag.split("=")[0] for flag in flags}
    usual = [flag for flag in train_flags(tmp_path / "out") if flag.split("=")[0] not in recorded]
    assert said in tiny.spurmem(capsys, "train", squares, *usual, *flags).error
    assert not sm.Run(tmp_path / "out").exists
    assert tiny.spurmem(capsys, "train", squares, *train_flags(tmp_path / "out", epochs=0)).status == 0


@pytest.mark.parametrize("content", ["epochs: [1", "- epochs\n- 1", "epochz: 3", "epochs: many", "\xff\xfe"])
def test_a_broken_config_file(content: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "c.yaml").write_bytes(content.encode("latin-1"))
    command = ("train", squares, "--model", tiny.NETWORK, "--out", tmp_path / "out", "--config", tmp_path / "c.yaml")
    assert "epoch" in (error := tiny.spurmem(capsys, *command).error) or "c.yaml" in error
    assert not (tmp_path / "out").exists()


def test_places_that_are_no_runs_or_data(tmp_path: Path, capsys: Capture) -> None:
    for command in ("trace", "study"):
        assert "is no run" in tiny.spurmem(capsys, command, tmp_path / "nothing").error
    assert "does not exist" in tiny.spurmem(capsys, "train", tmp_path / "nothing", "--out", tmp_path / "out").error
    assert not list(tmp_path.iterdir())


def commands(squares: Path, run: sm.Run, weights: Path, out: Path) -> dict[str, list[Any]]:
    return {
        "train": ["train", squares, *train_flags(out)],
        "import": ["import", squares, "--model", tiny.NETWORK, "--weights", weights, "--out", out],
        "edit": ["edit", run.path, "--units=conv1:1", "--out", out],
    }


@pytest.mark.parametrize("command", ["train", "import", "edit"])
def test_a_place_below_a_file(command: str, squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    torch.save(run.state(3), tmp_path / "w.pth")
    before = contents(tmp_path)
    chosen = commands(squares, run, tmp_path / "w.pth", tmp_path / "file" / "out")[command]
    assert "file" in tiny.spurmem(capsys, *chosen).error
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["train", "import", "edit"])
def test_a_place_without_permission(
    command: str, squares: Path, run: sm.Run, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(run.state(3), tmp_path / "w.pth")
    original = os.mkdir

    def refuse(path: Any, *arguments: Any, **named: Any) -> None:
        if "forbidden" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        original(path, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    before = contents(tmp_path)
    chosen = commands(squares, run, tmp_path / "w.pth", tmp_path / "forbidden" / "out")[command]
    assert "can't be written" in tiny.spurmem(capsys, *chosen).error
    assert contents(tmp_path) == before


def _hold(lock: Path, ready: Any, done: Any) -> None:
    with filelock.FileLock(lock):
        ready.set()
        done.wait(60)


@pytest.fixture
def held(run: sm.Run) -> Iterator[None]:
    """Another process writes the run."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(run.path / ".lock", ready, done))
    other.start()
    assert ready.wait(60)
    yield
    done.set()
    other.join()


@pytest.mark.usefixtures("held")
def test_two_commands_writing_one_run(run: sm.Run, squares: Path, capsys: Capture) -> None:
    before = contents(run.path)
    for command in (
        ("train", squares, *train_flags(run.path), "--resume"),
        ("trace", run.path, "--criterion=magnitude"),
        ("study", run.path, "--criterion=magnitude"),
    ):
        assert "another command is writing" in tiny.spurmem(capsys, *command).error
    assert contents(run.path) == before


def test_a_full_disk_while_training(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    """The system refuses a file in the second epoch; the run stays usable and continues afterwards."""
    out = tmp_path / "run"
    real = os.fsync
    written: list[int] = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left to write" in tiny.spurmem(capsys, "train", squares, *train_flags(out)).error
    run = sm.Run(out)
    assert run.epochs()
    assert run.epochs() != trained.epochs()
    assert not [name for name in tiny.files_below(out) if "/." in name]
    assert tiny.spurmem(capsys, "trace", out, "--criterion=magnitude").status == 0
    assert tiny.spurmem(capsys, "train", squares, *train_flags(out), "--resume").status == 0
    assert tiny.same_networks(sm.Run(out), trained)


@pytest.mark.parametrize("limit", [2_000, 9_000, 12_000])
def test_no_room_for_a_larger_file(limit: int, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    """Whatever library writes the file that doesn't fit: tables, checkpoints (6 kB), the trainer's state (21 kB)."""
    out = tmp_path / "run"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            sm.train(squares, out, sm.TrainSettings(**tiny.QUICK))
        except sm.UserError as error:
            os._exit(7 if "\n" not in str(error) and "too large" in str(error) else 8)
        os._exit(9)

    assert tiny.in_child(limited) == 7
    assert not [name for name in tiny.files_below(out) if "/." in name]
    run = sm.train(squares, out, sm.TrainSettings(**tiny.QUICK), resume=True)
    assert tiny.same_networks(run, trained)


def test_a_full_disk_while_studying(run: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    command = ("study", run.path, "--criterion=magnitude", "--controls=2", "--name=s")
    real, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    before = contents(run.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left" in tiny.spurmem(capsys, *command).error
    assert before.items() <= contents(run.path).items()
    assert tiny.spurmem(capsys, *command).status == 0
    whole = sm.study(
        tiny.copied(run, tmp_path / "w"), sm.StudySettings(criterion=("weight_norm",), controls=2), name="t"
    )
    assert sm.Study(run.path / "studies" / "s").results().equals(whole.results())


def test_checkpoints_that_would_not_fit_are_said_beforehand(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = tiny.spurmem(capsys, "train", squares, *train_flags(tmp_path / "out")).error
    assert "4 checkpoints need" in error
    assert "--checkpoint-every" in error
    assert not sm.Run(tmp_path / "out").exists


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match="is no run"):
        sm_main(["trace", str(tmp_path), "--debug"])


def sm_main(arguments: list[str]) -> None:
    from spurious_memorization.cli import main

    main(arguments)
