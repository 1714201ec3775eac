"""Training that fits a head once: deep feature reweighting as a run."""

from __future__ import annotations

import time

from torch import nn

from ..datasets.samples import Dataset
from ..runs.evaluate import evaluate_epoch
from ..runs.records import TrainingCost
from ..runs.run import Run
from .epoch_selection import val_halves
from .loop import TrainExecution
from .objectives.dfr import refitted
from .objectives.settings import DfrSettings
from .recipes import TrainSettings


def refit_head(run: Run, config: TrainSettings, data: Dataset, model: nn.Module, execution: TrainExecution) -> None:
    """Store the network that the run started from as epoch 0, and that with a new head as epoch 1."""
    if not isinstance(config.objective, DfrSettings) or run.epochs() == [0, 1]:
        return
    fitting, selecting = val_halves(data)
    began = time.monotonic()
    refit = refitted(
        model,
        fitting,
        selecting,
        config.objective,
        seed=config.seed,
        precision=config.precision,
        execution=execution,
    )
    seconds = round(time.monotonic() - began, 3)
    for epoch, network in ((0, model), (1, refit)):
        evaluate_epoch(run, epoch, network, data, loss=config.loss, precision=config.precision, execution=execution)
        run.save_network(epoch, network)
    cost = run.record.training_cost or TrainingCost()
    run.save_training_cost(cost.model_copy(update={"sample_passes": len(fitting), "seconds": seconds}))
