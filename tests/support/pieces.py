"""Pieces of work for schedulers, and samples that tell which process reads them. Workers import this module."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny_networks import small_convnet
from torch import nn
from tqdm import tqdm

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Inputs, Source


def times(factor: int) -> Callable[[object], object]:
    """A function that multiplies, and that fails in the way that its piece names."""
    if factor == 0:
        raise sm.UserError("the factor is 0: choose another one")

    def run(piece: object) -> object:
        match piece:
            case "user":
                raise sm.UserError("the piece is wrong: change it")
            case "bug":
                raise KeyError("a bug")
            case "end":
                os._exit(3)
            case Path():
                if not piece.exists():
                    piece.touch()
                    os._exit(3)
                return torch.get_num_threads()
            case int():
                return piece * factor, os.getpid()
        raise AssertionError(piece)

    return run


def meeting() -> Callable[[tuple[Path, Path]], bool]:
    """A function that says that it has come, and waits for another one."""

    def run(piece: tuple[Path, Path]) -> bool:
        own, other = piece
        own.touch()
        deadline = time.monotonic() + 60
        while not other.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return other.exists()

    return run


def bar() -> Callable[[int], int]:
    """A function that counts with a progress bar, as some functions of PyTorch do."""
    return lambda n: sum(1 for _ in tqdm(range(n), disable=True))


@dataclass(frozen=True)
class Watched:
    """The samples of another source. Each process that reads them leaves a file with its number."""

    source: Source
    folder: Path

    def load(self, index: np.ndarray) -> Inputs:
        (self.folder / str(os.getpid())).touch()
        time.sleep(0.05)  # so that no worker is done before the other one begins
        return self.source.load(index)

    def load_augmented(self, index: int, seed: int) -> Inputs:
        return self.source.load_augmented(index, seed)

    def fingerprint(self) -> str:
        return self.source.fingerprint()


@dataclass(frozen=True)
class UnreadableElsewhere(Watched):
    """Samples that only the process that made them can read."""

    owner: int

    def load(self, index: np.ndarray) -> Inputs:
        if os.getpid() != self.owner:
            raise sm.UserError("image a.png is missing: `spurmem data check` lists all missing files")
        return self.source.load(index)


def convnet_that_ends_one_worker(num_classes: int = 2) -> nn.Module:
    """The small network. The first further process that builds it ends, and leaves the file of `ENDS_ONE_WORKER`."""
    if multiprocessing.parent_process() is not None:
        try:
            os.close(os.open(os.environ["ENDS_ONE_WORKER"], os.O_CREAT | os.O_EXCL))
            os._exit(3)
        except FileExistsError:
            pass
    return small_convnet(num_classes)
