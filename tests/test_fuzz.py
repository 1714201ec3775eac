"""No odd input ends in a traceback, hangs, exhausts memory, runs code, or writes outside its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.outcomes import FINE, KINDS, counts, kind_of, table, tried
from fuzz.server import FOLDER, Ended, Server
from fuzz.targets import TARGETS
from fuzz.valid import Valid, copy_run, make_valid

INPUTS = 180
CHUNK = 60

ERROR = "spurmem: x does not exist: correct the path\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Valid:
    return make_valid(tmp_path_factory.mktemp("valid"))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, INPUTS, CHUNK))
@pytest.mark.parametrize("target", TARGETS)
def test_every_input_is_accepted_or_refused(
    target: str, first: int, server: Server, valid: Valid, tmp_path: Path
) -> None:
    make = TARGETS[target]
    outcomes = [tried(target, make, seed, server, valid, tmp_path) for seed in range(first, first + CHUNK)]
    print(table(counts(outcomes)))
    wrong = [str(outcome) for outcome in outcomes if outcome.kind not in FINE]
    assert not wrong, "\n".join(wrong)
    assert {outcome.kind for outcome in outcomes} == set(FINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("criterion", "kind"),
    [
        ("fills_memory", "exhausted memory"),
        ("never_ends", "hang"),
        ("runs_code", "executed code"),
        ("writes_outside", "file outside"),
        ("fails", "traceback"),
    ],
)
def test_harm_is_noticed(criterion: str, kind: str, server: Server, valid: Valid, tmp_path: Path) -> None:
    copy_run(valid, tmp_path / FOLDER)
    arguments = ["trace", "run", f"--criterion=fuzz.harmful:{criterion}"]
    ended = server.run(arguments, tmp_path, seconds=10)
    assert kind_of(ended, {file.name for file in tmp_path.iterdir()}) == kind


@pytest.mark.parametrize(
    ("status", "err", "kind"),
    [
        (0, "reading\n", "accepted"),
        (1, "", "accepted"),
        (2, f"reading\n{ERROR}", "refused"),
        (2, "", "traceback"),
        (0, ERROR, "traceback"),
        (2, f"{ERROR}and more\n", "traceback"),
        (2, f"{ERROR}{ERROR}", "traceback"),
        (70, "Traceback (most recent call last):\nKeyError: 1\n", "traceback"),
        (2, f"Traceback (most recent call last):\n{ERROR}", "traceback"),
        (-11, "", "traceback"),
        (70, "Traceback (most recent call last):\nMemoryError\n", "exhausted memory"),
    ],
)
def test_a_refusal_is_one_line_of_error_and_status_2(status: int, err: str, kind: str) -> None:
    assert kind in KINDS
    assert kind_of(Ended(status, late=False, seconds=1.0, out="", err=err), {FOLDER, "stdout", "stderr"}) == kind
