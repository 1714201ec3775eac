"""What several processes run at once, and networks that end one of them. The processes import this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import filelock
import tiny_networks
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.together import LostProcessError, Share, average_gradients, own, this_share, working_together
from spurious_memorization.training.shared_passes import features_and_logits_of_all

SIZES = (7, 2, 1)
"""Sizes of batches: parts of several sizes, and fewer samples than processes."""

ENDED = "SPURMEM_TEST_ENDED"
"""Environment variable: a file that says that a process was killed."""


def network() -> nn.Module:
    """Batch norms over images and over features, and one without weights that averages over all batches."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2),
        nn.BatchNorm2d(6, affine=False, momentum=None),
        nn.Flatten(),
        nn.Linear(54, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    ).double()


def batch(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, 9, 9, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


def loss_of(model: nn.Module, features: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """A loss that is no sum over samples, with a penalty of the weights."""
    losses = F.cross_entropy(logits, y, reduction="none")
    penalty = sum((parameter**2).sum() for parameter in model.parameters())
    return losses.max() + losses.mean() ** 2 + (features @ features.T).logsumexp(1).mean() + 0.1 * penalty


def gradients(folder: Path, n: int, number: int) -> None:
    """Store loss, gradients and running statistics after one pass of each size."""
    with working_together(Share(number, n), (folder / "meeting").as_uri(), torch.device("cpu")):
        model, losses = network().train(), []
        for size in SIZES:
            x, y = batch(size)
            losses.append(loss_of(model, *features_and_logits_of_all(model, own(x), size), y))
        torch.stack(losses).sum().backward()
        average_gradients(model)
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        torch.save({**found, **dict(model.named_buffers()), "losses": torch.stack(losses)}, folder / f"{number}.pt")


def fails(what: str, folder: Path, number: int) -> None:
    """Hold a lock of this number. Then one process does this, and the others wait."""
    lock = filelock.FileLock(folder / str(number))
    lock.acquire()
    match what, number:
        case "user", 1:
            raise sm.UserError("the image is missing: restore it")
        case "bug", 1:
            raise KeyError("a bug")
        case "kill", 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "lost", 0:
            raise LostProcessError("another one has ended")
        case "lost", 1:
            time.sleep(1)
            os._exit(3)
        case "done", _:
            return
    time.sleep(600)


class Mortal(nn.Module):
    """Kills one of several processes in its second epoch, once.

    Arguments:
        inner: the network.
        number: of the process that is killed.
    """

    def __init__(self, inner: nn.Module, number: int) -> None:
        super().__init__()
        self.inner = inner
        self.number = number
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        file = Path(os.environ[ENDED])
        if self.steps == 8 and this_share() == Share(self.number, 2) and not file.exists():  # five steps an epoch
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        found: Tensor = self.inner(x)
        return found


def first_is_mortal(num_classes: int = 2) -> nn.Module:
    return Mortal(tiny_networks.small_convnet(num_classes), 0)


def second_is_mortal(num_classes: int = 2) -> nn.Module:
    return Mortal(tiny_networks.small_convnet(num_classes), 1)


def dropout_convnet(num_classes: int = 2) -> nn.Module:
    model = tiny_networks.small_convnet(num_classes)
    model.flat = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    return model


class Counting(nn.Module):
    """Keeps the mean of the samples that it has seen, as no other process knows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += x.detach().mean()
        found: Tensor = self.inner(x)
        return found


def counting_convnet(num_classes: int = 2) -> nn.Module:
    return Counting(tiny_networks.small_convnet(num_classes))


def plain_convnet(num_classes: int = 2) -> nn.Module:
    """Without batch norm."""
    model = tiny_networks.small_convnet(num_classes)
    model.bn1 = nn.Identity()
    return model
