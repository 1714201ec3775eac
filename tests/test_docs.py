"""The documentation's examples: Python runs, and every command that is shown is one that the program takes."""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import griffe
import jupytext
import pytest

import spurious_memorization as sm
from spurious_memorization.cli import main
from spurious_memorization.cli.app import app
from spurious_memorization.datasets.settings import SynthbirdsSettings
from spurious_memorization.datasets.synthbirds.make import make_synthbirds

ROOT = Path(__file__).parent.parent
PUBLIC = {*sm.__all__, *sm.criteria.__all__, *sm.edits.__all__} - {"__version__", "criteria", "edits"}
"""Public names; those of the two packages stand in the reference one by one."""
PACKAGE = ROOT / "src" / "spurious_memorization"
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "commands.md"})
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
GENERATED = {"commands.md"}
DATA_PAGES = ("hugging-face-data.md", "image-folders.md", "webdataset.md", "published-data.md")
"""Pages whose examples, Python and commands in turn, make data and read them."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return sorted({line.split(" #")[0].strip() for line in lines if line.startswith("spurmem ")})


def test_commands_are_shown_for_every_part():
    shown = {line.split()[1] for line in commands()}
    assert {"data", "train", "import", "trace", "study", "edit", "demo"} <= shown


@pytest.mark.parametrize("line", commands())
def test_shown_commands_parse(line):
    app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site and code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            if "://" in target or file in GENERATED:
                continue
            linked = page.parent / file if file else page
            assert linked.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


@pytest.mark.parametrize("page", ["architecture.md", "extending.md"])
def test_named_files_exist(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+/(?:[\w.]+\.pyi?)?|[\w/]+\.pyi?|(?:docs|tests)/[\w./]+)`", text)
    places = [ROOT / name if name.startswith(("docs", "tests", "src")) else PACKAGE / name for name in named]
    assert len(places) >= 5
    missing = [place.relative_to(ROOT).as_posix() for place in places if not place.exists() and place.name != "mine.py"]
    assert not missing


def test_every_page_is_in_the_navigation():
    navigation = str(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    there = {page.name for page in PAGES if page.name != "README.md"} | GENERATED
    assert set(re.findall(r"'([\w-]+\.md)'", navigation)) == there


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = [place.rpartition(".")[2] for place in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert sorted(named) == sorted(PUBLIC)


def functions_of(place: object) -> Iterator[Callable[..., object]]:
    """The public functions and methods of a module, class or function."""
    if inspect.isfunction(place):
        yield place
    for name, member in vars(place).items() if inspect.isclass(place) or inspect.ismodule(place) else ():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield member


def test_docstrings_name_the_arguments_that_there_are():
    """The build of the site warns about others; this finds them without the build."""
    places = [getattr(sm, name) for name in sm.__all__]
    for function in (function for place in places for function in functions_of(place)):
        sections = griffe.Docstring(inspect.getdoc(function) or "").parse("google", warnings=False)
        named = {a.name for section in sections if section.kind.value == "parameters" for a in section.value}
        assert named <= set(inspect.signature(function).parameters), function.__qualname__


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_needs_no_network():
    done = subprocess.run([sys.executable, ROOT / "docs" / "build.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "site").glob("*.html")}
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:|//)", text)
        loaded += re.findall(r"<link[^>]* rel=\"?stylesheet[^>]* href=\"?(https?:|//)", text)
        assert not loaded, name
    for name in PUBLIC:
        assert re.search(rf'id="spurious_memorization\.(\w+\.)*{name}"', pages["api"]), name
    for command in ("demo", "data-make-synthbirds", "train", "study"):
        assert f'id="spurmem-{command}"' in pages["commands"]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:all .* are classified correctly:UserWarning", "ignore:only .* null sets:UserWarning"
)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_notebooks_run(notebook):
    cells = jupytext.read(notebook).cells
    assert sum(cell.cell_type == "markdown" for cell in cells) >= 5
    runpy.run_path(str(notebook))


@pytest.mark.parametrize("page", DATA_PAGES)
def test_data_are_made_and_read_as_the_page_shows(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, page, "exec"), {})
        for line in block.splitlines() if language == "sh" else ():
            if line.startswith("spurmem "):
                with pytest.raises(SystemExit) as ended:
                    main(shlex.split(line)[1:])
                assert ended.value.code == 0, line
    assert "images in more than one split: none" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning", "ignore:only .* null sets")
def test_the_commands_on_texts_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "docs" / "text.md", "sh"):
        for line in block.splitlines():
            if line.startswith("spurmem "):
                with pytest.raises(SystemExit) as ended:
                    main(shlex.split(line)[1:])
                assert ended.value.code == 0, line
    assert "nobody" in capsys.readouterr().out.partition("Words that tell")[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning")  # an untrained network may be lucky
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "my_images" in "".join(blocks(page, "python")):
        make_synthbirds(tmp_path / "my_images", SynthbirdsSettings(train=80, val=16, test=16, image_size=32))
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})
