"""Near-duplicates: images that look alike, though their files differ."""

from __future__ import annotations

from collections.abc import Iterator

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 16
MAX_DISTANCE = 15
"""Images are near-duplicates if at most this many of the 256 bits of their perceptual hashes differ."""
MIN_CONTRAST = 8.0
"""Standard deviation of the gray values (0..255) under which an image is too flat to be compared."""

_BANDS = 16
_PAIRS_AT_ONCE = 1 << 22


def perceptual_hash(image: Image.Image) -> NDArray[np.uint16] | None:
    """The perceptual hash (pHash) of an image, [16] words of 16 bits. None if the image is flat: those all agree."""
    gray = image.convert("L")
    if np.asarray(gray).std() < MIN_CONTRAST:
        return None
    bits = np.packbits(imagehash.phash(gray, hash_size=HASH_SIDE).hash.reshape(_BANDS, -1), axis=1)
    return bits.view(np.uint16).reshape(_BANDS)


def nearest_matches(
    hashes: NDArray[np.uint16], others: NDArray[np.uint16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each hash, the nearest of the other hashes within `MAX_DISTANCE`.

    Two hashes that differ in fewer bits than they have words agree in at least one word. So only those pairs are
    compared that agree in a word, which finds all matches.

    Arguments:
        hashes: [hashes, words].
        others: [others, words].

    Returns:
        The position among `others`, -1 if none is near, and the number of bits that differ, each [hashes].
    """
    nearest, distance = np.full(len(hashes), -1), np.full(len(hashes), MAX_DISTANCE + 1)
    for band in range(hashes.shape[1]):
        for mine, theirs in _agreeing(hashes[:, band], others[:, band]):
            bits = np.bitwise_count(hashes[mine, None] ^ others[None, theirs]).sum(2, dtype=np.int64)
            best = bits.argmin(1)
            found = bits[np.arange(len(mine)), best]
            nearer = found < distance[mine]
            nearest[mine[nearer]], distance[mine[nearer]] = theirs[best[nearer]], found[nearer]
    return nearest, distance


def _agreeing(
    words: NDArray[np.uint16], others: NDArray[np.uint16]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of equal words in both arrays, cut so that no piece has too many pairs."""
    order, other_order = np.argsort(words, kind="stable"), np.argsort(others, kind="stable")
    values = np.intersect1d(words, others)
    starts, ends = (np.searchsorted(words[order], values, side=side) for side in ("left", "right"))
    other_starts, other_ends = (np.searchsorted(others[other_order], values, side=side) for side in ("left", "right"))
    for start, end, other_start, other_end in zip(starts, ends, other_starts, other_ends, strict=True):
        theirs = other_order[other_start:other_end]
        step = max(1, _PAIRS_AT_ONCE // (len(theirs) * _BANDS))
        for first in range(start, end, step):
            yield order[first : min(first + step, end)], theirs
