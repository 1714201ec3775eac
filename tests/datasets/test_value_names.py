"""What the values of a column stand for: names, or positions in the names of dataset.yaml."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spurious_memorization.datasets.value_names import check_names, encode
from spurious_memorization.errors import UserError

Capture = pytest.CaptureFixture[str]


def meaning(values: list[str], names: tuple[str, ...] | None = None) -> list[str]:
    """The name that each value gets."""
    codes, found = encode(pd.Series(values, name="y", dtype=object), names)
    return [found[code] for code in codes]


def refusal(values: list[str], names: tuple[str, ...] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        meaning(values, names)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


@given(st.lists(st.integers(-5, 12), min_size=1))
def test_whole_numbers_keep_their_order(numbers: list[int]) -> None:
    codes, names = encode(pd.Series(list(map(str, numbers)), name="y", dtype=object))
    assert names == tuple(map(str, sorted(set(numbers))))
    assert [int(names[code]) for code in codes] == numbers


@given(st.lists(st.sampled_from(["dog", "cat", "None", "NA", "null", "nan", "Möwe"]), min_size=1))
def test_words_are_names_in_alphabetical_order(words: list[str]) -> None:
    codes, names = encode(pd.Series(words, name="y", dtype=object))
    assert names == tuple(sorted(set(words)))
    assert [names[code] for code in codes] == words


def test_one_number_in_several_spellings_is_one_name() -> None:
    assert meaning(["1", "1.0", "+1", "01", "1.", "0", "-0"]) == ["1", "1", "1", "1", "1", "0", "0"]
    assert meaning(["dog", "1.0", "1"]) == ["dog", "1", "1"]
    assert meaning(["Mo\u0308we", "M\u00f6we"]) == ["Möwe", "Möwe"]


@pytest.mark.parametrize("number", ["0.5", "1e20", "1e3", "inf", "-Infinity", "9" * 100, ".5"])
def test_numbers_that_are_not_whole_are_names_only_if_they_are_listed(number: str) -> None:
    assert "use whole numbers or names" in refusal(["0", number])
    assert meaning(["dog", number], ("dog", number)) == ["dog", number]


@pytest.mark.parametrize("gap", ["nan", "NaN", "NA", "None", "null", "<NA>"])
def test_words_for_missing_values_among_numbers_are_gaps(gap: str) -> None:
    assert "among numbers: fill it in" in refusal(["0", "1", gap])
    assert meaning(["0", "1", gap], ("0", "1", gap)) == ["0", "1", gap]


def test_numbers_are_names_if_all_of_them_are_listed(capsys: Capture) -> None:
    assert meaning(["0", "1"], ("1", "0")) == ["0", "1"]
    assert meaning(["1", "2"], ("1", "2", "3")) == ["1", "2"]
    assert meaning(["3", "8.0"], ("3", "8")) == ["3", "8"]
    assert "the numbers are the names 3, 8, not positions" in capsys.readouterr().err


def test_numbers_are_positions_if_they_are_no_names(capsys: Capture) -> None:
    assert meaning(["1", "0.0"], ("dog", "cat")) == ["cat", "dog"]
    assert meaning(["True", "False"], ("dog", "cat")) == ["cat", "dog"]
    assert not capsys.readouterr().err
    assert meaning(["0", "1"], ("1", "2")) == ["1", "2"]
    assert "the numbers are positions, from 0, in 1, 2" in capsys.readouterr().err


def test_values_that_stand_for_nothing_are_refused() -> None:
    assert "contains 7, which is none of dog, cat, or 0..1" in refusal(["0", "7"], ("dog", "cat"))
    assert "contains -1" in refusal(["0", "-1"], ("dog", "cat"))
    assert "contains Dog" in refusal(["Dog", "cat"], ("dog", "cat"))
    assert "mixes names and positions" in refusal(["dog", "1"], ("dog", "cat"))
    assert "has no value in row 1" in refusal(["dog", ""])
    assert "10,000 characters" in refusal(["dog", "x" * 10_000])
    assert "control character" in refusal(["dog", "a\nb"])


def test_names_are_different_and_sensible() -> None:
    assert check_names([" dog", "cat "]) == ("dog", "cat")
    for names, message in (
        (["dog", "dog "], "'dog' is given twice"),
        (["1", "1.0"], "is given twice"),
        ([""], "is empty"),
        (["x" * 201], "201 characters"),
        (["a\0"], "control character"),
    ):
        with pytest.raises(ValueError, match=message):
            check_names(names)
