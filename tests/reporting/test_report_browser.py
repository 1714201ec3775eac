"""The report in a real Chromium: it draws, reacts to its choosers, requests nothing, and is accessible."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
from browser import Opened, opened

import spurious_memorization as sm
from spurious_memorization.calibration.known_answers import KnownAnswers
from spurious_memorization.demo.flow import CONTROLS_FILE

CONTROLS = {
    "seed": 0,
    **{
        control: {
            "control": control,
            "seed": 1,
            "layer": "conv1",
            "planted": ["conv1:1"] if control == "positive" else [],
            "group": "lying with warm",
            "n_tests": 3,
            "verdict": "memorizing" if control == "positive" else "none",
            "units": ["conv1:1"],
            "train_change": -0.5 if control == "positive" else 0.0,
            "unseen_change": 0.0,
            "null_changes": [-0.1, 0.0, 0.0],
            "p_memorizing": 0.01,
        }
        for control in ("positive", "negative")
    },
}
"""Answers on both controls, so that no network needs to be trained for them."""

NAMES = ("class 0 with color 0", "class 0 with color 1", "class 1 with color 0", "class 1 with color 1")


@pytest.fixture(scope="module")
def shown(chromium: Any, file: Path) -> Iterator[Opened]:
    """The page, opened once. Tests that choose put all choosers back."""
    with opened(chromium, file) as page:
        yield page


def faults(page: Opened) -> list[str]:
    """What axe calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page.page).response["violations"]
    return [
        f"{one['impact']} {one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def seen(page: Opened, selector: str) -> list[dict[str, str]]:
    """The images that are shown: sample, file and description of each."""
    script = "list => list.map(i => ({sample: i.dataset.sample, path: i.title, alt: i.alt, width: i.naturalWidth}))"
    return list(page.page.eval_on_selector_all(f"{selector} img", script))


def visible(page: Opened, table: str, script: str) -> list[Any]:
    """Something of each row of a table that is shown."""
    rows = f"table[data-figure={table}] tbody tr:not([hidden])"
    return list(page.page.eval_on_selector_all(rows, f"list => list.map({script})"))


def test_no_error_and_no_request_leaves_the_page(shown: Opened, file: Path) -> None:
    assert shown.errors == []
    assert [url for url in shown.requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


def test_every_figure_has_drawn(shown: Opened) -> None:
    places = shown.page.eval_on_selector_all("[data-chart]", "list => list.map(one => one.dataset.chart)")
    small, *large = places
    assert small == "gap"
    assert shown.page.locator("[data-chart=gap] svg").bounding_box()["height"] > 80
    assert large == ["accuracy", "accuracy_changes", "layers", "ablation"]
    for name in large:
        n = shown.page.eval_on_selector_all(f"[data-chart={name}] svg path", "list => list.length")
        assert n > 20, name
        box = shown.page.locator(f"[data-chart={name}] svg").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
        assert shown.page.get_attribute(f"[data-chart={name}]", "aria-label")


def test_nothing_else_runs_in_the_page(shown: Opened) -> None:
    script = "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)"
    shown.page.evaluate(script)
    assert shown.page.evaluate("window.hacked") is None
    shown.errors.clear()  # the policy reports what it blocked


@pytest.mark.slow
def test_choosers_change_the_figures_and_tables(shown: Opened, studied: sm.Study) -> None:
    effects = studied.effects()
    first = {name: shown.marks(name) for name in ("accuracy", "accuracy_changes", "layers", "ablation")}
    changes = {
        "group": (NAMES[1], ("accuracy", "accuracy_changes", "ablation")),
        "split": ("test", ("accuracy_changes",)),
        "edit": ("random_noise std=0.5", ("accuracy_changes",)),
        "criterion": ("weight_norm", ("accuracy_changes", "layers")),
        "size": ("1", ("accuracy_changes", "layers")),
    }
    for chooser, (value, names) in changes.items():
        before = shown.page.input_value(f"#choose-{chooser}")
        assert value in shown.options(chooser)
        shown.choose(chooser, value)
        for name in first:
            assert (shown.marks(name) != first[name]) == (name in names), (chooser, name)
        chosen = {"split": "train", "edit": "zero", "size": "2", chooser: value}
        of = effects.assign(group=effects["group_name"], edit=effects["kind"])
        fits = [of[name] == wanted.split(" std")[0] for name, wanted in chosen.items()]
        assert len(visible(shown, "accuracy_changes", "row => 1")) == sum(map(all, zip(*fits, strict=True))) > 0, (
            chooser
        )
        assert value.split(" ")[0] in shown.page.inner_text("[data-command=accuracy_changes] >> nth=0")
        shown.choose(chooser, before)
    assert {name: shown.marks(name) for name in first} == first
    assert shown.errors == []


def test_choosers_by_the_keyboard(shown: Opened) -> None:
    shown.page.focus("#choose-size")
    before = shown.marks("layers")
    shown.page.keyboard.press("ArrowUp")
    shown.drawn()
    assert shown.page.input_value("#choose-size") == "1"
    assert shown.marks("layers") != before
    shown.choose("size", "2")


@pytest.mark.slow
def test_the_shown_command_makes_the_shown_figure(shown: Opened, tmp_path: Path, capsys: Any) -> None:
    shown.choose("group", NAMES[2])
    words = shlex.split(shown.page.inner_text("#figure-accuracy_changes [data-command]"))
    assert words[:2] == ["spurmem", "figure"]
    said = tiny.spurmem(capsys, *words[1:], "--format", "csv", "--out", tmp_path)
    assert said.status == 0, said.err
    rows = visible(
        shown, "accuracy_changes", "row => [...row.cells].find(cell => 'value' in cell.dataset).dataset.value"
    )
    assert pd.read_csv(tmp_path / "accuracy_changes.csv")["n"].tolist() == [int(n) for n in rows]
    shown.choose("group", "")


@pytest.mark.slow
def test_the_gallery_shows_the_right_images(shown: Opened, studied: sm.Study, squares: Path) -> None:
    paths = pd.read_csv(squares / "metadata.csv")["path"]
    outcomes, variants = studied.outcomes("train"), studied.variants()
    before = outcomes.query("variant == -1").set_index("sample")["predicted"]
    for criterion, size in (("weight_norm", "2"), ("weight_norm", "1"), (f"gradient ({NAMES[1]})", "2")):
        shown.choose("criterion", criterion)
        shown.choose("size", size)
        kind, _, group = criterion.partition(" (")
        rows = variants.query("family == 'selected' and fold == -1 and kind == 'zero' and size == @size")
        rows = rows[rows["criterion"] == kind]
        (row,) = (rows[rows["group"] == group.rstrip(")")] if group else rows).itertuples()
        after = outcomes.query("variant == @row.variant").set_index("sample")["predicted"]
        changed = set(after.index[after != before[after.index]])
        images = seen(shown, "#changed .selected")
        assert {int(p["sample"].split(":")[1]) for p in images} <= changed
        assert len(images) == min(len(changed), len(images))
        assert bool(images) == bool(changed)
        heading = shown.page.inner_text("#changed .selected h4")
        assert heading == f"Selected: {row.units.replace(',', ', ')}"
        assert f"{len(changed)} of 40 " in shown.page.inner_text("#changed .selected")
        for image in images:
            sample = int(image["sample"].split(":")[1])
            assert image["path"] == paths[sample]
            assert image["alt"].endswith(f": class {before[sample]} → class {after[sample]}")
            assert int(image["width"]) == 16
        stored = pd.read_parquet(studied.path / "top-activating.parquet").set_index("unit")["sample"]
        for unit in row.units.split(","):
            shown.page.select_option("#choose-channel", unit)
            activating = seen(shown, "#top-activating .selected")
            assert [int(p["sample"].split(":")[1]) for p in activating] == stored[unit].tolist()
            assert len(seen(shown, "#top-activating .control")) == 12
    shown.choose("criterion", "")
    shown.choose("size", "2")


def test_the_groups_are_shown_minority_first(shown: Opened) -> None:
    headings = "#group-images h4"
    assert shown.page.locator(headings).all_inner_texts() == [f"{NAMES[1]} *", f"{NAMES[2]} *", NAMES[0], NAMES[3]]
    images = seen(shown, "#group-images")
    assert len(images) == 16
    assert all(int(image["width"]) == 16 for image in images)
    assert "minority groups (*) first" in shown.page.inner_text("#groups-caption")
    shown.choose("group", NAMES[3])
    assert shown.page.locator(headings).all_inner_texts() == [NAMES[3]]
    shown.choose("group", "")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(chromium: Any, file: Path, scheme: str) -> None:
    with opened(chromium, file, scheme=scheme) as page:
        page.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert faults(page) == []
        assert page.errors == []


@pytest.mark.slow
def test_dark_and_print_change_the_colors_of_figures(chromium: Any, file: Path) -> None:
    script = "getComputedStyle(document.querySelector('[data-chart=accuracy] svg text')).fill"
    with opened(chromium, file, scheme="dark") as page:
        dark = page.page.evaluate(script)
        page.page.emulate_media(media="print", color_scheme="dark")
        printed = page.page.evaluate(script)
        assert not page.page.is_visible("form.choosers >> nth=0")
    with opened(chromium, file) as page:
        assert page.page.evaluate(script) == "rgb(27, 27, 27)"
    assert dark == "rgb(236, 236, 236)"
    assert printed == "rgb(0, 0, 0)"


@pytest.mark.slow
def test_a_phone_needs_no_sideways_scrolling(chromium: Any, file: Path) -> None:
    with opened(chromium, file, width=360) as page:
        page.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.page.evaluate("document.scrollingElement.scrollWidth") <= 360
        for name in ("accuracy", "accuracy_changes", "layers", "ablation"):
            assert page.page.locator(f"[data-chart={name}] svg").bounding_box()["width"] <= 360
        assert page.errors == []


@pytest.mark.slow
def test_names_of_data_stay_text(chromium: Any, hostile: sm.Run, tmp_path: Path) -> None:
    with opened(chromium, sm.report([hostile.path], tmp_path / "page.html")) as page:
        assert page.errors == []
        group = f"{tiny.HOSTILE['classes'][0]} with {tiny.HOSTILE['attributes'][0]}"
        for value in [group, *page.options("group")]:
            page.choose("group", value)
        assert page.options("group")[1:] == [
            f"{c} with {a}" for c in tiny.HOSTILE["classes"] for a in tiny.HOSTILE["attributes"]
        ]
        page.choose("group", group)
        page.page.locator("[data-chart=accuracy] svg .mark-symbol.role-mark path").first.hover(force=True)
        page.page.wait_for_selector("#vg-tooltip-element.visible")
        assert group in page.page.inner_text("#vg-tooltip-element")
        assert page.page.evaluate("window.hacked") is None
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}
        assert page.page.evaluate("document.querySelectorAll('script').length") == 3
        assert "<script>" in page.page.inner_text("[data-chart=accuracy]")
        assert faults(page) == []


@pytest.mark.slow
def test_the_report_of_a_demo(chromium: Any, tmp_path: Path, capsys: Any) -> None:
    KnownAnswers.model_validate(CONTROLS).write(tmp_path / "demo" / CONTROLS_FILE)
    flags = ("--train=200", "--val=60", "--test=100", "--epochs=2", "--networks=2", "--network-epochs=1")
    flags = (*flags, "--controls=19", "--per-group=10")
    said = tiny.spurmem(capsys, "demo", "--out", tmp_path / "demo", *flags, "--json")
    assert said.status == 0, said.err
    report = Path(json.loads(said.out)["report"])
    assert report == tmp_path / "demo" / "report.html"
    assert report.stat().st_size < 5_000_000
    with opened(chromium, report) as page:
        cards = page.page.locator(".card")
        assert [cards.nth(i).locator("svg").count() for i in range(cards.count())] == [1, 1, 1, 1]
        sentences = cards.locator("p").all_inner_texts()
        assert sentences[0].startswith("Positive control: memory of lying with warm was planted in 1 channel of conv1")
        assert sentences[1].startswith("Negative control: conv1 was never trained")
        assert " memorized" in sentences[2]
        assert "memorization scores are " in sentences[2]
        assert sentences[3].startswith("With dfr, the accuracy of the worst group in test ")
        for card in ("positive_control", "negative_control"):
            zero = page.page.locator(f"[data-chart={card}] svg .mark-rule line")
            assert zero.count() >= 1
        for chooser, value in (("split", "test"), ("group", "waterbird on land")):
            before = page.marks("accuracy_changes")
            page.choose(chooser, value)
            assert page.marks("accuracy_changes") != before
        page.choose("group", "")
        assert seen(page, "#top-activating .selected")
        assert faults(page) == []
        assert page.errors == []
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}
    with opened(chromium, report, width=360) as page:
        assert page.page.evaluate("document.scrollingElement.scrollWidth") <= 360
