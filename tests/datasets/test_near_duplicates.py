"""Near-duplicates are found among many images, as by a comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spurious_memorization.datasets import near_duplicates
from spurious_memorization.datasets.near_duplicates import MAX_DISTANCE, nearest_matches, perceptual_hash


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 300, 2**16]))
@settings(max_examples=40, deadline=None)
def test_matches_are_those_of_all_pairs(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    others = rng.integers(0, values, (60, 16)).astype(np.uint16)
    flipped = np.zeros((40, 256), np.uint8)
    for row, n in zip(flipped, rng.integers(0, 40, 40), strict=True):
        row[rng.choice(256, n, replace=False)] = 1
    hashes = others[rng.integers(0, 60, 40)] ^ np.packbits(flipped, axis=1).view(np.uint16)
    nearest, distance = nearest_matches(hashes, others)
    bits = np.array([[sum(int(word).bit_count() for word in mine ^ other) for other in others] for mine in hashes])
    is_near = bits.min(1) <= MAX_DISTANCE
    np.testing.assert_array_equal(nearest >= 0, is_near)
    np.testing.assert_array_equal(distance[is_near], bits.min(1)[is_near])
    np.testing.assert_array_equal(bits[np.arange(40), nearest][is_near], bits.min(1)[is_near])


def test_many_equal_hashes_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 100)
    hashes = np.ones((50, 16), np.uint16)
    nearest, distance = nearest_matches(hashes, hashes[:7])
    assert (nearest >= 0).all()
    assert (distance == 0).all()


def test_flat_images_have_no_hash() -> None:
    rng = np.random.default_rng(0)
    for low, high, has_hash in ((100, 101, False), (100, 110, False), (60, 200, True)):
        image = Image.fromarray(rng.integers(low, high, (40, 40, 3), dtype=np.uint8))
        assert (perceptual_hash(image) is not None) == has_hash
