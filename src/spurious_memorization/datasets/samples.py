"""Data sets and their samples: the data type that every part of the tool reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..together import Share
from .groups import Groups, group_counts, lift, majority_groups, minority_groups
from .loading import load_augmented_batches, load_batch, load_batches
from .settings import FOUND_COLUMNS, Columns
from .sources import Batch, Images, Noun, Source, noun_of
from .texts import Texts, Tokenization
from .transforms import ImageTransform

SPLITS = ("train", "val", "test")

LEFT_OUT = "left out"
"""Split of samples that take no part."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dataset:
    """A data set. Each sample has a label, a spurious attribute and a split.

    Arguments:
        name: name of the data set.
        groups: names and order of labels, attributes and groups.
        y: label of each sample, [samples].
        a: spurious attribute of each sample, [samples].
        split: "train", "val" or "test" for each sample, [samples].
        source: where the inputs come from.
        named_minority: minority groups that were chosen by name. If empty, the lift decides.
        named_majority: the same for majority groups.
        layout: the layout that was recognized on disk.
        split_seed: seed of the split, if it was made here; None if it was given.
        merged: names of the attribute values that were too small and became one value, the last one.
        columns: the columns that were named when the data were read.
    """

    name: str
    groups: Groups
    y: NDArray[np.int64]
    a: NDArray[np.int64]
    split: NDArray[np.str_]
    source: Source
    named_minority: tuple[int, ...] = ()
    named_majority: tuple[int, ...] = ()
    layout: str = "tensors"
    split_seed: int | None = None
    merged: tuple[str, ...] = ()
    columns: Columns = FOUND_COLUMNS

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {int((self.split == split).sum())}" for split in self.splits)
        return f"<Dataset {self.name}: {counts} samples, {len(self.groups)} groups>"

    @cached_property
    def g(self) -> NDArray[np.int64]:
        """Group of each sample, [samples]."""
        return self.groups.of(self.y, self.a)

    @property
    def train(self) -> Samples:
        return self.samples("train")

    @property
    def val(self) -> Samples:
        return self.samples("val")

    @property
    def test(self) -> Samples:
        return self.samples("test")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with at least one sample, in the order train, val, test."""
        return tuple(s for s in SPLITS if (self.split == s).any())

    def samples(self, split: str) -> Samples:
        """The samples of one split.

        Raises:
            UserError: the split is unknown or empty.
        """
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose among {', '.join(SPLITS)}")
        index = np.flatnonzero(self.split == split)
        if not len(index):
            raise UserError(
                f"the data set has no samples in split {split!r}: it has {', '.join(self.splits) or 'none'}"
            )
        return Samples(self, index, split)

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training count of each group, [groups]."""
        return group_counts(self.groups, self.g[self.split == "train"])

    @property
    def lift(self) -> NDArray[np.float64]:
        """Training lift of each group, [groups]."""
        return lift(self.groups, self.train_counts)

    @property
    def minority(self) -> tuple[int, ...]:
        """The minority groups: those chosen by name, otherwise those with a lift under 0.5."""
        return self.named_minority or minority_groups(self.groups, self.train_counts)

    @property
    def majority(self) -> tuple[int, ...]:
        """The majority groups: those chosen by name, otherwise those with a lift over 1. No named minority is one."""
        found = self.named_majority or majority_groups(self.groups, self.train_counts)
        return tuple(g for g in found if g not in self.named_minority)

    def counts(self) -> pd.DataFrame:
        """Number of samples of each group in each split.

        Returns:
            One row per group. The columns are group (its name), one column per split (train, val, test), lift, and
            role ("minority", "majority" or "").
        """
        frame = pd.DataFrame({"group": self.groups.names})
        for split in self.splits:
            frame[split] = group_counts(self.groups, self.g[self.split == split])
        frame["lift"] = self.lift
        minority, majority = self.minority, self.majority
        frame["role"] = [
            "minority" if g in minority else "majority" if g in majority else "" for g in range(len(self.groups))
        ]
        return frame

    @property
    def noun(self) -> Noun:
        """What sentences call a sample: "image", "text", or "sample" where it is neither."""
        return noun_of(self.source)

    @property
    def image_size(self) -> int | None:
        """Side of the square input in pixels. None for texts and tensors, and if no transform is chosen yet."""
        return self.transform.image_size if isinstance(self.transform, ImageTransform) else None

    @property
    def transform(self) -> ImageTransform | Tokenization | None:
        """From image or text to input. None for tensors, and if none is chosen yet."""
        match self.source:
            case Images(transform=transform):
                return transform
            case Texts(tokenization=tokenization):
                return tokenization
        return None

    def with_transform(self, transform: ImageTransform | Tokenization) -> Dataset:
        """The same samples with another transform. A data set of tensors is returned unchanged."""
        match self.source, transform:
            case Images() as images, ImageTransform():
                return replace(self, source=replace(images, transform=transform, given=None))
            case Texts() as texts, Tokenization():
                return replace(self, source=replace(texts, tokenization=transform))
        return self

    def with_minority(self, names: tuple[str, ...] | list[str]) -> Dataset:
        """The same samples with these groups as minority.

        Arguments:
            names: names of the minority groups; if empty, the lift decides.

        Raises:
            UserError: a group is unknown.
        """
        return replace(self, named_minority=tuple(self.groups.index(name) for name in names))

    def leaving_out(self, index: ArrayLike) -> Dataset:
        """The same samples in the same order, of which these belong to no split. The minority groups stay the same."""
        split = self.split.astype(object)
        split[np.asarray(index, dtype=np.int64)] = LEFT_OUT
        return replace(self, split=split.astype(str), named_minority=self.minority)

    def halves(self, seed: int) -> NDArray[np.int64]:
        """Divide each group of each split at random into two halves.

        Returns:
            The half of each sample, 0 or 1, [samples]. It depends only on `seed` and on the groups and splits.
        """
        rng = np.random.default_rng([seed, 0x4A1F])
        half = np.zeros(len(self), np.int64)
        for split in self.splits:
            for group in range(len(self.groups)):
                members = np.flatnonzero((self.split == split) & (self.g == group))
                half[rng.permutation(members)[: len(members) // 2]] = 1
        return half

    def fingerprint(self) -> str:
        """SHA-256 of labels, attributes, splits, names and inputs: the paths and sizes of image files, or the texts."""
        digest = hashlib.sha256(repr((self.groups.classes, self.groups.attributes)).encode())
        digest.update(np.ascontiguousarray(np.stack([self.y, self.a])).tobytes())
        digest.update("\0".join(self.split.tolist()).encode())
        digest.update(self.source.fingerprint().encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Samples of one split of a data set.

    Arguments:
        dataset: the data set.
        index: index of each sample in the data set, [samples].
        split: name of the split.
    """

    dataset: Dataset
    index: NDArray[np.int64]
    split: str

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"<Samples of {self.dataset.name}: {len(self)} in {self.split}>"

    @property
    def y(self) -> NDArray[np.int64]:
        return self.dataset.y[self.index]

    @property
    def g(self) -> NDArray[np.int64]:
        return self.dataset.g[self.index]

    def of_group(self, group: str | int) -> Samples:
        """The samples of one group, by name or number.

        Raises:
            UserError: the group is unknown, or it has no samples here.
        """
        number = self.dataset.groups.index(group)
        chosen = self.index[self.g == number]
        if not len(chosen):
            raise UserError(
                f"group {self.dataset.groups.names[number]!r} has no samples in split {self.split!r}: "
                "choose another group or split"
            )
        return replace(self, index=chosen)

    def of_half(self, half: int | None, seed: int) -> Samples:
        """The samples in one half of `Dataset.halves`. If `half` is None, all samples."""
        return self if half is None else replace(self, index=self.index[self.dataset.halves(seed)[self.index] == half])

    def at(self, index: ArrayLike) -> Samples:
        """The samples with these indices in the data set, in this order."""
        return replace(self, index=np.asarray(index, dtype=np.int64))

    def part(self, positions: range) -> Samples:
        """The samples at these positions among these samples."""
        return replace(self, index=self.index[positions.start : positions.stop])

    def per_group(self, n: int, seed: int) -> Samples:
        """At most `n` random samples of each group, drawn with `seed` and sorted by index."""
        rng = np.random.default_rng([seed, 0x9E3779B9])
        kept = []
        for group in range(len(self.dataset.groups)):
            members = self.index[self.g == group]
            kept.append(rng.permutation(members)[:n])
        return self.at(np.sort(np.concatenate(kept)))

    def batch(self) -> Batch:
        """All samples as one batch."""
        return load_batch(self.dataset.source, self.dataset.y, self.index)

    def batches(self, batch_size: int, workers: int = 0, share: Share | None = None) -> Iterator[Batch]:
        """Load the samples in order.

        Arguments:
            batch_size: samples per batch. The last batch has one more if a single sample would be left over.
            workers: number of processes that load batches; 0 loads them in this process.
            share: load the inputs of this part of each batch only; labels and indices are those of the whole batch.

        Raises:
            UserError: an image is missing or can't be decoded.
        """
        return load_batches(self.dataset.source, self.dataset.y, self.index, batch_size, workers, share or Share())

    def shuffled(self, seed: int, epoch: int) -> Samples:
        """The samples in a random order that depends only on `seed` and `epoch`."""
        return replace(self, index=np.random.default_rng([seed, epoch]).permutation(self.index))

    def augmented_batches(
        self, batch_size: int, seed: int, epoch: int, workers: int = 0, share: Share | None = None
    ) -> Iterator[Batch]:
        """Load the samples in order, augmented.

        The augmentation of a sample depends only on `seed`, `epoch`, the sample's index and, if the sample occurs
        several times, on the number of its earlier occurrences.

        Arguments:
            batch_size: samples per batch. The last batch has one more if a single sample would be left over.
            seed: seed of the augmentation.
            epoch: epoch of the training; each epoch is augmented differently.
            workers: as for `batches`.
            share: as for `batches`.

        Raises:
            UserError: an image is missing or can't be decoded.
        """
        source, y, share = self.dataset.source, self.dataset.y, share or Share()
        return load_augmented_batches(source, y, self.index, batch_size, workers, share, seed=seed, epoch=epoch)


def checked_samples(samples: object) -> Samples:
    """Samples of one split; also those of a data set that has only one.

    Raises:
        UserError: a data set has several splits, there are no samples, or this is something else.
    """
    if isinstance(samples, Dataset):
        if len(samples.splits) > 1:
            raise UserError(f"{samples!r} has several splits: choose the samples of one, such as data.train")
        samples = samples.samples(next(iter(samples.splits), "train"))
    if not isinstance(samples, Samples):
        raise UserError(f"the samples are a {type(samples).__name__}: make them by sm.from_tensors(x, y, a).train")
    if not len(samples):
        raise UserError("there are no samples: choose another split or group")
    return samples


def checked_dataset(data: object) -> Dataset:
    """A data set.

    Raises:
        UserError: these are the samples of one split, or something else.
    """
    if isinstance(data, Samples):
        raise UserError(f"{data!r} are the samples of one split: give the whole data set, samples.dataset")
    if not isinstance(data, Dataset):
        raise UserError(f"the data set is a {type(data).__name__}: make one by sm.from_tensors or sm.read_data")
    return data
