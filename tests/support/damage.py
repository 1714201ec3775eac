"""Ways in which a stored file can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch

Damage = Callable[[Path], None]


def _flipped(file: Path) -> None:
    """Change some bytes in the middle of the content."""
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    middle = len(content) // 2
    content[middle : middle + 40] ^= 0xFF
    file.write_bytes(content.tobytes())


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "gone")


OF_EVERY_FILE: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b"") and None,
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]) and None,
    "flipped": _flipped,
    "text": lambda file: file.write_text("nothing of use\n") and None,
    "folder": _folder,
    "link": _link_to_nothing,
}


def _frame(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    return lambda file: change(pd.read_parquet(file)).to_parquet(file)


def _negative(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = frame.select_dtypes("number").columns
    return frame.assign(**{name: -1 - frame[name].abs() for name in numbers})


OF_FRAMES: dict[str, Damage] = {
    "other columns": _frame(lambda frame: pd.DataFrame({"x": range(len(frame))})),
    "one column less": _frame(lambda frame: frame.iloc[:, :-1]),
    "text for numbers": _frame(lambda frame: frame.astype(str)),
    "numbers for text": _frame(lambda frame: frame.assign(**dict.fromkeys(frame, 0.5))),
    "negative": _frame(_negative),
    "no rows": _frame(lambda frame: frame.iloc[:0]),
}


def _record(content: object) -> Damage:
    return lambda file: file.write_text(json.dumps(content)) and None


def _changed_record(change: Callable[[dict[str, object]], object]) -> Damage:
    return lambda file: file.write_text(json.dumps(change(json.loads(file.read_text())))) and None


OF_RECORDS: dict[str, Damage] = {
    "a list": _record([1, 2]),
    "null": _record(None),
    "no entries": _record({}),
    "not a number": _changed_record(lambda old: {name: float("nan") for name in old}),
    "texts": _changed_record(lambda old: dict.fromkeys(old, "x")),
    "nulls": _changed_record(dict.fromkeys),
    "a deep list": lambda file: file.write_text("[" * 100_000) and None,
}


def _other_tensors(file: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3)}, file)


def _other_values(file: Path) -> None:
    """The same names and shapes, and the checksums of the old values."""
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) + 1 for name in opened.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, file, metadata)


OF_TENSORS: dict[str, Damage] = {"other tensors": _other_tensors, "other values": _other_values}


def damages_of(file: str) -> dict[str, Damage]:
    """Every damage that fits a file, by name."""
    suffix = Path(file).suffix
    own = {".parquet": OF_FRAMES, ".json": OF_RECORDS, ".safetensors": OF_TENSORS}
    return {**OF_EVERY_FILE, **own.get(suffix, {})}


def remove(place: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
