"""Input files: what counts as a regular, readable file, and what a message says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spurious_memorization.errors import UserError
from spurious_memorization.input_files import read_text, regular_file, shown


def refusal(path: str | Path, **options: int) -> str:
    with pytest.raises(UserError) as caught:
        regular_file(path, **options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    return str(caught.value)


def test_a_regular_file_is_given_back(tmp_path: Path) -> None:
    file, link = tmp_path / "a file", tmp_path / "link"
    file.write_bytes(b"1234")
    link.symlink_to(file)
    assert regular_file(file) == regular_file(str(file), max_bytes=4) == file
    assert regular_file(link) == link


def test_everything_else_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_bytes(b"12345")
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "does not exist" in refusal(tmp_path / "dangling")
    assert "is a folder" in refusal(tmp_path)
    assert "pipe or a device" in refusal(tmp_path / "pipe")
    assert "pipe or a device" in refusal("/dev/zero")
    assert "5 bytes, more than the 4 allowed" in refusal(tmp_path / "file", max_bytes=4)
    for odd in ("loop", "x" * 5000, "a\0b", "a\nb", "\ud800", "file/below"):
        refusal(tmp_path / odd)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o000)
    assert "permission denied" in refusal(tmp_path / "secret")


def test_a_message_shows_any_name_in_one_short_line() -> None:
    assert shown("a name") == "a name"
    assert shown("a\nb\0") == r"'a\nb\x00'"
    assert len(shown("x" * 10_000)) < 200


def test_text_is_decoded_by_its_mark_or_as_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "text"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        file.write_bytes("Möwe\n".encode(encoding))
        assert read_text(file, max_bytes=100) == "Möwe\n"


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "text"
    for content, message in (
        ("a\nMöwe\n".encode("cp1252"), "is not utf-8 in line 2, it is probably cp1252"),
        ("a\nMöwe\n".encode("utf-16-le"), "NUL byte in line 1, as UTF-16 without a mark"),
        ("a".encode("utf-16") + b"b", "is not utf-16 in line 1"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_text(file, max_bytes=100)
