"""A tiny image data set, tiny settings, and the command line called from Python."""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import spurious_memorization as sm
from spurious_memorization.cli import main

NETWORK = "tiny_networks:small_convnet"
QUICK = {"model": NETWORK, "epochs": 3, "batch_size": 8, "lr": 0.01}


def make_images(folder: Path, *, classes: int = 2, attributes: int = 2, train: int = 20, size: int = 16) -> Path:
    """Noisy squares: the attribute colors the image, the label is the direction of its stripes.

    In training each class has `train` images, four of five in its usual color (class mod attributes); val and test
    have 3 of each group.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows_of, columns_of = np.indices((size, size))
    rows = []
    for split in ("train", "val", "test"):
        for y in range(classes):
            for k in range(train if split == "train" else 3 * attributes):
                a = y % attributes if split == "train" else k % attributes
                if split == "train" and k % 5 == 0:
                    a = (y + 1 + k // 5 % (attributes - 1)) % attributes
                image = rng.integers(0, 120, (size, size, 3))
                image[..., a % 3] += 30 + 20 * (a // 3)
                stripes = (rows_of, columns_of, rows_of + columns_of)[y] // 2 % 2
                image += 40 * stripes[..., None]
                name = f"{split}_{y}_{k:02d}.png"
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name)
                rows.append((name, y, a, split))
    pd.DataFrame(rows, columns=["path", "y", "a", "split"]).to_csv(folder / "metadata.csv", index=False)
    names = {
        "name": "squares",
        "image_size": size,
        "classes": [f"class {c}" for c in range(classes)],
        "attributes": {"a": [f"color {a}" for a in range(attributes)]},
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(names))
    return folder


@dataclass(frozen=True)
class Printed:
    """The output of a command, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error message. The assertion fails if it is not one line, or if there is a traceback."""
        lines = self.err.splitlines()
        assert self.status == 2, self
        assert "Traceback" not in self.err
        assert [line for line in lines if line.startswith("spurmem:")] == lines[-1:], self.err
        return lines[-1]


def spurmem(capsys: pytest.CaptureFixture[str], *arguments: object) -> Printed:
    """Run a command in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return Printed(caught.value.code, printed.out, printed.err)


def in_child(function: Callable[[], Any]) -> int:
    """Run a function in a forked process, and give its exit code (negative: the signal that killed it)."""

    def with_own_fork_server() -> None:
        forkserver._forkserver = forkserver.ForkServer()  # this process is no parent of the one that is inherited
        forkserver.connect_to_new_process = forkserver._forkserver.connect_to_new_process
        function()

    child = multiprocessing.get_context("fork").Process(target=with_own_fork_server)
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
        raise AssertionError("the child hangs")
    return child.exitcode


def copied(run: sm.Run, to: Path) -> sm.Run:
    """A copy of a run that a test may change."""
    shutil.copytree(run.path, to)
    return sm.Run(to)


def same_networks(one: sm.Run, two: sm.Run) -> bool:
    """Whether both runs have the same epochs, with bitwise the same tensors."""
    return one.epochs() == two.epochs() and all(
        one.state(epoch).keys() == two.state(epoch).keys()
        and all(torch.equal(value, two.state(epoch)[name]) for name, value in one.state(epoch).items())
        for epoch in one.epochs()
    )


def files_below(folder: Path) -> set[str]:
    """Every file, without locks."""
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return {name for name in found if not name.endswith(".lock")}


def train_flags(out: Path, **changes: Any) -> list[str]:
    """Flags of `spurmem train` with the settings of `QUICK`."""
    settings = {**QUICK, **changes}
    return ["--out", str(out), *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and its content, without locks."""
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


def studied(run: sm.Run, *, controls: int = 5) -> sm.Study:
    """A study of a run with two sizes, two edits and two splits, and an ablation map."""
    settings = sm.StudySettings(
        criterion=("weight_norm", "gradient", "ablation"),
        size=("1..2",),
        edit=("zero", "random_noise:std=0.5"),
        repeats=2,
        controls=controls,
        per_group=4,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few controls; all training samples are right
        return sm.study(run, settings, name="both")


HOSTILE = {
    "classes": ["<script>window.hacked=1</script>", '"><img src=x onerror="window.hacked=2">'],
    "attributes": ["</script><script>window.hacked=3</script>", "{{ 7 * 7 }} 'quoted' & <b>bold</b>"],
}


def hostile_images(folder: Path) -> Path:
    """The same images, where the names of classes, attributes and files are markup and script."""
    make_images(folder)
    table = pd.read_csv(folder / "metadata.csv")
    for number, path in enumerate(table["path"]):
        name = f"<img src=x onerror=window.hacked=4>/'{number}'</script><script>window.hacked=5</script>\"{path}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(folder / name)
        table.loc[number, "path"] = name
    table.to_csv(folder / "metadata.csv", index=False)
    names = {"image_size": 16, "classes": HOSTILE["classes"], "attributes": {"a": HOSTILE["attributes"]}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"name": "<b>squares</b>", **names}))
    return folder
