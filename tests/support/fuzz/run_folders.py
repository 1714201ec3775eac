"""Run folders in which a file is missing, damaged, or has the content of another one."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from . import odd
from .command_lines import NETWORK, TRAINING
from .valid import Valid, copy_data, copy_run

QUICK = [*(f"{name}={value}" for name, value in TRAINING.items() if name != "--epochs")]
COMMANDS = (
    ["report", "run"],
    ["report", "run", "other"],
    ["compare", "run", "other"],
    ["compare", "run", "other", "--study=both"],
    ["compare", "run", "other", "--refit-heads"],
    ["figure", "all", "run", "--out=figures"],
    ["figure", "accuracy", "run", "other", "--format=csv"],
    ["train", "data", "--out=run", *QUICK, "--lr=0.01", "--epochs=2", "--resume"],
    ["train", "data", "--out=run", *QUICK, "--lr=0.01", "--epochs=3", "--resume"],
    ["train", "data", "--out=new", *QUICK, "--epochs=1", "--from=run"],
    ["train", "data", "--out=new", *QUICK, "--epochs=1", "--from=run@best", "--objective=dfr"],
    ["study", "run", "--controls=2", "--size=1", "--criterion=weight_norm,gradient", "--split=test"],
    ["study", "run", "--name=both", "--controls=2"],
    ["trace", "run", "--criterion=weight_norm,gradient"],
    ["trace", "run", "--criterion=gradient", "--epoch=best", "--data=data"],
    ["edit", "run", "--units=conv1:0", "--out=new"],
    ["edit", "run", "--units=conv1:0,fc:1", "--edit=rewind:epochs=1", "--epoch=best", "--out=new"],
    ["import", "data", "--out=run", f"--model={NETWORK}", "--weights=run/run.json"],
)


def run_folder(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A run with a broken file, and a command that reads it."""
    copy_data(valid, folder)
    run = copy_run(valid, folder)
    copy_run(valid, folder, "other")
    files = sorted(file for file in run.rglob("*") if file.is_file())
    for file in rng.sample(files, rng.choice((0, 1, 1, 1, 2, 5))):
        _break(rng, file, files)
    if rng.random() < 0.05:
        shutil.rmtree(rng.choice([path for path in run.rglob("*") if path.is_dir()]))
    return list(rng.choice(COMMANDS))


def _break(rng: random.Random, file: Path, files: list[Path]) -> None:
    kind = rng.random()
    if kind < 0.15:
        file.unlink()
    elif kind < 0.25:
        file.unlink()
        rng.choice(
            (
                file.mkdir,
                lambda: os.mkfifo(file),
                lambda: file.symlink_to("/dev/zero"),
                lambda: file.symlink_to(file.name),
            )
        )()
    elif kind < 0.35:
        other = rng.choice(files)
        file.write_bytes(other.read_bytes() if other.is_file() and not other.is_symlink() else b"")
    elif kind < 0.65 and file.suffix == ".json":
        try:
            content = json.loads(file.read_text())
            file.write_text(json.dumps(_changed_json(rng, content)))
        except ValueError:
            file.write_text("[")
    elif kind < 0.65 and file.suffix == ".parquet":
        _changed_frame(rng, pd.read_parquet(file)).to_parquet(file)
    else:
        file.write_bytes(odd.damaged(rng, file.read_bytes()))


def _changed_json(rng: random.Random, content: Any) -> Any:
    """The content with one entry, at any depth, that is gone or another value."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        name = rng.choice(list(content))
        if rng.random() < 0.15:
            return {n: v for n, v in content.items() if n != name}
        return {**content, name: _changed_json(rng, content[name])}
    if isinstance(content, list) and content and rng.random() < 0.7:
        i = rng.randrange(len(content))
        return [*content[:i], _changed_json(rng, content[i]), *content[i + 1 :]]
    return rng.choice(
        (
            None,
            "",
            [],
            {},
            -1,
            0,
            10**30,
            1e300,
            float("nan"),
            True,
            "x" * 1000,
            odd.text(rng),
            [content],
            {"a": content},
        )
    )


def _changed_frame(rng: random.Random, frame: pd.DataFrame) -> pd.DataFrame:
    column = rng.choice(list(frame.columns))
    match rng.randrange(7):
        case 0:
            return frame.drop(columns=column)
        case 1:
            return frame.rename(columns={column: "x"})
        case 2:
            return frame.iloc[: rng.choice((0, 1, len(frame) // 2))]
        case 3:
            return frame.assign(**{column: rng.choice((-1, 10**15, float("nan"), "x", True, None, 1e300))})
        case 4:
            return pd.concat([frame, frame], ignore_index=True)
        case 5:
            return frame.sample(frac=1, random_state=0)
        case _:
            return frame.assign(**{column: frame[column].astype(str)})
