"""Words of groups: planted words are found, plain numbers are those of SciPy, and chance is no finding."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, permutation_test

from spurious_memorization.datasets.groups import Groups
from spurious_memorization.statistics.word_associations import word_associations

GROUPS = Groups(("bird", "cat"), ("typical", "atypical"), "{label}, {attribute}")
WORDS = ("water", "grass", "snow", "a ruler")


def similarities(y: np.ndarray, a: np.ndarray, planted: dict[tuple[int, int], str], seed: int = 0) -> np.ndarray:
    """Cosine similarities of embeddings: the images of a group (label, attribute) lean toward their planted word."""
    rng = np.random.default_rng(seed)
    words = np.linalg.qr(rng.normal(size=(16, len(WORDS))))[0].T
    images = rng.normal(size=(len(y), 16))
    for (label, value), word in planted.items():
        images[(y == label) & (a == value)] += 1.5 * words[WORDS.index(word)]
    images += 3 * words[3] * (y == 1)[:, None]  # a word of the whole class says nothing about its groups
    return images / np.linalg.norm(images, axis=1, keepdims=True) @ words.T


def samples(n: int = 80, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.arange(n) % 2, (rng.random(n) < share).astype(np.int64)


def test_the_planted_word_comes_first_and_no_other_one_is_found() -> None:
    y, a = samples(200)
    planted = {(0, 1): "water", (1, 1): "snow", (1, 0): "grass"}
    found = word_associations(similarities(y, a, planted), WORDS, GROUPS, y, a, permutations=499, seed=0)
    first = found.groupby("group").first()
    assert first["word"].drop("bird, typical").to_dict() == {
        "bird, atypical": "water", "cat, atypical": "snow", "cat, typical": "grass",
    }  # fmt: skip
    fitting = found[found["fits_better"]]
    assert set(zip(fitting["group"], fitting["word"], strict=True)) == {
        ("bird, atypical", "water"), ("cat, atypical", "snow"), ("cat, typical", "grass"),
    }  # fmt: skip
    assert found.groupby("group")["difference"].is_monotonic_decreasing.all()


def test_differences_and_p_are_those_of_scipy() -> None:
    y, a = samples()
    values = similarities(y, a, {(0, 1): "water"})
    found = word_associations(values, WORDS, GROUPS, y, a, permutations=4999, seed=0).set_index(["group", "word"])
    for name, (label, value) in {"bird, atypical": (0, 1), "cat, typical": (1, 0)}.items():
        for w, word in enumerate(WORDS):
            own, others = (values[(y == label) & ((a == value) == is_own), w] for is_own in (True, False))
            expected = permutation_test(
                (own, others), lambda x, z, axis: x.mean(axis) - z.mean(axis), alternative="greater",
                n_resamples=4999, vectorized=True, rng=np.random.default_rng(0),
            )  # fmt: skip
            row = found.loc[(name, word)]
            assert row["n"] == len(own)
            assert row["difference"] == pytest.approx(expected.statistic)
            assert row["p"] == pytest.approx(expected.pvalue, abs=0.03)
    assert (found["p_adjusted"] >= found["p"]).all()


def test_chance_is_no_finding() -> None:
    alarms = 0
    for seed in range(100):
        y, a = samples(seed=seed)
        found = word_associations(similarities(y, a, {}, seed), WORDS, GROUPS, y, a, permutations=99, seed=seed)
        alarms += found["fits_better"].any()
    assert alarms <= binom.ppf(0.999, 100, 0.05)


def test_a_group_without_others_has_no_words() -> None:
    y, a = samples()
    a[y == 1] = 0
    found = word_associations(similarities(y, a, {}), WORDS, GROUPS, y, a, permutations=19, seed=0)
    assert set(found["group"]) == {"bird, atypical", "bird, typical"}
    assert word_associations(similarities(y, 0 * a, {}), WORDS, GROUPS, y, 0 * a, permutations=19, seed=0).empty
