"""Methods: runs that differ only in their seed, each under a name of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..remote_folders import local_folder
from ..runs.epochs import run_and_epoch
from ..runs.run import Run
from ..training.find_objective import objective_names, settings_class

CONTROL = "erm-continue"
"""The objective that a repair must beat: the same training from the same checkpoint, without the repair."""

_NO_PART_OF_IT = ("seed", "split_seed", "recipe", "best_by")
"""Settings that do not make another method: seeds, settings that only fill in others, and how an epoch is chosen."""


@dataclass(frozen=True)
class Member:
    """One run of a comparison.

    Arguments:
        run: the run.
        method: name of its method.
        seed: of its training; for an edited network that of the run that was edited.
    """

    run: Run
    method: str
    seed: int


def runs_at(place: str | Path) -> list[Run]:
    """The run in a folder, or the runs of all seeds below it, as `spurmem train --seeds` writes them.

    Raises:
        UserError: the folder holds no run.
    """
    path = local_folder(place)
    if (path / "run.json").is_file():
        return [Run(path)]
    below = [file.parent for file in path.glob("seed_*/run.json")]
    if not below:
        _ = Run(path).record  # raises the error that the folder is no run
    return [Run(folder) for folder in sorted(below, key=lambda folder: (len(folder.name), folder.name))]


def members_of(runs: Sequence[Run]) -> list[Member]:
    """The runs with the names of their methods, sorted by method, in the given order.

    A method's name is its objective (of an edited or imported network: "edit" or "import"). Where several methods share
    it, it is followed by the settings in which they differ.

    Raises:
        UserError: two runs are the same method with the same seed.
    """
    blocks = [method_of(run) for run in runs]
    keys = [json.dumps(block, sort_keys=True) for block in blocks]
    first = dict(zip(reversed(keys), reversed(blocks), strict=True))
    unique = list(dict.fromkeys(keys))
    names = dict(zip(unique, _names([first[key] for key in unique]), strict=True))
    members = [Member(run=run, method=names[key], seed=seed_of(run)) for run, key in zip(runs, keys, strict=True)]
    known: dict[tuple[str, int], Run] = {}
    for member in members:
        other = known.setdefault((member.method, member.seed), member.run)
        if other is not member.run:
            raise UserError(
                f"{other.path} and {member.run.path} are the same method ({member.method}) with the same seed "
                f"({member.seed}): leave one out"
            )
    order = list(names.values())
    return sorted(members, key=lambda member: (order.index(member.method), member.seed))


def method_of(run: Run) -> dict[str, Any]:
    """The settings that make a run's method: all but seeds. A run from which it started is replaced by that run's
    method and the epoch."""
    record = run.record
    recorded = json.loads(record.model_dump_json(include={"settings": True, "network": True, "data": {"transform"}}))
    settings = {name: value for name, value in recorded["settings"].items() if name not in _NO_PART_OF_IT}
    started = named_start(run)
    if started is not None:
        settings.pop("run", None)
        older, epoch = started
        settings["start"] = {"epoch": epoch, **_start(older)}
    if isinstance(objective := settings.get("objective"), Mapping):
        settings["objective"] = {name: value for name, value in objective.items() if name != "name"}
        if "errors_of" in objective:
            errors_of, epoch = run_and_epoch(objective["errors_of"])
            settings["objective"]["errors_of"] = {"epoch": epoch, **_start(Run(errors_of))}
    return {
        "kind": kind_of(run),
        **settings,
        "network": recorded["network"],
        "transform": recorded["data"]["transform"],
    }


def kind_of(run: Run) -> str:
    """The objective of a trained run; for other runs, where the network came from."""
    objective = run.record.settings.get("objective", run.record.origin)
    return str(objective["name"]) if isinstance(objective, Mapping) else str(objective)


def seed_of(run: Run) -> int:
    """Seed of the last training of the network; 0 if none is known."""
    started = named_start(run)
    if run.record.origin == "edit" and started is not None and (started[0].path / "run.json").is_file():
        return seed_of(started[0])
    return int(run.record.settings.get("seed", 0))


def named_start(run: Run) -> tuple[Run, str] | None:
    """The run from which this one started, and the epoch as its settings name it; None if it started from no run."""
    settings = run.record.settings
    if run.record.origin == "edit":
        return Run(settings["run"]), str(settings["epoch"])
    if settings.get("start") is None:
        return None
    path, epoch = run_and_epoch(settings["start"])
    return Run(path), epoch


def named_method(members: Iterable[Member], wanted: str) -> str:
    """The method that a baseline's name means: the method of this name, or the only one with this objective.

    Raises:
        UserError: no method or several methods have it.
    """
    kinds = {member.method: kind_of(member.run) for member in members}
    if wanted in kinds:
        return wanted
    fitting = [method for method, kind in kinds.items() if kind == wanted]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"--baseline {wanted}: several methods have this objective: name one of {_listed(fitting)}")
    raise UserError(f"--baseline {wanted} is not among the runs: name one of {_listed(kinds)}")


def control_among(members: Iterable[Member]) -> str | None:
    """The only method that continues plain training; None if there is none, or several."""
    fitting = {member.method for member in members if kind_of(member.run) == CONTROL}
    return fitting.pop() if len(fitting) == 1 else None


def differing(members: Iterable[Member]) -> pd.DataFrame:
    """Settings that all methods have and in which they differ, besides the objective: one row per method."""
    first = {member.method: member.run for member in reversed(list(members))}
    blocks = [{k: v for k, v in method_of(run).items() if k not in _without_meaning(run)} for run in first.values()]
    table = _flat(blocks).assign(method=list(first)).set_index("method")[::-1]
    return table.loc[:, table.notna().all() & (table.nunique() > 1)]


def _without_meaning(run: Run) -> set[str]:
    """Settings that tell no methods apart, because something else gives them or the run has no use for them."""
    names = {"kind", "objective", "network", "start"}
    if named_start(run) is not None:
        names.add("weights")
    if kind_of(run) in objective_names() and settings_class(kind_of(run)).fixed_settings:  # it takes no gradient steps
        names |= {"epochs", "checkpoint_every", "batch_size", "lr", "optimizer", "momentum", "weight_decay", "schedule"}
    return names


def _start(older: Run) -> Mapping[str, Any]:
    if (older.path / "run.json").is_file():
        return method_of(older)
    return {"kind": re.sub(r"seed_\d+", "seed_*", str(older.path))}


def _names(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    table = _flat(blocks)
    kinds = [str(block["kind"]) for block in blocks]
    names = list(kinds)
    for kind in set(kinds):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        varied = [name for name in table if table[name].iloc[rows].nunique(dropna=False) > 1]
        short = [name for name in varied if not name.startswith(("network.", "transform.", "start."))]
        short.sort(key=lambda name: not name.startswith("objective."))
        if len(set(map(tuple, table[short].iloc[rows].to_numpy().tolist()))) < len(rows):
            short = varied
        for row in rows:
            own = {name.removeprefix("objective."): table[name].iloc[row] for name in short}
            differing_settings = (f"{name}={value}" for name, value in own.items() if pd.notna(value))
            names[row] = " ".join([kind, *differing_settings])
    return names


def _flat(blocks: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per block of settings. Nested settings become columns `a.b`; values become text, so that they compare."""
    table = pd.json_normalize(list(blocks), sep=".").astype(object)
    return table.map(lambda value: _text(value) if isinstance(value, list) or pd.notna(value) else None)


def _text(value: object) -> str:
    return ",".join(map(_text, value)) if isinstance(value, list) else str(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
