"""Every file of a run and of a study, broken in every way, read by every command: one line names the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
from damage import damages_of

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

Capture = pytest.CaptureFixture[str]

STUDY = ("--criterion=weight_norm,gradient,ablation", "--size=1..2", "--edit=zero", "--edit=random_noise:std=0.5")
STUDY = (*STUDY, "--repeats=2", "--controls=5", "--per-group=4", "--name=both")

COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", "RUN"),
    "figure accuracy": ("figure", "accuracy", "RUN", "--out=OUT"),
    "figure verdicts": ("figure", "verdicts", "RUN", "--format=csv", "--out=OUT"),
    "figure layers": ("figure", "layers", "RUN", "--out=OUT"),
    "figure ablation": ("figure", "ablation", "RUN", "--out=OUT"),
    "compare": ("compare", "RUN"),
    "compare --study": ("compare", "RUN", "--study=both"),
    "compare --refit-heads": ("compare", "RUN", "--refit-heads"),
    "study": ("study", "RUN", *STUDY),
    "trace": ("trace", "RUN", "--criterion=weight_norm,gradient,ablation"),
    "edit": ("edit", "RUN", "--units=conv1:1", "--out=OUT"),
    "resume": ("train", "DATA", "--resume", *tiny.train_flags(Path("RUN"))),
    "from": ("train", "DATA", "--from=RUN@last", "--objective=erm-continue", *tiny.train_flags(Path("OUT"))),
    "jtt": ("train", "DATA", "--objective=jtt:errors_of=RUN@2", *tiny.train_flags(Path("OUT"), epochs=1)),
}

COMPARE = ("compare", "compare --study", "compare --refit-heads")

READ: dict[str, set[str]] = {
    "run.json": set(COMMANDS),
    "history.parquet": {"report", "figure accuracy", *COMPARE, "resume", "from", "jtt"},
    "checkpoints/epoch_003.safetensors": {"trace", "edit", "from", "compare --study"},
    "checkpoints/trainer.pt": {"resume"},
    "predictions/epoch_002_train.parquet": {"jtt"},
    "predictions/epoch_002_val.parquet": set(COMPARE),
    "refitted_heads/HEAD.json": {"compare --refit-heads"},
    "studies/both/study.json": {"report", "study", "compare --study", "figure verdicts"},
    "studies/both/variants.parquet": {"report", "figure layers"},
    "studies/both/results.parquet": {"report"},
    "studies/both/effects.parquet": {"report", "study", "compare --study", "figure verdicts", "figure layers"},
    "studies/both/agreement.parquet": set(),
    "studies/both/outcomes/train_selected_00000.parquet": {"report"},
    "studies/both/top-activating.parquet": {"report"},
    "ablations/MAP/map.parquet": {"report", "figure ablation", "trace"},
    "ablations/MAP/ablation.json": {"report", "figure ablation"},
    "rankings/RANKING.safetensors": {"report", "figure layers"},
}
"""Each file, and the commands that need it. The others may or may not read it."""

MAY_BE_MISSING = {
    "checkpoints/epoch_003.safetensors": "the run has other epochs",
    "checkpoints/trainer.pt": "training begins anew",
    "studies/both/effects.parquet": "the study is not finished",
    "studies/both/variants.parquet": "",
    "studies/both/outcomes/train_selected_00000.parquet": "",
    "studies/both/top-activating.parquet": "found again",
    "ablations/MAP/map.parquet": "measured again",
    "rankings/RANKING.safetensors": "scored again",
    "refitted_heads/HEAD.json": "fitted again",
}

TOLERATED = {
    **{(name, "flipped"): "the bytes may not matter" for name in READ if not name.endswith((".safetensors", ".pt"))},
    ("predictions/epoch_002_train.parquet", "numbers for text"): "these are probabilities, too",
    ("predictions/epoch_002_val.parquet", "numbers for text"): "these are probabilities, too",
    **{(name, "missing"): why for name, why in MAY_BE_MISSING.items()},
}


@pytest.fixture(scope="module")
def whole(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    """A run with a study, an ablation map, top-activating images and a refitted head."""
    run = tiny.copied(trained, tmp_path_factory.mktemp("whole") / "run")
    tiny.studied(run)
    sm.report([run.path])
    sm.refitted_heads([run])
    return run


@pytest.fixture
def copy(whole: sm.Run, tmp_path: Path) -> Iterator[sm.Run]:
    yield tiny.copied(whole, tmp_path / "run")
    shutil.rmtree(tmp_path)


def file_of(run: sm.Run, name: str) -> Path:
    """The file with this name, which may stand for the first of its kind."""
    first_map = next((run.path / "ablations").glob("*"))
    ranking = next((run.path / "rankings").glob("weight_norm*"))
    head = next((run.path / "refitted_heads").glob("*"))
    names = {"ablations/MAP": f"ablations/{first_map.name}", "RANKING": ranking.stem, "HEAD": head.stem}
    for short, stem in names.items():
        name = name.replace(short, stem)
    return run.path / name


CASES = [
    (name, damage, command)
    for name in READ
    for damage in damages_of(name)
    for command in COMMANDS
    if command in READ[name] or damage == "halved"
]
QUICK = {
    ("run.json", "null", "report"),
    ("history.parquet", "other columns", "compare"),
    ("history.parquet", "halved", "resume"),
    ("history.parquet", "missing", "resume"),
    ("checkpoints/epoch_003.safetensors", "other values", "edit"),
    ("checkpoints/trainer.pt", "flipped", "resume"),
    ("predictions/epoch_002_val.parquet", "negative", "compare"),
    ("refitted_heads/HEAD.json", "texts", "compare --refit-heads"),
    ("studies/both/study.json", "texts", "study"),
    ("studies/both/effects.parquet", "text for numbers", "figure verdicts"),
    ("rankings/RANKING.safetensors", "folder", "figure layers"),
}
assert set(CASES) >= QUICK


@pytest.mark.parametrize(
    ("name", "damage", "command"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_the_file_is_named(
    name: str, damage: str, command: str, copy: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = file_of(copy, name)
    damages_of(name)[damage](file)
    places = {"RUN": str(copy.path), "OUT": str(tmp_path / "out"), "DATA": str(squares)}
    words: list[Any] = []
    for word in COMMANDS[command]:
        for short, place in places.items():
            word = word.replace(short, place)
        words.append(word)
    said = tiny.spurmem(capsys, *words)
    if said.status == 0:
        assert command not in READ[name] or (name, damage) in TOLERATED
    elif (name, damage) not in TOLERATED:
        assert file.name in said.error or str(file.parent) in said.error
    else:
        assert said.error


@pytest.mark.parametrize("command", ["report", "figure verdicts", "figure layers"])
def test_verdicts_of_other_sets_than_were_measured_are_refused(
    command: str, copy: sm.Run, squares: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = copy.path / "studies" / "both" / "effects.parquet"
    effects = pd.read_parquet(file)
    effects[effects["selected_set"] != effects["selected_set"].max()].to_parquet(file)
    places = {"RUN": str(copy.path), "OUT": str(tmp_path / "out"), "DATA": str(squares)}
    words = [places.get(word, word) for word in COMMANDS[command]]
    assert "effects.parquet has other selected sets" in tiny.spurmem(capsys, *words).error


@pytest.mark.parametrize(("name", "key"), [("variants", "variant"), ("effects", "selected_set, split, group")])
def test_rows_that_are_there_twice_are_refused(
    name: str, key: str, copy: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    file = copy.path / "studies" / "both" / f"{name}.parquet"
    frame = pd.read_parquet(file)
    pd.concat([frame, frame.iloc[-1:]], ignore_index=True).to_parquet(file)
    said = tiny.spurmem(capsys, "figure", "layers", copy.path, "--out", tmp_path / "out")
    assert f"{name}.parquet is broken: " in said.error
    assert f"(it has two rows with the same {key})" in said.error
