"""Texts in a chart: every word stands at its place, and exactly the marked letters are underlined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spurious_memorization.reporting.figures.marked_texts import LINE_LENGTH, MAX_LINES, text_rows
from spurious_memorization.reporting.gallery.word_changes import WordChange

WORDS = st.lists(st.text("abc.,", min_size=1, max_size=30), min_size=1, max_size=60)


@given(st.lists(WORDS, min_size=1, max_size=2), st.data())
def test_words_keep_their_order_and_underlines_their_letters(parts: list[list[str]], data: st.DataObject) -> None:
    texts = [" ".join(words) for words in parts]
    part = data.draw(st.integers(0, len(texts) - 1))
    number = data.draw(st.integers(0, len(parts[part]) - 1))
    start = len(" ".join([*parts[part][:number], ""]))
    change = data.draw(st.sampled_from((-1.0, 1.0)))
    marked = WordChange(part, start, start + len(parts[part][number]), change)
    rows, after = text_rows(texts, [marked], 3.0)
    words = [row for row in rows if row["kind"] == "word"]
    cut = [row for row in words if row["text"] == "..."]
    if not cut:
        assert [row["text"] for row in words] == " ".join(texts).split()
    places = [(row["row"], row["column"]) for row in words]
    assert places == sorted(set(places))
    assert all(row["column"] + len(row["text"]) <= LINE_LENGTH for row in words if row not in cut)
    assert 3.0 < after <= 3.0 + MAX_LINES * len(texts)
    lines = [row for row in rows if row["kind"] == "underline"]
    assert len(lines) == (0 if cut and not lines else 2 if change < 0 else 1)
    for line in lines:
        above = [row for row in words if row["row"] == int(line["row"]) and row["column"] == line["column"]]
        assert [row["text"] for row in above] == [parts[part][number]]
        assert line["end"] - line["column"] == len(parts[part][number])


def test_a_mark_is_only_below_its_letters() -> None:
    rows, _ = text_rows(['Then "nobody", they say'], [WordChange(0, 6, 12, 0.5)], 0.0)
    (line,) = [row for row in rows if row["kind"] == "underline"]
    assert (line["column"], line["end"]) == (6, 12)


def test_long_texts_are_cut() -> None:
    rows, after = text_rows(["word " * 1000], [], 0.0)
    assert after == MAX_LINES
    assert rows[-1]["text"] == "..."
    assert max(row["row"] for row in rows) == MAX_LINES - 1


def test_a_word_longer_than_a_line_is_broken() -> None:
    rows, after = text_rows(["x" * (LINE_LENGTH + 5)], [], 0.0)
    assert [len(row["text"]) for row in rows] == [LINE_LENGTH, 5]
    assert after == 2
