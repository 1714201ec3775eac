"""The words that are marked in a text: those whose leaving out takes most of an edit's margin change away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from browser import opened

import spurious_memorization as sm
from spurious_memorization.datasets.negated_pairs import make_negated_pairs
from spurious_memorization.datasets.settings import NegatedPairsSettings
from spurious_memorization.reporting.gallery.word_changes import edit_of, word_changes
from spurious_memorization.reporting.inputs import read_inputs
from spurious_memorization.studies.network import network_of_run
from spurious_memorization.training.settings import TrainSettings

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:all .* are classified correctly", "ignore:only .* null sets")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    folder = tmp_path_factory.mktemp("words")
    make_negated_pairs(folder / "pairs", NegatedPairsSettings(train=80, val=16, test=16))
    settings = TrainSettings(model=f"hf:{folder / 'pairs' / 'network'}", weights="none", epochs=2)
    return sm.train(folder / "pairs", folder / "run", settings)


def margin(network: Any, tokenizer: Any, texts: list[str], label: int, length: int) -> float:
    inputs = tokenizer(*texts, padding="max_length", max_length=length, return_tensors="pt")
    with torch.no_grad():
        logits = network(**inputs).logits[0]
    return float(logits[label] - logits[1 - label])


def test_changes_are_those_of_texts_without_the_word(run: sm.Run) -> None:
    data = run.read_data()
    studied = network_of_run(run, data, 2)
    units = "bert.encoder.layer.0.output.dense:1,bert.pooler.dense:3"
    variant = {"kind": "random_noise", "parameters": '{"std": 5.0}', "units": units, "unit": "channel", "seed": 1}
    edit = edit_of(studied, pd.Series(variant))
    found = word_changes(studied, edit, [0, 5])
    before, after = run.network(2), sm.edits.edited(run.network(2), edit)
    tokenizer = transformers.AutoTokenizer.from_pretrained(Path(run.record.data.folder) / "network")
    for sample, words in found.items():
        label = int(data.y[sample])

        def change(texts: list[str], label: int = label) -> float:
            old, new = (margin(net, tokenizer, texts, label, data.transform.length) for net in (before, after))
            return new - old

        texts, expected = list(data.source.parts(sample)), {}
        for part, text in enumerate(texts):
            for match in re.finditer(r"[a-z]+", text):
                without = [*texts]
                without[part] = text[: match.start()] + text[match.end() :]
                expected[part, match.start(), match.end()] = change(texts) - change(without)
        largest = sorted(expected, key=lambda place: -abs(expected[place]))[:3]
        assert [word[:3] for word in words] == largest
        assert [word.change for word in words] == pytest.approx([expected[place] for place in largest], abs=1e-4)


def test_what_a_sample_is_called(run: sm.Run, trained: sm.Run) -> None:
    assert read_inputs([run.path]).noun == run.read_data().noun == "text"
    assert read_inputs([trained.path]).noun == trained.read_data().noun == "image"
    assert read_inputs([run.path, trained.path]).noun == "sample"
    assert sm.from_tensors(torch.zeros(4, 2), [0, 1, 0, 1], [0, 0, 1, 1]).noun == "sample"


@pytest.fixture(scope="module")
def studied(run: sm.Run) -> sm.Run:
    """The run with a study."""
    sm.study(run, sm.StudySettings(criterion=("magnitude",), size=("10",), edit=("random_noise:std=9",), controls=1))
    return run


@pytest.mark.slow
def test_a_run_of_texts_is_never_said_to_have_images(studied: sm.Run, chromium: Any, capsys: Any) -> None:
    file = sm.report([studied.path], studied.path / "page.html")
    with opened(chromium, file) as shown:
        text = shown.page.inner_text("body")
        assert "layer.0.attention.output.dense<" in shown.marks("layers")
        labels = shown.page.eval_on_selector_all("[aria-label]", "found => found.map(one => one.ariaLabel)")
    assert "Which texts?" in text
    assert "Texts whose prediction changes" in text
    assert "image" not in f"{text} {labels}".lower()
    assert "image" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_figure_of_texts(studied: sm.Run, tmp_path: Path, squares: Path, capsys: Any) -> None:
    (file,) = sm.draw_figures("texts", [studied.path], tmp_path, sm.FigureSettings(format="csv"))
    table = pd.read_csv(file)
    data = studied.read_data()
    assert [data.source.parts(i) for i in table["sample"]] == list(zip(table["text"], table["text_pair"], strict=True))
    changed = table[table["before"].notna() & table["shown for"].str.startswith("Selected")]
    assert len(changed)
    for row in changed.itertuples():
        words = re.findall(r"(\w+) \([+-]\d+\.\d\d\)", row.words)
        assert len(words) == 3
        assert all(word in f"{row.text} {row.text_pair}" for word in words)
    (drawing,) = sm.draw_figures("texts", [studied.path], tmp_path)
    shown = drawing.read_text()
    assert all(f">{word}<" in shown for word in changed["text"].iloc[0].split())
    assert "image" not in re.sub(r"<svg[^>]*>", "", shown).lower()
    assert "`spurmem figure texts`" in tiny.spurmem(capsys, "figure", "images", studied.path).error
    assert {file.stem for file in sm.draw_figures("all", [studied.path], tmp_path / "all")} >= {"texts", "accuracy"}


@pytest.mark.slow
def test_the_report_shows_texts_with_marked_words(studied: sm.Run) -> None:
    page = sm.report([studied.path]).read_text()
    shown = json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', page)[1])["gallery"]
    assert shown["unreadable"] == []
    assert all(len(sample["text"]) == 2 and not sample["image"] for sample in shown["samples"].values())
    changed = [image for item in shown["items"] for image in item["selected"]["images"]]
    assert changed
    for image in changed:
        texts = ["".join(text for text, _ in part) for part in image["pieces"]]
        assert texts == shown["samples"][image["sample"]]["text"]
        assert sum(change is not None for part in image["pieces"] for _, change in part) == 3
