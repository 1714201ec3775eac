"""Command lines: every command and every option, with odd values."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cyclopts import App

from spurious_memorization.cli import app

from . import odd
from .valid import Valid, copy_data, copy_run, with_odd_files

NETWORK = "tiny_networks:small_convnet"
TRAINING = {"--model": NETWORK, "--epochs": "1", "--batch-size": "8"}
IMAGES = {"--train": "4", "--val": "4", "--test": "4", "--image-size": "16"}
SMALL: dict[str, tuple[list[str], dict[str, str]]] = {
    "train": (["data"], {"--out": "out", **TRAINING}),
    "mitigate": (
        ["data"],
        {
            "--out": "out",
            **TRAINING,
            "--seeds": "0",
            "--finetune-epochs": "1",
            "--objective": "reweighting",
            "--jtt-epochs": "1",
            "--jtt-upweights": "2",
        },
    ),
    "memorization": (["data"], {"--out": "out", **TRAINING, "--networks": "2"}),
    "discover": (["data"], {"--out": "groups.csv", **TRAINING, "--seeds": "0", "--eiil-steps": "9"}),
    "words": (["data", "groups.csv"], {"--clip": "nothing", "--permutations": "19"}),
    "import": (["data"], {"--out": "out", "--model": NETWORK, "--weights": "weights.pth"}),
    "study": (
        ["run"],
        {"--controls": "2", "--size": "1", "--criterion": "weight_norm", "--split": "test", "--repeats": "2"},
    ),
    "trace": (["run"], {"--criterion": "weight_norm"}),
    "directions": (
        ["run"],
        {"--layer": "conv2", "--file": "weights.pth", "--tensor": "fc.weight", "--random": "3", "--out": "out"},
    ),
    "edit": (["run"], {"--units": "conv1:0", "--out": "out"}),
    "check-groups": (["run"], {"--min-worst": "50", "--format": "junit"}),
    "compare": (["run", "other"], {}),
    "export": (["csv", "run"], {"--out": "samples.csv"}),
    "figure": (["accuracy", "run"], {"--out": "out"}),
    "report": (["run"], {}),
    "calibrate": ([], {"--out": "out", "--networks": "1", "--on": "here"}),
    "demo": ([], {"--out": "out", "--train": "10"}),
    "reproduce": (["waterbirds-resnet50-largest-channel"], {"--out": "out", "--data": "data", "--epochs": "-1"}),
    "data make synthbirds": ([], {"--out": "out", **IMAGES}),
    "data make colored-digits": ([], {"--out": "out", "--digits": "0,1", "--image-size": "8"}),
    "data make negated-pairs": ([], {"--out": "out", "--train": "20", "--val": "4", "--test": "4"}),
    "data make waterbirds": ([], {"--out": "out", "--cub": "data", "--places": "data"}),
    "data prepare waterbirds": (["data"], {"--out": "out"}),
    "data prepare celeba": (["data"], {"--out": "out"}),
    "data check": (["data"], {}),
    "data properties": (["data"], {"--out": "out.csv", "--permutations": "19"}),
    "data groups": (["data"], {"--attribute": "a", "--network": "run"}),
}
"""For each command, arguments with which it ends within seconds. Those of long commands are refused."""


def command_line(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A command with one or two odd values."""
    copy_data(valid, folder)
    copy_run(valid, folder)
    copy_run(valid, folder, "other")
    shutil.copy(valid.weights, folder)
    with_odd_files(folder)
    command = rng.choice(list(options()))
    files, given = SMALL[command]
    files, given = list(files), dict(given)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        name, hint = rng.choice(list(options()[command].items()))
        if hint == "file" or rng.random() < 0.1:
            given[name] = rng.choice(odd.FILES)
        else:
            given[name] = rng.choice(rng.choice((odd.NUMBERS, odd.RANGES, odd.TEXTS, odd.NAMES)))
    if files and rng.random() < 0.15:
        files[rng.randrange(len(files))] = rng.choice((*odd.FILES, *odd.TEXTS))
    if given and rng.random() < 0.05:
        del given[rng.choice(list(given))]
    flags = [f"{name}={value}" for name, value in given.items()]
    if rng.random() < 0.1:
        flags.append(rng.choice(("--json", "--nothing", "--resume", "--verbose", "-x", "--", "--out")))
    return [*command.split(), *files, *flags]


@cache
def options() -> dict[str, dict[str, str]]:
    """For each command, its options, and whether each takes a file or another value."""
    return dict(_commands(app, ()))


def _commands(application: App, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    for name in application:
        command: Any = application[name]
        if name.startswith("-"):
            continue
        if command.default_command is None:
            yield from _commands(command, (*names, name))
            continue
        arguments = [argument for argument in command.assemble_argument_collection() if argument.name.startswith("--")]
        kinds = {argument.name: "file" if "Path" in str(argument.hint) else "value" for argument in arguments}
        yield " ".join((*names, name)), kinds
