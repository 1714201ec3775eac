"""Runs whose place is a URL: every command works on them as on a folder, and goes on on another machine.

A machine is a cache folder, and the bucket is a folder, or fsspec's file system in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import safetensors.torch
import tiny
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import spurious_memorization as sm
from spurious_memorization.studies import store as store_module

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

SETTINGS = sm.StudySettings(criterion=("weight_norm",), size=("1",), split=("test",), controls=3)
STUDY = ("--criterion=weight_norm", "--size=1", "--split=test", "--controls=3", "--name=once")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Go on on a machine of this name."""

    def machine(name: str) -> None:
        monkeypatch.setenv("SPURMEM_CACHE", str(tmp_path / name))

    machine("one")
    return machine


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


def same_but_times(one: Path, two: Path) -> None:
    """Every file is bitwise the same, but for how long the training took."""
    assert tiny.files_below(one) == tiny.files_below(two)
    for name in tiny.files_below(one) - {"run.json", "checkpoints/trainer.pt"}:
        if name.startswith("rankings/"):  # the order of their metadata is not fixed
            scores = [safetensors.torch.load_file(folder / name) for folder in (one, two)]
            assert scores[0].keys() == scores[1].keys()
            assert all(torch.equal(value, scores[1][key]) for key, value in scores[0].items())
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes(), name
    records = [json.loads((folder / "run.json").read_text()) for folder in (one, two)]
    for record in records:
        record["training_cost"]["seconds"] = None
    assert records[0] == records[1]
    states = [torch.load(folder / "checkpoints" / "trainer.pt", weights_only=True) for folder in (one, two)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1]["model"][name]) for name, value in states[0]["model"].items())


@pytest.mark.slow
def test_a_run_in_a_bucket_is_that_in_a_folder(
    trained: sm.Run, squares: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    """Trained on one machine, studied on the next one, read on a third."""
    MemoryFileSystem.store.clear()
    url = "memory://bucket/runs/first"
    run = sm.train(squares, url, sm.TrainSettings(**tiny.QUICK))
    assert run.place == url
    assert repr(run) == f"<Run {url}>"
    plain = tiny.copied(trained, tmp_path / "plain")
    expected = sm.study(plain, SETTINGS, name="once")
    at("two")
    sm.study(sm.Run(url), SETTINGS, name="once")
    at("three")
    assert sm.Study(f"{url}/studies/once").effects().equals(expected.effects())
    assert tiny.same_networks(sm.Run(url), plain)
    fsspec.filesystem("memory").get("/bucket/runs/first", str(tmp_path / "there"), recursive=True)
    same_but_times(tmp_path / "there", plain.path)
    assert tiny.contents(sm.Run(url).path) == tiny.contents(tmp_path / "there")


@pytest.mark.slow
def test_commands_take_urls(
    squares: Path, bucket: Path, at: Callable[[str], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = bucket.as_uri()
    train = ("train", squares, *tiny.train_flags(f"{url}/runs", epochs=1))
    assert tiny.spurmem(capsys, *train, "--seeds=0..1").status == 0
    assert sorted(file.parent.name for file in bucket.glob("runs/*/run.json")) == ["seed_0", "seed_1"]
    at("two")
    first = f"{url}/runs/seed_0"
    printed = tiny.spurmem(capsys, "study", first, *STUDY)
    assert f"spurmem report {first}" in printed.out
    weights = bucket / "runs" / "seed_0" / "checkpoints" / "epoch_001.safetensors"
    for arguments in (
        ("import", squares, f"--model={tiny.NETWORK}", f"--weights={weights}", f"--out={url}/imported"),
        ("edit", first, "--units=conv2:1", f"--out={url}/edited"),
        ("train", squares, *tiny.train_flags(f"{url}/more", epochs=1), f"--from={url}/runs@1", "--seeds=1"),
        ("trace", f"{url}/edited", "--criterion=weight_norm"),
        ("report", first, f"{url}/edited"),
        ("figure", "accuracy", first, "--out", tmp_path / "figures"),
        ("export", "csv", f"{url}/imported", "--out", tmp_path / "samples.csv"),
    ):
        assert tiny.spurmem(capsys, *arguments).status == 0, arguments
    at("three")
    printed = tiny.spurmem(capsys, "compare", f"{url}/runs", f"{url}/more", "--json")
    runs = [run["run"] for run in json.loads(printed.out)["runs"]]
    assert sorted(runs) == [f"{url}/more/seed_1", f"{url}/runs/seed_0", f"{url}/runs/seed_1"]
    assert json.loads((bucket / "edited" / "run.json").read_text())["settings"]["run"] == first
    started = json.loads((bucket / "more" / "seed_1" / "run.json").read_text())["start"]
    assert started == {"run": f"{url}/runs/seed_1", "epoch": 1}
    assert (bucket / "runs" / "seed_0" / "report.html").is_file()
    assert not [file for file in bucket.rglob(".*") if file.is_file()]
    no_such_run = tiny.spurmem(capsys, "study", f"{url}/other").error
    assert no_such_run.startswith(f"spurmem: {url}/other is not a run")


@pytest.mark.slow
def test_a_killed_study_goes_on_on_another_machine(
    trained: sm.Run, bucket: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    shutil.copytree(trained.path, bucket, ignore=shutil.ignore_patterns(".lock"))
    run = bucket.as_uri()

    def killed() -> None:
        original, calls = store_module.write_parquet, []

        def last(file: Path, frame: Any) -> None:
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(file)
            original(file, frame)

        store_module.write_parquet = last
        sm.study(sm.Run(run), SETTINGS, name="once")

    assert tiny.in_child(killed) == -signal.SIGKILL
    blocks = {file: file.stat().st_mtime_ns for file in (bucket / "studies/once/outcomes").iterdir()}
    assert len(blocks) == 1
    at("two")
    sm.study(sm.Run(run), SETTINGS, name="once")
    assert all(file.stat().st_mtime_ns == time for file, time in blocks.items())
    expected = sm.study(tiny.copied(trained, tmp_path / "plain"), SETTINGS, name="once")
    assert tiny.contents(bucket / "studies") == tiny.contents(expected.path.parent)


def test_what_a_study_could_not_send_is_sent_by_the_next_command(
    trained: sm.Run,
    bucket: Path,
    at: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(trained.path, bucket, ignore=shutil.ignore_patterns(".lock"))
    run = bucket.as_uri()
    with monkeypatch.context() as patch:
        original, sent = LocalFileSystem.put_file, []

        def fails(self: LocalFileSystem, file: str, *rest: Any, **named: Any) -> None:
            sent.append(file)
            if len(sent) == 4:
                raise ConnectionResetError("the line is cut")
            original(self, file, *rest, **named)

        patch.setattr(LocalFileSystem, "put_file", fails)
        error = tiny.spurmem(capsys, "study", run, *STUDY).error
    unsent = sent[-1].rpartition("bucket/")[2]
    assert error.startswith(f"spurmem: {run}/{unsent} can't be reached (ConnectionResetError: the line is cut)")
    assert error.endswith(f"{sent[-1]} is kept: the next command sends it, unless you delete it")
    assert not (bucket / unsent).exists()
    assert not [file for file in bucket.rglob(".*") if file.is_file()]
    assert tiny.spurmem(capsys, "study", run, *STUDY).status == 0
    assert (bucket / unsent).read_bytes() == Path(sent[-1]).read_bytes()
    assert sm.Study(bucket / "studies" / "once").is_complete


@pytest.mark.slow
def test_a_file_that_is_broken_there_has_to_be_deleted_there(
    trained: sm.Run, bucket: Path, at: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.path, bucket, ignore=shutil.ignore_patterns(".lock"))
    run = bucket.as_uri()
    whole = tiny.spurmem(capsys, "study", run, *STUDY, "--json").out
    (bucket / "studies" / "once" / "effects.parquet").unlink()
    block = next((bucket / "studies" / "once" / "outcomes").iterdir())
    content = block.read_bytes()
    block.write_bytes(content[: len(content) // 2])
    for machine in ("one", "two"):
        at(machine)
        error = tiny.spurmem(capsys, "study", run, *STUDY).error
        assert f"{block.name} is broken: delete it and run the same command again" in error
        assert f"(this is a local copy of {block.as_uri()}: a file that is deleted has to be deleted there)" in error
    block.unlink()
    printed = json.loads(tiny.spurmem(capsys, "study", run, *STUDY, "--json").out)
    assert printed["effects"] == json.loads(whole)["effects"]
    assert block.read_bytes() == content


def test_two_machines_that_write_at_once_are_found(
    trained: sm.Run, bucket: Path, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.path, bucket, ignore=shutil.ignore_patterns(".lock"))
    run = sm.Run(bucket.as_uri())
    other = tiny.copied(trained, bucket.parent / "other")
    sm.study(other, SETTINGS.model_copy(update={"size": ("2",)}), name="once")
    shutil.copytree(other.path / "studies", bucket / "studies")
    with pytest.raises(sm.UserError, match=r"study\.json was changed by another machine, and so was its copy here"):
        sm.study(run, SETTINGS, name="once")
    assert tiny.contents(bucket / "studies") == tiny.contents(other.path / "studies")


@pytest.mark.slow
def test_trainings_of_other_commands(
    squares: Path, bucket: Path, at: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    url = bucket.as_uri()
    flags = [f"--model={tiny.NETWORK}", "--epochs=1", "--batch-size=8"]
    mitigate = ("mitigate", squares, *flags, "--objective=erm-continue", "--seeds=0", "--finetune-epochs=1")
    assert tiny.spurmem(capsys, *mitigate, f"--out={url}/repair").status == 0
    memorization = ("memorization", squares, *flags, "--networks=2", f"--out={url}/scores", "--on=processes:2")
    assert tiny.spurmem(capsys, *memorization).status == 0
    before = tiny.contents(bucket)
    at("two")
    assert tiny.spurmem(capsys, *mitigate, f"--out={url}/repair").status == 0
    assert tiny.spurmem(capsys, *memorization).status == 0
    assert tiny.contents(bucket).keys() == before.keys()
    assert json.loads((bucket / "repair/erm-continue/seed_0/run.json").read_text())["settings"]["start"] == (
        f"{url}/repair/erm/seed_0@last"
    )
