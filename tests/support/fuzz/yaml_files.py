"""YAML files: dataset.yaml, and the options of a command in --config."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from spurious_memorization.datasets.settings import DataSettings
from spurious_memorization.training.settings import TrainExecution, TrainSettings

from . import odd
from .command_lines import NETWORK
from .valid import Valid, copy_data, with_odd_files

TRAIN = ["train", "data", "--out=out"]
RAW = (
    "[" * 1000,
    "[" * 1000 + "]" * 1000,
    "a: " * 500,
    "{" * 3000,
    "- " * 2000,
    "\n".join(f"{' ' * i}a:" for i in range(1000)),
    "!!int x",
    "!!float x",
    "!!timestamp x",
    "!!binary '@'",
    "!!python/object/apply:os.system ['touch ../executed']",
    "!!python/name:os.system",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!unknown x",
    "!!bool maybe",
    "!!null x",
    "!!str [a]",
    "2024-13-45",
    "0000-00-00",
    "2024-02-30",
    "2024-01-01T99:99:99",
    "2024-01-01",
    "12:30:99",
    "1:2:3:4",
    "0o9",
    "0b2",
    "1_000",
    ".inf",
    "-.inf",
    ".nan",
    "&a [*a]",
    "*missing",
    "&a {a: *a}",
    "<<: 1",
    "<<: [1]",
    "<<: {image_size: 16}",
    "? [a, b]\n: c",
    "? {a: 1}\n: 2",
    "1: 2",
    "null: 1",
    "true: 1",
    "1.5: 1",
    '"\\ud800"',
    '"\\x00"',
    '"\\uDC00": 1',
    "\x07",
    "a: b: c",
    "\t- a",
    "---\na: 1\n---\nb: 2",
    "%YAML 9.9\n---\na: 1",
    "%TAG ! x\n---\n!a b",
    "...",
    "--- ",
    "# only",
    "",
    "a: &x [l, l]\nb: &y [*x, *x, *x, *x, *x, *x]\nc: &z [*y, *y, *y, *y, *y, *y]\nname: [*z, *z, *z, *z, *z, *z]",
    "@a",
    "`a",
    "'",
    '"',
    "|",
    ">",
    "a: |9\n x",
    "[a",
    "{a",
    "- a\nb: c",
    "text",
    "5",
    "[]",
    "\n".join(
        (
            "a: &a0 [x]",
            *(
                f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]"
                for i in range(1, 12)
            ),
            "name: *a11",
        )
    ),
)
VALUES = (
    *(16, 1, 0, -1, 100_000, 10**30, 1.5, float("nan"), float("inf"), True, None, [], {}, "", "16", [16], {"a": 1}),
    *(
        ["a", "a"],
        ["a", "b"],
        ["a", None],
        [1, 2],
        ["class 0", "class 1"],
        ["", " "],
        ["x" * 10_000, "y"],
        [["a"], ["b"]],
    ),
    *({"a": ["color 0", "color 1"]}, {"a": ["x", "x"]}, {1: [2, 3]}, {"a": "bc"}, {"b": ["c", "d"]}, {None: None}),
    *(
        [0, 0, 0],
        [1, 1, 1],
        [0.5, 0.5, 0.5],
        [123.7, 116.3, 103.5],
        [float("nan")] * 3,
        [1e-300] * 3,
        [1, 2],
        ["a", "b", "c"],
    ),
    *(
        "{label} {attribute}",
        "{label}",
        "{attribute}{attribute}",
        "{label:>1000000000}",
        "{label!r}",
        "{label.__class__}",
        "{label[0]}",
    ),
    *(
        "{}",
        "{0}",
        "{{label}}",
        "{label",
        "nearest",
        "lanczos",
        "bicubic",
        "none",
        "class 0, color 1",
        "class 0 with color 1",
        "/",
        "a\nb",
        "\u2028",
    ),
)
ENTRIES = (
    *(
        "name",
        "image_size",
        "resize",
        "keep_aspect",
        "interpolation",
        "mean",
        "std",
        "classes",
        "attributes",
        "minority",
        "group_name",
    ),
    *("Name", "", "x", 1, None, True, "image-size"),
)
OPTIONS = (
    *TrainSettings.model_fields,
    *DataSettings.model_fields,
    *TrainExecution.model_fields,
    "from",
    "settings",
    "",
    "x",
    1,
    None,
    "config",
    "out",
    "help",
)


def description(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A data folder with an odd dataset.yaml."""
    data = copy_data(valid, folder)
    file = data / "dataset.yaml"
    entries = yaml.safe_load(file.read_text())
    file.write_bytes(_content(rng, entries, ENTRIES))
    return rng.choice((["data", "check", "data"], [*TRAIN, f"--model={NETWORK}", "--epochs=1", "--batch-size=8"]))


def config(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A file of options, some of them odd."""
    copy_data(valid, folder)
    with_odd_files(folder)
    (folder / "c.yaml").write_bytes(_content(rng, {"model": NETWORK, "epochs": 1, "batch_size": 8}, OPTIONS))
    file = "c.yaml" if rng.random() < 0.9 else rng.choice(odd.FILES)
    return [*TRAIN, f"--config={file}", "--epochs=1"]


def yaml_file(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """One of both."""
    return rng.choice((description, description, config))(rng, folder, valid)


def _content(rng: random.Random, entries: dict[Any, Any], names: tuple[Any, ...]) -> bytes:
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(RAW).encode()
    if kind < 0.4:
        return (yaml.safe_dump(entries) + f"{rng.choice(names)}: {rng.choice(RAW)}\n").encode()
    for _ in range(rng.choice((0, 1, 1, 2))):
        value = rng.choice((rng.choice(VALUES), rng.choice(VALUES), odd.text(rng), odd.integer(rng)))
        entries[rng.choice(names)] = value
    try:
        content = yaml.safe_dump(entries, allow_unicode=rng.random() < 0.5).encode()
    except Exception:  # PyYAML can't write every text
        content = yaml.safe_dump({"name": "x"}).encode()
    if rng.random() < 0.1:
        content += b"name: again\nname: and again\n"
    return odd.damaged(rng, content) if rng.random() < 0.15 else content
