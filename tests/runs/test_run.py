"""A run's directory: what it says about itself, and who may write it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import filelock
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.runs.records import check_same_settings


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(sm.UserError, match=r"is not a run \(it has no run\.json\)"):
        _ = sm.Run(tmp_path).record
    assert sm.Run(tmp_path).epochs() == []


@pytest.mark.parametrize("content", ["{", '{"origin": "train"}', "\xff"])
def test_a_broken_record(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(sm.UserError, match="broken or from another version"):
        _ = sm.Run(tmp_path).record


def test_the_record_of_a_run(trained: sm.Run, squares: Path) -> None:
    recorded = json.loads((trained.path / "run.json").read_text())
    assert recorded["origin"] == "train"
    assert recorded["settings"]["epochs"] == 3
    assert recorded["data"]["classes"] == ["class 0", "class 1"]
    assert recorded["data"]["minority"] == ["class 0 with color 1", "class 1 with color 0"]
    assert recorded["data"]["folder"] == str(squares.resolve())
    assert {"torch", "timm", "python", "spurious-memorization"} <= recorded["versions"].keys()


def test_epochs_by_name(trained: sm.Run) -> None:
    assert trained.epochs() == [0, 1, 2, 3]
    assert trained.choose_epoch("last") == trained.choose_epoch("3") == trained.choose_epoch(3) == 3
    assert trained.choose_epoch("best") in trained.epochs()
    for wanted in ("4", "-1", "middle", "1.0"):
        with pytest.raises(sm.UserError, match="it has 0, 1, 2, 3, best and last"):
            trained.choose_epoch(wanted)
    with pytest.raises(sm.UserError, match="no checkpoint of epoch 7"):
        trained.state(7)


def test_a_moved_data_set(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    record = json.loads((run.path / "run.json").read_text())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(sm.UserError, match="give its new place with --data"):
        run.read_data()
    assert len(run.read_data(squares)) == len(trained.read_data())


@pytest.mark.parametrize("change", ["label", "image", "table"])
def test_changed_data_are_an_error(change: str, trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(squares, folder)
    table = (folder / "metadata.csv").read_text().splitlines()
    if change == "label":
        table[1] = table[1].replace(",0,", ",1,", 1)
    elif change == "table":
        table.pop()
    else:
        with (folder / "train_0_00.png").open("ab") as image:
            image.write(b"more")
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    with pytest.raises(sm.UserError, match="does not hold the data that"):
        trained.read_data(folder)


def test_one_writer_at_a_time(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    with run.writing(), pytest.raises(sm.UserError, match="another command is writing"), sm.Run(run.path).writing():
        pass
    with pytest.raises(ZeroDivisionError), run.writing():
        raise ZeroDivisionError
    with filelock.FileLock(run.path / ".lock", timeout=0):
        pass  # an error lets go of it


def test_settings_are_compared_by_value() -> None:
    check_same_settings({"a": {"b": 1}, "c": None}, {"a": {"b": 1}}, "this")
    with pytest.raises(sm.UserError, match=r"this was made with a\.b = 1, not 2"):
        check_same_settings({"a": {"b": 1}}, {"a": {"b": 2}}, "this")


def test_all_settings_that_differ_are_named_and_what_follows_from_them_is_not() -> None:
    before = {"settings": {"augment": False, "freeze": "encoder"}, "groups": 4}
    now = {"settings": {"augment": True, "freeze": None}, "groups": 3}
    with pytest.raises(sm.UserError) as caught:
        check_same_settings(before, now, "this")
    said = "this was made with settings.augment = False, not True; settings.freeze = 'encoder', not None: use the same"
    assert str(caught.value).startswith(said)
    assert "groups" not in str(caught.value)
