"""Groups: indices, counts, lift, and errors for unknown groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spurious_memorization.datasets.groups import Groups, group_counts, lift, majority_groups, minority_groups
from spurious_memorization.errors import UserError

shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@st.composite
def samples(draw: st.DrawFn) -> tuple[Groups, np.ndarray, np.ndarray]:
    n_classes, n_attributes = draw(shapes)
    pairs = draw(st.lists(st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_attributes - 1)), max_size=60))
    groups = Groups(tuple(f"c{i}" for i in range(n_classes)), tuple(f"a{i}" for i in range(n_attributes)))
    y, a = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return groups, y, a


@given(samples())
def test_group_index_and_counts(drawn: tuple[Groups, np.ndarray, np.ndarray]) -> None:
    groups, y, a = drawn
    g = groups.of(y, a)
    for label, value, group in zip(y.tolist(), a.tolist(), g.tolist(), strict=True):
        assert group == label * len(groups.attributes) + value
        assert groups.label_of(group) == label
        assert groups.names[group] == f"c{label} with a{value}"
        assert groups.index(groups.names[group]) == groups.index(group) == groups.index(str(group)) == group
    counts = group_counts(groups, g)
    assert counts.shape == (len(groups),)
    assert counts.sum() == len(y)
    assert counts.reshape(len(groups.classes), -1).sum(1).tolist() == [
        int((y == c).sum()) for c in range(len(groups.classes))
    ]


@given(samples())
def test_lift_is_observed_over_expected(drawn: tuple[Groups, np.ndarray, np.ndarray]) -> None:
    groups, y, a = drawn
    counts = group_counts(groups, groups.of(y, a))
    values = lift(groups, counts)
    for group in range(len(groups)):
        label, value = divmod(group, len(groups.attributes))
        expected = (y == label).sum() * (a == value).sum() / max(len(y), 1)
        if expected:
            assert values[group] == pytest.approx(counts[group] / expected)
        else:
            assert np.isnan(values[group])
    for group in minority_groups(groups, counts):
        assert counts[group] > 0
        assert values[group] < 0.5
    assert all(values[group] > 1 for group in majority_groups(groups, counts))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_lift_is_one_under_independence(labels: list[int], values: list[int]) -> None:
    groups = Groups(tuple(map(str, range(len(labels)))), tuple(map(str, range(len(values)))))
    counts = np.outer(labels, values).ravel().astype(np.int64)
    result = lift(groups, counts)
    np.testing.assert_allclose(result[counts > 0], 1)
    assert np.isnan(result[counts == 0]).all()
    assert minority_groups(groups, counts) == ()


def test_unknown_groups_are_rejected() -> None:
    groups = Groups(("finch", "gull"), ("wood", "sea"))
    for group in ("finch", "4", 4, -1):
        with pytest.raises(UserError, match=r"no group .*'finch with wood', .* or 0\.\.3"):
            groups.index(group)


def test_a_name_comes_before_a_number() -> None:
    groups = Groups(("1", "0"), ("only",), "{label}")
    assert (groups.index("1"), groups.index("0"), groups.index(1), groups.index(" 0 ")) == (0, 1, 1, 1)
    with pytest.raises(UserError, match="no group"):
        groups.index("9" * 5000)


def test_groups_have_different_names() -> None:
    for classes, attributes, template in (
        (("a", "a"), ("b",), "{label} with {attribute}"),
        (("a", "ab"), ("bc", "c"), "{label}{attribute}"),
        (("a", "b"), ("c", "d"), "{label}"),
    ):
        with pytest.raises(UserError, match="two groups have the name"):
            Groups(classes, attributes, template)
    assert Groups(("a", "b"), ("c",), "{{{label}}}").names == ("{a}", "{b}")
