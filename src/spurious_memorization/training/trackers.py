"""Trackers: they log the curves of a training to TensorBoard or to Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError

PROJECT = "spurmem"
"""Name of the folder in the run (TensorBoard) and of the project (Weights & Biases)."""

Log = Callable[[Mapping[str, float], int], None]
"""Logs {name of a curve: value} after an epoch, which is the second argument."""


def check_tracker(name: str | None) -> None:
    """Check that a tracker is installed.

    Raises:
        UserError: it is not.
    """
    if name is not None and importlib.util.find_spec(name) is None:
        raise UserError(f"tracker {name!r} is not installed: pip install 'spurious-memorization[{name}]'")


@contextmanager
def open_tracker(name: str | None, folder: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Open a tracker, log the settings, and close it at the end of the block.

    Arguments:
        name: "tensorboard", "wandb", or None for no tracker.
        folder: of the run.
        settings: of the training.

    Example:
        ```python
        with open_tracker("tensorboard", run.path, settings) as log:
            log({"loss": 0.5}, 1)
        ```
    """
    texts = {key: str(value) for key, value in settings.items()}
    match name:
        case "tensorboard":
            opened = _tensorboard(folder, texts)
        case "wandb":
            opened = _wandb(texts)
        case _:
            yield lambda values, epoch: None
            return
    log, close = opened
    try:
        yield log
    finally:
        close()


def _tensorboard(folder: Path, settings: dict[str, str]) -> tuple[Log, Callable[[], object]]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / PROJECT))
    writer.add_hparams(settings, metric_dict={})

    def log(values: Mapping[str, float], epoch: int) -> None:
        for curve, value in values.items():
            writer.add_scalar(curve, value, global_step=epoch)
        writer.flush()

    return log, writer.close


def _wandb(settings: dict[str, str]) -> tuple[Log, Callable[[], object]]:
    import wandb

    tracked: Any = wandb.init(project=PROJECT, config=settings)
    return (lambda values, epoch: tracked.log(dict(values), step=epoch)), tracked.finish
