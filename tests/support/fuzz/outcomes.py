"""What became of an input."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .server import FOLDER, Ended, Server
from .valid import Valid

Kind = Literal["accepted", "refused", "traceback", "hang", "exhausted memory", "executed code", "file outside"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FINE: tuple[Kind, ...] = ("accepted", "refused")

SENTINEL = "executed"
"""The name of the file that harmful inputs create, next to the folder of the command."""

Maker = Callable[[random.Random, Path, Valid], list[str]]
"""Writes an input below a folder, and gives the arguments of a command that reads it."""


@dataclass(frozen=True)
class Outcome:
    """An input and what became of it."""

    target: str
    seed: int
    arguments: Sequence[str]
    kind: Kind
    ended: Ended

    def __str__(self) -> str:
        shown = [a if len(a) < 100 else f"{a[:60]}... ({len(a)} characters)" for a in self.arguments]
        last = "\n  ".join(self.ended.err.strip().splitlines()[-3:])
        how = f"status {self.ended.status}, {self.ended.seconds:.1f} s"
        again = f"python -m fuzz --target '{self.target}' --seed {self.seed}"
        return f"{self.kind} ({how}): {again}\n  {shown!r}\n  {last[-600:]}"


def tried(target: str, make: Maker, seed: int, server: Server, valid: Valid, work: Path) -> Outcome:
    """Make one input in a new folder below `work`, run its command, and remove the folder."""
    place = work / f"{target}_{seed}"
    folder = place / FOLDER
    folder.mkdir(parents=True)
    arguments = make(random.Random(f"{target} {seed}"), folder, valid)
    ended = server.run(arguments, place)
    outcome = Outcome(target, seed, arguments, kind_of(ended, {file.name for file in place.iterdir()}), ended)
    shutil.rmtree(place)
    return outcome


def kind_of(ended: Ended, beside: set[str]) -> Kind:
    """What became of a command.

    Arguments:
        ended: how it ended.
        beside: names of the files next to the command's folder.
    """
    lines = ended.err.splitlines()
    errors = [line for line in lines if line.startswith("spurmem:")]
    if SENTINEL in beside:
        return "executed code"
    if beside - {FOLDER, "stdout", "stderr"}:
        return "file outside"
    if ended.late:
        return "hang"
    if any(words in ended.err for words in ("MemoryError", "t allocate memory", "bad_alloc", "malloc of size")):
        return "exhausted memory"
    if "Traceback" in ended.err or ended.status not in (0, 1, 2) or (ended.status == 2) != bool(errors):
        return "traceback"
    if errors and errors != lines[-1:]:
        return "traceback"
    return "refused" if errors else "accepted"


def counts(outcomes: Iterable[Outcome]) -> dict[str, Counter[Kind]]:
    """For each target, how many inputs became what."""
    counted: dict[str, Counter[Kind]] = {}
    for outcome in outcomes:
        counted.setdefault(outcome.target, Counter())[outcome.kind] += 1
    return counted


def table(counted: dict[str, Counter[Kind]]) -> str:
    """The counts as a Markdown table."""
    rows = [["target", "inputs", *KINDS]]
    rows += [[name, str(c.total()), *(str(c[kind]) for kind in KINDS)] for name, c in counted.items()]
    total = sum(counted.values(), Counter[Kind]())
    rows.append(["together", str(total.total()), *(str(total[kind]) for kind in KINDS)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
