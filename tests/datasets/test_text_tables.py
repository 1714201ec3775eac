"""Tables as text: every cell as it is written, whatever the separator, the quotes and the encoding."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spurious_memorization.datasets.text_tables import header_of, place, read_text_table
from spurious_memorization.errors import UserError

Capture = pytest.CaptureFixture[str]


def read(folder: Path, content: str | bytes) -> pd.DataFrame:
    file = folder / "metadata.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_text_table(file)


def refusal(folder: Path, content: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, content)
    assert str(caught.value).isprintable()
    return str(caught.value)


def rows(frame: pd.DataFrame) -> list[list[str]]:
    return [list(frame.columns), *frame.to_numpy().tolist()]


# CSV

words = st.sampled_from(["", "None", "NA", "null", "nan", "NaN", "N/A", "1", "1.0", "01", "-1", "1e20", "True", "Möwe"])
names = words | st.text(st.sampled_from("ab é,;|\t'\"#=0\n\u3000\xa0"), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    table=st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(names, min_size=n, max_size=n), max_size=6)),
    separator=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    blanks=st.sampled_from(["", " ", "  "]),
    quote_all=st.booleans(),
    trailing=st.booleans(),
    empty_lines=st.booleans(),
)
def test_cells_are_what_was_written(
    tmp_path: Path,
    table: list[list[str]],
    separator: str,
    newline: str,
    encoding: str,
    blanks: str,
    quote_all: bool,
    trailing: bool,
    empty_lines: bool,
) -> None:
    """Written in every way a spreadsheet may write; what comes back are the cells without blanks around them."""

    def written(cell: str) -> str:
        quoted = quote_all or any(sign in cell for sign in (separator, '"', "\n"))
        return '"' + cell.replace('"', '""') + '"' if quoted else cell

    header = [f"c{i}" for i in range(len(table[0]) if table else 2)]
    lines = [(separator + blanks).join(map(written, row)) + separator * trailing for row in [header, *table]]
    text = ("\n\n" if empty_lines else "\n").join(lines)
    (tmp_path / "metadata.csv").write_bytes(text.replace("\n", newline).encode(encoding))
    stripped = [[cell.strip() for cell in row] for row in table]
    assert rows(read_text_table(tmp_path / "metadata.csv")) == [header, *(row for row in stripped if any(row))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.sampled_from('ab1,;"\n \t'), max_size=40))
def test_any_text_is_read_as_pythons_csv_module_reads_it_or_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "metadata.csv"
    file.write_text("x,y,z,w,v\n" + text)
    expected = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), skipinitialspace=True)]
    expected = [row for row in expected if any(row)]
    try:
        got = rows(read_text_table(file))[1:]
    except UserError as error:
        message = str(error)
        assert message.isprintable()
        assert '"' in text or any(len(row) < 5 or any(row[5:]) for row in expected)
    else:
        assert got == [row[:5] for row in expected]


def test_no_word_counts_as_empty(tmp_path: Path) -> None:
    frame = read(tmp_path, "path,y\na.png,None\nb.png,NA\nc.png,null\nd.png,nan\ne.png,\n")
    assert frame["y"].tolist() == ["None", "NA", "null", "nan", ""]


def test_cells_and_lines_are_named_as_an_editor_shows_them(tmp_path: Path) -> None:
    frame = read(tmp_path, 'path , y\n\n "a, b.png", cat \n x.png,"1"\n\n')
    assert rows(frame) == [["path", "y"], ["a, b.png", "cat"], ["x.png", "1"]]
    assert place(frame["y"], 1) == "metadata.csv, line 4"


def test_columns_without_a_name_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    assert rows(read(tmp_path, ",path,y\n0,a.png,cat\n1,b.png,dog\n")) == [
        ["path", "y"],
        ["a.png", "cat"],
        ["b.png", "dog"],
    ]
    assert "column without a name is left out" in capsys.readouterr().err
    assert header_of(tmp_path / "metadata.csv") == ("path", "y")


def test_another_separator_is_announced(tmp_path: Path, capsys: Capture) -> None:
    assert rows(read(tmp_path, "path;y\na,b.png;1\n")) == [["path", "y"], ["a,b.png", "1"]]
    assert "separated by semicolons" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        (" \n,,,\n", "it is empty"),
        ("path,y\na.png,1\nb.png\n", "line 3: 1 cells, but the header has 2"),
        ("path,y\na.png,1,2\n", "line 2: 3 cells, but the header has 2"),
        ("path,y,\na.png,1,2\n", "line 2: 3 cells, but the header has 2"),
        ("path,y, y\na.png,1,1\n", "two columns 'y'"),
        ('path,y\n"a.png,1\nb.png,1\n', "can't be read as a table: line 3"),
        ('path,y\n"a"b.png,1\n', "can't be read as a table: line 2"),
        ("path,y\n" + "x" * 200_000 + ",1\n", "line 2: field larger than"),
        ("path,y\na.png,Möwe\n".encode("cp1252"), "is not utf-8 in line 2, it is probably cp1252"),
        ("path,y\na.png,1\n".encode("utf-16-le"), "NUL byte in line 1"),
        (b"path,y\na\0.png,1\n", "NUL byte in line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, content)


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    for name in ("metadata.csv", "metadata.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="pipe or a device"):
            read_text_table(tmp_path / name)


# Parquet


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["None", " NA ", "nan", None], ["None", "NA", "nan", ""]),
        (pd.Categorical(["dog", "cat", None]), ["dog", "cat", ""]),
        (pd.Categorical([3, 8, 3]), ["3", "8", "3"]),
        ([True, False], ["True", "False"]),
        (np.array([0, 255], np.uint8), ["0", "255"]),
        (np.array([0.0, 1.0, np.nan, 0.5, np.inf], np.float32), ["0", "1", "", "0.5", "inf"]),
        (np.array([1e20, -1]), ["1e+20", "-1"]),
        (pd.array([2**60 + 1, None], dtype="Int64"), [str(2**60 + 1), ""]),
        (pd.array([True, None], dtype="boolean"), ["True", ""]),
        (pd.array(["x", None], dtype="string"), ["x", ""]),
    ],
)
def test_parquet_columns_mean_what_a_csv_file_would_say(tmp_path: Path, values: Any, text: list[str]) -> None:
    file = tmp_path / "metadata.parquet"
    pd.DataFrame({"y": values}).to_parquet(file)
    assert read_text_table(file)["y"].tolist() == text


def test_the_index_of_a_parquet_file_is_a_column_if_it_has_a_name(tmp_path: Path) -> None:
    frame, file = pd.DataFrame({"path": ["a", "b", "c"], " y": [0, 1, 1]}), tmp_path / "metadata.parquet"
    frame.set_index("path").to_parquet(file)
    assert sorted(read_text_table(file).columns) == ["path", "y"]
    frame[1:].to_parquet(file)
    assert rows(read_text_table(file)) == [["path", "y"], ["b", "1"], ["c", "1"]]
    assert place(read_text_table(file)["y"], 1) == "metadata.parquet, row 2"


def test_parquet_columns_of_lists_and_bytes_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    pq.write_table(pa.table({"y": ["a"], "features": [[1.0, 2.0]], "raw": [b"x"]}), tmp_path / "metadata.parquet")
    assert list(read_text_table(tmp_path / "metadata.parquet").columns) == ["y"]
    assert "left out, since they hold no text or numbers: features, raw" in capsys.readouterr().err


def test_broken_parquet_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "metadata.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["y", " y"]), file)
    with pytest.raises(UserError, match="two columns 'y'"):
        read_text_table(file)
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-10], whole[: len(whole) // 2], whole[:4] + whole[40:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="can't be read as a table"):
            read_text_table(file)
