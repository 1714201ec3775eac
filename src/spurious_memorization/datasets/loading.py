"""Load samples batch by batch, in this process or in worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import UserError, first_line
from ..processes import without_main_script
from ..resources import check_memory
from ..together import Share
from .sources import Batch, Images, Inputs, Source

BYTES_PER_PIXEL = 15
"""Three 8-bit colors and three 32-bit numbers."""


def load_batches(
    source: Source, y: NDArray[np.int64], index: NDArray[np.int64], size: int, workers: int, share: Share
) -> Iterator[Batch]:
    """Load samples in the order of `index`, `size` per batch.

    A single sample that would be left over joins the last batch, since batch norm can't train on one sample.

    Arguments:
        source: where the inputs come from.
        y: label of each sample of the data set, [samples of the data set].
        index: the samples to load, [samples].
        size: samples per batch.
        workers: number of processes that load batches; 0 loads them in this process.
        share: the part of each batch whose inputs are loaded; labels and indices are those of the whole batch.

    Raises:
        UserError: an input can't be loaded, in this or in another process, or a batch doesn't fit into memory.
    """
    _check_memory(source, len(share.part(min(size, len(index)))))
    yield from _loaded(_Batches(source, y, _cut(index, size), share), workers)


def load_augmented_batches(
    source: Source,
    y: NDArray[np.int64],
    index: NDArray[np.int64],
    size: int,
    workers: int,
    share: Share,
    *,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    """As `load_batches`, with augmented inputs.

    The augmentation of a sample depends only on `seed`, `epoch`, the sample and, if `index` contains the sample several
    times, on the number of its earlier occurrences.
    """
    _check_memory(source, len(share.part(min(size, len(index)))))
    occurrences = _cut(_earlier_occurrences(index), size)
    yield from _loaded(_Batches(source, y, _cut(index, size), share, (seed, epoch), occurrences), workers)


def load_batch(source: Source, y: NDArray[np.int64], index: NDArray[np.int64]) -> Batch:
    """These samples as one batch."""
    return _batch(y, index, source.load(index))


def _check_memory(source: Source, size: int) -> None:
    if isinstance(source, Images) and source.transform is not None:
        side = source.transform.image_size
        what = f"batches of {size} images of {side}x{side}"
        check_memory(BYTES_PER_PIXEL * size * side**2, what, "use a smaller batch size or --image-size")


def _batch(y: NDArray[np.int64], index: NDArray[np.int64], inputs: Inputs) -> Batch:
    return Batch(inputs, torch.from_numpy(y[index]), torch.tensor(index))


def _stacked(loaded: list[Inputs]) -> Inputs:
    first = loaded[0]
    if isinstance(first, Tensor):
        return torch.stack([x for x in loaded if isinstance(x, Tensor)])
    return {name: torch.stack([x[name] for x in loaded if isinstance(x, Mapping)]) for name in first}


def _cut(index: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut into batches of `size`. A single sample that would be left over joins the last batch."""
    starts = list(range(0, len(index), size))
    if size > 1 and len(starts) > 1 and len(index) - starts[-1] == 1:
        starts.pop()
    return [index[start:end] for start, end in zip(starts, [*starts[1:], len(index)], strict=True)]


def _earlier_occurrences(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry, how often its value occurs before it, [entries]."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], index[order])
    times = np.empty_like(index)
    times[order] = np.arange(len(index)) - starts
    return times


@dataclass(frozen=True)
class _Batches(torch.utils.data.Dataset[Batch | UserError]):
    """Batches by number, so that a worker process loads a whole batch.

    An error is returned as an item and raised by the caller: an error that is raised in a worker process would reach
    the user with another type and message.
    """

    source: Source
    y: NDArray[np.int64]
    indices: list[NDArray[np.int64]]
    share: Share
    augmentation: tuple[int, int] | None = None
    occurrences: list[NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Batch | UserError:
        try:
            return _batch(self.y, self.indices[number], self._inputs(number))
        except UserError as error:
            return error

    def _inputs(self, number: int) -> Inputs:
        part = self.share.part(len(self.indices[number]))
        index = self.indices[number][part.start : part.stop]
        if self.augmentation is None or self.occurrences is None:
            return self.source.load(index)
        pairs = zip(index.tolist(), self.occurrences[number][part.start : part.stop].tolist(), strict=True)
        return _stacked(
            [self.source.load_augmented(i, _seed(*self.augmentation, i, *([n] if n else []))) for i, n in pairs]
        )


def _loaded(batches: _Batches, workers: int) -> Iterator[Batch]:
    # The loader gets its own generator. Otherwise each pass would change torch's global random state.
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=_unchanged,
        multiprocessing_context=_context() if workers and batches.augmentation else None,
    )
    with without_main_script():
        loaded = iter(loader)
    while (item := _next(loaded, workers)) is not None:
        if isinstance(item, UserError):
            raise item
        yield item


def _next(loaded: Iterator[Batch | UserError], workers: int) -> Batch | UserError | None:
    try:
        return next(loaded, None)
    except RuntimeError as error:
        if not workers:
            raise
        raise UserError(f"a process that reads samples has ended ({first_line(error)}): use --workers 0") from error


@cache
def _context() -> BaseContext:
    """A way to start processes without forking this one: a fork can hang, because training has started threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _unchanged(item: Any) -> Any:
    return item


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
