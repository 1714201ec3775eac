"""YAML files: plain values as they are written, and one line for everything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spurious_memorization.errors import UserError
from spurious_memorization.yaml_files import read_yaml


def read(place: Path, text: str | bytes) -> Any:
    file = place / "options.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(file, "epochs: 12")


def refusal(place: Path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(place, text)
    message = str(caught.value)
    assert message.isprintable()
    assert "options.yaml" in message
    return message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("-.5", -0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("NA", "NA"),
        ("None", "None"),
        ("12:30", "12:30"),
        ("2024-02-31", "2024-02-31"),
        ("007", "007"),
        ("0x10", "0x10"),
        ("9" * 5000, "9" * 5000),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("[a, 1, [b]]", ["a", 1, ["b"]]),
        ("{b: 1, c: {d: e}}", {"b": 1, "c": {"d": "e"}}),
        ("<<", "<<"),
        ('"caf\\u00e9"', "café"),
    ],
)
def test_values_are_what_is_written(tmp_path: Path, written: str, value: Any) -> None:
    got = read(tmp_path, f"a: {written}\n")["a"]
    assert got == value
    assert type(got) is type(value)


def test_the_mark_of_an_encoding_is_understood(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert read(tmp_path, "name: Vögel\n".encode(encoding)) == {"name": "Vögel"}


def test_an_empty_file_has_no_entries(tmp_path: Path) -> None:
    assert read(tmp_path, "") == read(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 1000 + "]" * 1000, "more than 20 levels"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "more than 20 levels"),
        ("a: {1: b}", "in line 1: a name is not text"),
        ("a: 1\ntrue: b", "in line 2: a name is not text"),
        ("? [a, b]\n: c", "a name is not text"),
        ("epochs: 1\nlr: 2\nepochs: 3", "in line 3: 'epochs' is given twice"),
        ("a: !!int x", "tags (!)"),
        ("a: !!timestamp x", "tags (!)"),
        ("a: !!python/object/apply:os.system [ls]", "tags (!)"),
        ("a: &b [1, 2]\nc: *b", "anchors and aliases"),
        ("a: &a [*a]", "anchors and aliases"),
        ('a: "\\ud800"', "control character"),
        ('a: "\\0"', "control character"),
        ("a: [1", "not valid YAML in line 1"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("- a\n- b", "must contain entries such as `epochs: 12`"),
        ("just words", "must contain entries"),
        ("a: b: c", "not valid YAML in line 1"),
        (b"a: \xe9", "is not utf-8 in line 1, it is probably cp1252"),
        (b"a\0:\0 \0b\0", "NUL byte"),
        (b"a: \x07", "not valid YAML"),
        (b"#" * (1 << 21), "bytes, more than the"),
    ],
)
def test_everything_else_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "options.yaml")
    for file in (tmp_path / "options.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError, match=r"regular file|is a folder"):
            read_yaml(file, "epochs: 12")


@given(st.text(alphabet=st.sampled_from("ab1:-[]{}&*!?|>'\"#%@`,~ \n\t\\.0e"), max_size=40))
def test_any_text_gives_entries_or_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    (file := tmp_path_factory.getbasetemp() / "any.yaml").write_text(text)
    try:
        entries = read_yaml(file, "epochs: 12")
    except UserError as error:
        entries, message = {}, str(error)
        assert message.isprintable()
    assert all(isinstance(name, str) for name in entries)
