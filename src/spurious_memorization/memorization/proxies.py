"""Cheap proxies of memorization scores: what one training of the whole data shows of each sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.features import features_and_logits
from ..networks.forward import choose_device, moved, working_copy
from ..runs.run import Run
from ..settings import Execution
from .scores import MemorizationScores

PROXIES = ("loss", "epoch_learned", "first_error", "gradient_norm")


def memorization_proxies(run: Run, data: Dataset | None = None, *, execution: Execution | None = None) -> pd.DataFrame:
    """Cheap proxies of memorization, from one training.

    Arguments:
        run: a training with the predictions of every epoch.
        data: the run's data; read from its folder if not given.
        execution: device, batch size.

    Returns:
        One row per training sample, with its index in the data set as index. The columns are loss (cross-entropy of the
        last epoch), epoch_learned (first epoch from which the sample stays correct until the end; one more than the
        last epoch if there is none), first_error (norm of probabilities minus label after the first epoch: EL2N; Paul
        et al. 2021) and gradient_norm (norm of the gradient of the loss by the weights and biases of the classifier
        head, at the last epoch: GraNd of the last layer).

    Raises:
        UserError: the run has no epoch of training, or a file of it is missing.
    """
    data = data or run.read_data()
    train, last = data.train, run.choose_epoch("last")
    epochs = sorted(int(e) for e in run.history()["epoch"].unique() if 0 < e <= last)
    if not epochs:
        raise UserError(f"{run.path} has no epoch of training: proxies need one, so choose another run")
    predictions = [run.predictions(epoch, "train").loc[train.index].to_numpy() for epoch in epochs]
    of_label = np.arange(len(train)), train.y
    correct = np.array([p.argmax(1) == train.y for p in predictions])
    stays = np.logical_and.accumulate(correct[::-1])[::-1]
    learned = np.where(stays.any(0), np.array(epochs)[stays.argmax(0)], last + 1)
    return pd.DataFrame(
        {
            "loss": -np.log(np.maximum(predictions[-1][of_label], 1e-12)),
            "epoch_learned": learned,
            "first_error": _errors(predictions[0], train.y),
            "gradient_norm": _head_gradients(run, last, data, execution or Execution()),
        },
        index=pd.Index(train.index, name="sample"),
    )


def proxy_correlations(scores: MemorizationScores, of_run: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each proxy with the memorization scores.

    Arguments:
        scores: of the same training samples.
        of_run: as `memorization_proxies` returns it.

    Returns:
        One row per proxy, for all samples (group_name "all groups") and for each group: proxy, group_name, n,
        rank_correlation; nan where a proxy or the scores are constant.

    Raises:
        UserError: they belong to other samples.
    """
    table = scores.scores().dropna(subset="score").set_index("sample")
    if not table.index.isin(of_run.index).all():
        raise UserError(f"the run has other training samples than {scores.path}: choose a run on the same data")
    table = table.join(of_run)
    parts = [("all groups", table), *((str(name), part) for name, part in table.groupby("group_name"))]
    rows = [
        {"proxy": proxy, "group_name": name, "n": len(part), "rank_correlation": _spearman(part[proxy], part["score"])}
        for proxy in PROXIES
        for name, part in parts
    ]
    return pd.DataFrame(rows)


def _spearman(one: pd.Series, other: pd.Series) -> float:
    if one.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def _errors(p: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Norm of probabilities minus label, [samples]."""
    norms: NDArray[np.float64] = np.linalg.norm(p - np.eye(p.shape[1])[y], axis=1)
    return norms


def _head_gradients(run: Run, epoch: int, data: Dataset, execution: Execution) -> NDArray[np.float64]:
    """Norm of the gradient of each sample's cross-entropy by the head's weights and biases, [samples].

    The gradient of a linear layer is the outer product of (probabilities minus label) and (features, 1).
    """
    device = choose_device(execution.device)
    model = working_copy(run.network(epoch), device)
    found = []
    with torch.no_grad():
        for batch in data.train.batches(execution.samples_per_pass):
            features, output = features_and_logits(model, moved(batch.inputs, device))
            errors = _errors(output.cpu().double().softmax(1).numpy(), batch.y.numpy())
            found.append(errors * np.sqrt(features.cpu().double().square().sum(1).numpy() + 1))
    return np.concatenate(found)
