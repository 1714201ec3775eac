"""Trackers: they log the curves of a training to TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, first_line

PROJECT = "spurmem"
"""Name of the folder in the run (TensorBoard), of the project (Weights & Biases) and of the experiment (MLflow)."""

_REFUSED_BY_MLFLOW = re.compile(r"[^\w\-. :/]|(?<=/)[/.]|/$")
"""Signs in the name of a curve that MLflow takes for no name or for no path."""

Log = Callable[[Mapping[str, float], int], None]
"""Logs {name of a curve: value} after an epoch, which is the second argument."""

Ending = Literal["finished", "failed", "killed"]
"""How a training ended. It is killed if the user, or the system, stopped it."""

Close = Callable[[Ending], object]

WANDB_EXIT_CODES: Mapping[Ending, int] = {"finished": 0, "failed": 1, "killed": 255}
"""The exit codes that Weights & Biases itself gives to a script that ends so."""


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

    MLflow and Weights & Biases are told whether an error ended the block.

    Arguments:
        name: "tensorboard", "wandb", "mlflow", or None for no tracker.
        folder: of the run.
        settings: of the training.

    Raises:
        UserError: MLflow can't write to its server or database.

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
        case "mlflow":
            opened = _mlflow(folder, texts)
        case _:
            yield lambda values, epoch: None
            return
    log, close = opened
    ending: Ending = "finished"
    try:
        yield log
    except Exception:
        ending = "failed"
        raise
    except BaseException:
        ending = "killed"
        raise
    finally:
        close(ending)


def _tensorboard(folder: Path, settings: dict[str, str]) -> tuple[Log, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / PROJECT))
    writer.add_hparams(settings, metric_dict={})

    def log(values: Mapping[str, float], epoch: int) -> None:
        for curve, value in values.items():
            writer.add_scalar(curve, value, global_step=epoch)
        writer.flush()

    return log, lambda ending: writer.close()


def _wandb(settings: dict[str, str]) -> tuple[Log, Close]:
    import wandb

    tracked: Any = wandb.init(project=PROJECT, config=settings)
    return (
        lambda values, epoch: tracked.log(dict(values), step=epoch),
        lambda ending: tracked.finish(exit_code=WANDB_EXIT_CODES[ending]),
    )


def _mlflow(folder: Path, settings: dict[str, str]) -> tuple[Log, Close]:
    """A client rather than MLflow's active run, which may be the user's own."""
    import mlflow

    try:
        client: Any = mlflow.MlflowClient()
        known = client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else client.create_experiment(PROJECT)
        tracked = client.create_run(experiment, run_name=folder.name).info.run_id
        client.log_batch(tracked, params=[mlflow.entities.Param(*item) for item in settings.items()])
    except mlflow.MlflowException as error:
        raise UserError(
            f"mlflow can't write to {mlflow.get_tracking_uri()} ({first_line(error)}): set MLFLOW_TRACKING_URI to a "
            "server, or `pip install mlflow` for a database on this machine"
        ) from error

    def log(values: Mapping[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        named = {_REFUSED_BY_MLFLOW.sub("_", curve): value for curve, value in values.items()}
        client.log_batch(tracked, metrics=[mlflow.entities.Metric(*item, now, epoch) for item in named.items()])

    return log, lambda ending: client.set_terminated(tracked, ending.upper())
