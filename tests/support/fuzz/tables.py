"""Tables: CSV and Parquet files with odd names, cells, separators and encodings."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import odd
from .command_lines import NETWORK
from .valid import Valid, copy_data, with_odd_files

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "ascii")
SEPARATORS = (",", ";", "\t", "|", " ", "\0")
PATHS = (
    *("../../outside.png", "/etc/passwd", "C:\\x.png", "pipe", "zero", "loop", "nothing", "metadata.csv", "x" * 300),
    *(
        "",
        " ",
        "a\nb.png",
        "train_0_00.png\0.png",
        "..",
        ".",
        "\udcff.png",
        "~",
        "*",
        "train_0_00.png ",
        "./train_0_00.png",
    ),
)
HEADERS = (
    "path",
    "y",
    "a",
    "split",
    "Y",
    " y",
    "y ",
    "",
    "path.1",
    "Unnamed: 0",
    "index",
    "x" * 1000,
    "y\0",
    "{label}",
)


def table(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A data folder with an odd table."""
    data = copy_data(valid, folder)
    with_odd_files(data)
    frame = pd.read_csv(data / "metadata.csv")
    file = data / "metadata.csv"
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        with suppress(UnicodeEncodeError):  # pandas holds no lone surrogates
            frame = _changed(rng, frame)
    if rng.random() < 0.2:
        file.unlink()
        file = data / "metadata.parquet"
        _write_parquet(rng, frame, file)
    else:
        file.write_bytes(_csv(rng, frame))
    if rng.random() < 0.15:
        file.write_bytes(odd.damaged(rng, file.read_bytes()))
    if rng.random() < 0.6:
        (data / "dataset.yaml").unlink()
    return command(rng)


def command(rng: random.Random) -> list[str]:
    """A command that reads the data folder."""
    train = ["train", "data", "--out=out", f"--model={NETWORK}", "--batch-size=8", "--epochs=1"]
    return rng.choice(
        (
            ["data", "check", "data"],
            ["data", "check", "data", "--no-decode"],
            ["data", "check", "data", "--attribute=a"],
            ["data", "check", "data", "--attribute=a,b", "--min-group-size=2", "--no-decode"],
            ["data", "groups", "data", "--min-group-size=2"],
            ["data", "groups", "data", "--attribute=a,b", "--split=train"],
            [*train, "--image-size=16"],
            [*train, "--attribute=a"],
        )
    )


def _changed(rng: random.Random, frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.astype(object)
    column = rng.choice(list(frame.columns)) if len(frame.columns) else "y"
    rows = rng.choice((slice(None), slice(0, 1), slice(0, None, 2), slice(-3, None)))
    match rng.randrange(12):
        case 0:
            frame[column] = _filled(frame[column], rows, [odd.text(rng)])
        case 1:
            frame[column] = _filled(frame[column], rows, [odd.number(rng)])
        case 2:
            frame[column] = _filled(frame[column], rows, [odd.integer(rng)])
        case 3:
            frame[column] = [odd.text(rng) for _ in range(len(frame))]
        case 4 if "path" in frame:
            frame["path"] = _filled(frame["path"], rows, [rng.choice(PATHS)])
        case 5:
            return frame.drop(columns=column)
        case 6:
            return frame.rename(columns={column: rng.choice((*HEADERS, odd.text(rng)))})
        case 7:
            return frame.assign(**{rng.choice(("b", "c d", "split2", "y2")): odd.text(rng)})
        case 8:
            return frame.iloc[: rng.choice((0, 1, 2, len(frame) // 2))]
        case 9:
            return pd.concat([frame] * rng.choice((2, 200)), ignore_index=True)
        case 10:
            number = rng.choice((60, 5000))
            repeated = frame.loc[np.arange(number) % max(len(frame), 1)] if len(frame) else frame
            return repeated.assign(y=range(len(repeated)), a=[f"v{i}" for i in range(len(repeated))])
        case _:
            frame[column] = [f"{rng.choice((' ', '', chr(9), chr(160)))}{value} " for value in frame[column]]
    return frame


def _filled(column: Any, rows: slice, values: list[Any]) -> Any:
    if not isinstance(column, pd.Series):
        return column
    changed = column.tolist()
    for i in range(*rows.indices(len(changed))):
        changed[i] = values[0]
    return changed


def _csv(rng: random.Random, frame: pd.DataFrame) -> bytes:
    try:
        text = frame.to_csv(index=rng.random() < 0.1, sep=rng.choice((",", ",", ",", *SEPARATORS)))
    except Exception:
        text = "path,y,a,split\n"
    lines = text.splitlines(keepends=True)
    match rng.randrange(14):
        case 0:
            lines = [line.rstrip("\n") + ",\n" for line in lines]
        case 1:
            lines[-1] = lines[-1].rstrip("\n") + ",1,2,3\n"
        case 2:
            lines.insert(1, '"\n')
        case 3:
            lines.insert(
                rng.randrange(len(lines)), rng.choice(("\n", "\0\n", ",,,\n", "#x\n", "x" * 200_000 + "\n", "sep=,\n"))
            )
        case 4:
            lines = [line.replace("\n", "\r") for line in lines]
        case 5:
            lines = lines[1:]
        case 6:
            lines = [*lines[:1], *lines]
        case 7:
            lines = [line.replace(",", " , ") for line in lines]
        case 8:
            lines = [line.replace(",", '","') for line in lines]
        case _:
            pass
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", *ENCODINGS))
    return "".join(lines).encode(
        encoding, errors="replace" if encoding in ("ascii", "latin-1", "cp1252") else "surrogatepass"
    )


def _write_parquet(rng: random.Random, frame: pd.DataFrame, file: Path) -> None:
    kinds = {column: rng.choice(("string", "category", "float64", "bool", "object")) for column in frame.columns}
    try:
        frame.infer_objects().astype(kinds if rng.random() < 0.5 else str).to_parquet(file)
    except Exception:  # pandas can't write everything
        pd.DataFrame({"path": [b"x", b"y"], "y": [[1], [2]], "a": [{"x": 1}, {"x": 2}]}).to_parquet(file)
