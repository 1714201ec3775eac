"""Group-annotated samples: the one data type that every part of the tool reads."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import UserError
from .groups import Groups, group_counts, lift, majority_groups, minority_groups
from .sources import Batch, Images, Inputs, Source, Tensors
from .transforms import ImageTransform

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples with a label, a spurious attribute and a split each.

    Arguments:
        name: of the data set.
        groups: names and order of labels, attributes and groups.
        y: label of each sample, [samples].
        a: spurious attribute of each sample, [samples].
        split: "train", "val" or "test" for each sample, [samples].
        source: where the inputs come from.
        named_minority: minority groups fixed by name; empty means by lift.
        layout: the layout that was recognized on disk.
        split_seed: the seed of the split where none was given.
    """

    name: str
    groups: Groups
    y: NDArray[np.int64]
    a: NDArray[np.int64]
    split: NDArray[np.str_]
    source: Source
    named_minority: tuple[int, ...] = ()
    layout: str = "tensors"
    split_seed: int | None = None

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
        """The splits that have samples, in the order train, val, test."""
        return tuple(s for s in SPLITS if (self.split == s).any())

    def samples(self, split: str) -> Samples:
        """The samples of one split.

        Raises:
            UserError: there is no such split, or it is empty.
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
        """Minority groups: the named ones, otherwise those with a lift under 0.5."""
        return self.named_minority or minority_groups(self.groups, self.train_counts)

    @property
    def majority(self) -> tuple[int, ...]:
        """Majority groups: lift over 1 and not named a minority."""
        return tuple(g for g in majority_groups(self.groups, self.train_counts) if g not in self.named_minority)

    def counts(self) -> pd.DataFrame:
        """Samples of every group: one row a group, with the columns group (its name), one a split (train, val, test),
        lift and role ("minority", "majority" or "")."""
        frame = pd.DataFrame({"group": self.groups.names})
        for split in self.splits:
            frame[split] = group_counts(self.groups, self.g[self.split == split])
        frame["lift"] = self.lift
        frame["role"] = [
            "minority" if g in self.minority else "majority" if g in self.majority else ""
            for g in range(len(self.groups))
        ]
        return frame

    @property
    def image_size(self) -> int | None:
        """Side of the square input in pixels; None for tensors, and where no transform is chosen yet."""
        transform = self.source.transform if isinstance(self.source, Images) else None
        return transform.image_size if transform is not None else None

    def with_transform(self, transform: ImageTransform) -> Dataset:
        """The same samples with another transform; data without images stay as they are."""
        if not isinstance(self.source, Images):
            return self
        return replace(self, source=replace(self.source, transform=transform))

    def with_minority(self, names: tuple[str, ...] | list[str]) -> Dataset:
        """The same samples with these groups as the minority ones.

        Raises:
            UserError: no group has such a name.
        """
        return replace(self, named_minority=tuple(self.groups.index(name) for name in names))

    def halves(self, seed: int) -> NDArray[np.int64]:
        """0 or 1 for each sample, [samples]: each group of each split cut into two halves at random, with `seed`."""
        rng = np.random.default_rng([seed, 0x4A1F])
        half = np.zeros(len(self), np.int64)
        for split in self.splits:
            for group in range(len(self.groups)):
                members = np.flatnonzero((self.split == split) & (self.g == group))
                half[rng.permutation(members)[: len(members) // 2]] = 1
        return half

    def fingerprint(self) -> str:
        """SHA-256 over labels, attributes, splits, names and the inputs (for images: their names and sizes)."""
        digest = hashlib.sha256(repr((self.groups.classes, self.groups.attributes)).encode())
        digest.update(np.ascontiguousarray(np.stack([self.y, self.a])).tobytes())
        digest.update("\0".join(self.split.tolist()).encode())
        digest.update(self.source.fingerprint().encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Some samples of a data set, all of one split.

    Arguments:
        dataset: where they belong.
        index: their indices in it, [samples].
        split: its name.
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
            UserError: there is no such group, or it has no sample here.
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
        """The samples of one half of `Dataset.halves`; all of them for None."""
        return self if half is None else replace(self, index=self.index[self.dataset.halves(seed)[self.index] == half])

    def at(self, index: ArrayLike) -> Samples:
        """The samples with these indices of the data set, in this order."""
        return replace(self, index=np.asarray(index, dtype=np.int64))

    def part(self, positions: range) -> Samples:
        """The samples at these positions."""
        return replace(self, index=self.index[positions.start : positions.stop])

    def per_group(self, n: int, seed: int) -> Samples:
        """At most `n` samples of each group, drawn at random with `seed`, in the order of their indices."""
        rng = np.random.default_rng([seed, 0x9E3779B9])
        kept = []
        for group in range(len(self.dataset.groups)):
            members = self.index[self.g == group]
            kept.append(rng.permutation(members)[:n])
        return self.at(np.sort(np.concatenate(kept)))

    def batch(self) -> Batch:
        """All samples as one batch."""
        return _batch(self.dataset, self.index, self.dataset.source.load(self.index))

    def batches(self, batch_size: int, workers: int = 0) -> Iterator[Batch]:
        """The samples in order, `batch_size` at a time, loaded by `workers` further processes (0: by this one)."""
        yield from _loaded(_Chunks(self.dataset, _cut(self.index, batch_size)), workers)

    def shuffled(self, seed: int, epoch: int) -> Samples:
        """The samples in an order that depends on `seed` and `epoch` alone."""
        return replace(self, index=np.random.default_rng([seed, epoch]).permutation(self.index))

    def augmented_batches(self, batch_size: int, seed: int, epoch: int, workers: int = 0) -> Iterator[Batch]:
        """As `batches`, augmented with draws that depend on `seed`, `epoch`, sample index and, where a sample comes up
        several times, which time it is."""
        times = _cut(_times_before(self.index), batch_size)
        yield from _loaded(_Chunks(self.dataset, _cut(self.index, batch_size), (seed, epoch), times), workers)


def _batch(dataset: Dataset, index: NDArray[np.int64], inputs: Inputs) -> Batch:
    return Batch(inputs, torch.from_numpy(dataset.y[index]), torch.tensor(index))


def _stacked(loaded: list[Inputs]) -> Inputs:
    first = loaded[0]
    if isinstance(first, Tensor):
        return torch.stack([x for x in loaded if isinstance(x, Tensor)])
    return {name: torch.stack([x[name] for x in loaded if isinstance(x, Mapping)]) for name in first}


def _cut(index: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of `size`; a rest of one sample joins the batch before it, since batch norm can't train on one."""
    starts = list(range(0, len(index), size))
    if size > 1 and len(starts) > 1 and len(index) - starts[-1] == 1:
        starts.pop()
    return [index[start:end] for start, end in zip(starts, [*starts[1:], len(index)], strict=True)]


def _times_before(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry came up before it, [entries]."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], index[order])
    times = np.empty_like(index)
    times[order] = np.arange(len(index)) - starts
    return times


@dataclass(frozen=True)
class _Chunks(torch.utils.data.Dataset[Batch | UserError]):
    """Batches by number, so that worker processes can load whole ones; an error is an item, which crosses processes
    as it is."""

    dataset: Dataset
    chunks: list[NDArray[np.int64]]
    augmentation: tuple[int, int] | None = None
    times: list[NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch | UserError:
        index = self.chunks[number]
        try:
            return _batch(self.dataset, index, self._inputs(number))
        except UserError as error:
            return error

    def _inputs(self, number: int) -> Inputs:
        source, index = self.dataset.source, self.chunks[number]
        if self.augmentation is None or self.times is None:
            return source.load(index)
        occurrences = zip(index.tolist(), self.times[number].tolist(), strict=True)
        return _stacked(
            [source.load_augmented(i, _seed(*self.augmentation, i, *([n] if n else []))) for i, n in occurrences]
        )


def _loaded(chunks: _Chunks, workers: int) -> Iterator[Batch]:
    # A generator of its own: otherwise each pass would draw from torch's global random state.
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=_as_it_is,
        multiprocessing_context=_context() if workers and chunks.augmentation else None,
    )
    for item in loader:
        if isinstance(item, UserError):
            raise item
        yield item


@cache
def _context() -> BaseContext:
    """Processes that aren't forked from this one: training has started threads, which a fork would leave hanging."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _as_it_is(item: Any) -> Any:
    return item


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def from_tensors(
    x: Inputs,
    y: ArrayLike,
    a: ArrayLike,
    split: ArrayLike | None = None,
    *,
    classes: tuple[str, ...] | None = None,
    attributes: tuple[str, ...] | None = None,
) -> Dataset:
    """A data set from tensors.

    Arguments:
        x: inputs, [samples, ...], or a mapping of such tensors (each is passed to the network by its name).
        y: labels 0, 1, ..., [samples].
        a: spurious attribute values 0, 1, ..., [samples].
        split: "train", "val" or "test" for each sample; all "train" if not given.
        classes: names of the labels; numbers if not given.
        attributes: names of the attribute values; numbers if not given.

    Raises:
        UserError: the lengths differ, or a label or attribute is no index from 0.

    Example:
        ```python
        samples = sm.from_tensors(torch.randn(8, 3, 16, 16), y=[0, 1] * 4, a=[0, 0, 1, 1] * 2)
        ```
    """
    labels, values = _indices(y, "y", classes), _indices(a, "a", attributes)
    n = len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))
    splits = np.full(n, "train") if split is None else np.asarray(split, dtype=str)
    if not n == len(labels) == len(values) == len(splits):
        raise UserError(f"x, y, a and split must be equally long, not {n}, {len(labels)}, {len(values)}, {len(splits)}")
    if unknown := sorted(set(splits.tolist()) - set(SPLITS)):
        raise UserError(f"unknown split {unknown[0]!r}: choose among {', '.join(SPLITS)}")
    groups = Groups(
        classes or tuple(map(str, range(int(labels.max(initial=0)) + 1))),
        attributes or tuple(map(str, range(int(values.max(initial=0)) + 1))),
    )
    return Dataset("tensors", groups, labels, values, splits, Tensors(x))


def _indices(values: ArrayLike, name: str, names: tuple[str, ...] | None) -> NDArray[np.int64]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer) or (len(array) and array.min() < 0):
        raise UserError(f"{name} must hold whole numbers from 0: use read_data for names")
    if names is not None and len(array) and array.max() >= len(names):
        raise UserError(f"{name} holds {array.max()} but only {len(names)} names are given")
    return array.astype(np.int64)
