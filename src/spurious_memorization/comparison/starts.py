"""The studied runs that those of a comparison are held against: the ones they started from, otherwise plain ERM's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UserError
from ..runs.run import Run
from ..studies.study import studies_of
from .compare import Comparison
from .methods import Member, kind_of, named_start, seed_of


def starts_of(found: Comparison) -> dict[Member, tuple[Run, int]]:
    """For each run that started from another run: the other run, and the epoch of its network.

    Raises:
        UserError: the other run is gone, or was made with other data.
    """
    starts = {}
    for member in found.members:
        start = named_start(member.run)
        if start is None:
            continue
        older, words = start
        if older.record.data.fingerprint != member.run.record.data.fingerprint:
            raise UserError(
                f"--study: {older.path}, which {member.run.path} started from, was made with other data: leave it out"
            )
        began = member.run.record.start
        starts[member] = (older, older.choose_epoch(words) if began is None else began.epoch)
    return starts


def studied_runs(found: Comparison, starts: Iterable[tuple[Run, int]], study: str | None) -> tuple[str, dict[int, Run]]:
    """The name of the study, and for each seed the run that has it: the runs from which others started, then ERM runs.

    Arguments:
        found: the compared runs.
        starts: the values of `starts_of`; each of these runs must have the study.
        study: its name; if not given, the only finished study.

    Raises:
        UserError: no run could be the start, a run lacks the study, or there are several studies.
    """
    begun = list({run.path.resolve(): run for run, _ in starts}.values())
    plain = [member.run for member in found.members if kind_of(member.run) == "erm"]
    asked = begun or plain
    if not asked:
        raise UserError("--study: no run started from another one and none is plain erm: name the studied run, too")
    name = study or _only_study(asked)
    lacking = [run for run in asked if name not in finished_studies(run)]
    if lacking and (begun or len(lacking) == len(plain)):
        there = ", ".join(finished_studies(lacking[0])) or "none"
        raise UserError(f"--study {name}: {lacking[0].path} has no such finished study: it has {there}")
    with_study = [run for run in (*begun, *plain) if name in finished_studies(run)]
    return name, {seed_of(run): run for run in reversed(with_study)}


def finished_studies(run: Run) -> list[str]:
    """Names of a run's finished studies.

    Raises:
        UserError: the folder is no run.
    """
    _ = run.record
    return [study.name for study in studies_of(run) if study.is_complete]


def _only_study(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in finished_studies(run)})
    if len(names) == 1:
        return names[0]
    if names:
        raise UserError(f"there are several studies: name one of {', '.join(names)}")
    raise UserError(f"{runs[0].path} has no finished study: `spurmem study` makes one")
