"""Scores of units, and the first units in the order of their scores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.names import UnitKind
from ..networks.units import Units, short_name
from ..stored_files import BrokenFileError, read_tensors, reading, write_tensors


class Scores(dict[str, Tensor]):
    """{tensor name: scores}. Units with higher scores are selected first.

    Scores of channels have shape [channels], those of heads [heads] under the attention module's name, those of
    features [features] under the name of the head's weight, those of single weights the tensor's own shape.

    Arguments:
        values: the scores.
        kind: what the units are.
        with_bias: channels and heads include their bias.
    """

    def __init__(self, values: Mapping[str, Tensor], kind: UnitKind = "channel", with_bias: bool = True) -> None:
        super().__init__(values)
        self.kind: UnitKind = kind
        self.with_bias = with_bias

    @property
    def n(self) -> int:
        """Number of units."""
        return sum(values.numel() for values in self.values())

    @property
    def n_measured(self) -> int:
        """Number of units that were measured; a screening leaves the others out."""
        return sum(int((~values.isneginf()).sum()) for values in self.values())

    def first(self, n: int = 10) -> pd.DataFrame:
        """The units with the largest scores, at most `n`: one row per unit, with the columns rank (from 1), unit (as
        `--units` takes it) and score."""
        units = top(self, min(n, self.n_measured))
        scores = [float(self[name].flatten()[index]) for name, index in units]
        return pd.DataFrame(
            {
                "rank": range(1, len(units) + 1),
                "unit": [f"{short_name(name)}:{i}" for name, i in units],
                "score": scores,
            }
        )

    def __repr__(self) -> str:
        return f"<Scores of {self.n} {self.kind}s in {len(self)} tensors>"


def top(scores: Mapping[str, Tensor], n: int, *, largest: bool = True) -> Units:
    """The `n` units with the largest (or smallest) scores over the whole network, in that order.

    Ties keep the order of tensors and positions.

    Arguments:
        scores: of every unit; a plain mapping counts as scores of channels.
        n: number of units.
        largest: the largest scores first; otherwise the smallest.

    Raises:
        UserError: `n` is not between 1 and the number of units, a screening left some of the units unmeasured, or a
            score is not a number.
    """
    scores = scores if isinstance(scores, Scores) else Scores(scores)
    if not 0 < n <= scores.n:
        raise UserError(f"size {n}: the network has {scores.n} {scores.kind}s here: choose from 1 to {scores.n}")
    flat = torch.cat([values.detach().flatten().float().cpu() for values in scores.values()])
    if flat.isnan().any():
        raise UserError("some scores are not a number: the network or its gradients are broken")
    key = -flat if largest else flat
    threshold = key.kthvalue(n).values
    sure, tied = torch.nonzero(key < threshold).flatten(), torch.nonzero(key == threshold).flatten()
    chosen = torch.cat([sure, tied[: n - len(sure)]]).sort().values
    chosen = chosen[key[chosen].argsort(stable=True)]
    if flat[chosen].isneginf().any():
        measured = f"only {scores.n_measured} {scores.kind}s were measured"
        raise UserError(f"size {n}: {measured}: leave fewer out with --screen")
    return _units(scores, chosen)


def count_of(scores: Scores, size: int | float) -> int:
    """Number of units for a size.

    Arguments:
        scores: of every unit.
        size: a count (an int), or a fraction of all units (a float from 0 to 1), which is rounded up.
    """
    return size if isinstance(size, int) else math.ceil(size * scores.n)


def by_threshold(model: nn.Module, scores: Scores, n: int, *, largest: bool = True) -> Units:
    """Select single weights as the research code of You et al. (2025) does.

    The threshold is the n-th largest (or the (n+1)-th smallest) magnitude among the weights in `scores`. It is applied
    to *every* parameter, including normalization, embeddings and head: each number at or beyond it is selected.

    Arguments:
        model: the network whose parameters are selected.
        scores: magnitudes of single weights.
        n: number of weights, among those in `scores`, that sets the threshold.
        largest: the largest magnitudes; otherwise the smallest.

    Raises:
        UserError: `n` is larger than the number of weights.
    """
    if not 0 < n < scores.n:
        raise UserError(f"size {n}: the threshold needs from 1 to {scores.n - 1} of the {scores.n} weights")
    flat = torch.cat([values.flatten() for values in scores.values()])
    threshold = flat.kthvalue(scores.n - n + 1 if largest else n + 1).values
    parameters = checked_network(model).named_parameters()
    everywhere = Scores({name: p.detach().abs().float().cpu() for name, p in parameters}, kind="weight")
    every = torch.cat([values.flatten() for values in everywhere.values()])
    chosen = torch.nonzero(every >= threshold if largest else every <= threshold).flatten()
    return _units(everywhere, chosen)


def random_dropout(units: Units, probability: float, seed: int) -> Units:
    """Leave out each unit with a probability; the others keep their order.

    Arguments:
        units: to choose from.
        probability: with which each unit is left out, independently of the others.
        seed: of the draws.
    """
    kept = np.random.default_rng(seed).random(len(units)) >= probability
    return Units(units.kind, units.names, units.place[kept], units.index[kept], units.with_bias)


def save_scores(file: Path, scores: Scores) -> None:
    """Write scores as safetensors, whole or not at all."""
    metadata = {"unit": scores.kind, "with_bias": str(scores.with_bias), "order": json.dumps(list(scores))}
    write_tensors(file, {name: values.float() for name, values in scores.items()}, metadata)


def read_scores(file: Path) -> Scores:
    """Read scores that `save_scores` wrote.

    Raises:
        UserError: the file is missing or broken.
    """
    values, metadata = read_tensors(file, "delete it and run the same command again")
    with reading(file, "delete it and run the same command again"):
        order = json.loads(metadata["order"])
        kind: UnitKind = TypeAdapter(UnitKind).validate_python(metadata["unit"])
        if sorted(order) != sorted(values):
            raise BrokenFileError("it holds no scores of units")
        return Scores({name: values[name] for name in order}, kind, metadata["with_bias"] == "True")


def _units(scores: Scores, flat_positions: Tensor) -> Units:
    names = tuple(scores)
    ends = np.cumsum([values.numel() for values in scores.values()])
    positions = flat_positions.numpy().astype(np.int64)
    place = np.searchsorted(ends, positions, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    return Units(scores.kind, names, place, positions - starts[place], scores.with_bias)
