"""The top-activating training images of each channel: found in one pass over them, stored with the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...atomic import write_parquet
from ...console import log, progress
from ...datasets.samples import Dataset, Samples
from ...datasets.sources import Inputs
from ...errors import UserError
from ...networks.forward import choose_device, logits, moved, working_copy
from ...networks.norm_factors import norm_factors
from ...runs.run import Run
from ...settings import Execution
from ...stored_files import BrokenFileError, Columns, StoredFileError, is_stored, read_frame, reading
from ...studies.study import Study

MAX_IMAGES = 12
"""Images that are kept for each channel."""

MAX_SEARCHED = 5000
"""Training images that are searched. Of a larger training split, each group gives an equal share.

The share is drawn with the study's seed."""

STORED: Columns = {"unit": "text", "sample": "count", "activation": "number", "n_searched": "count"}

COLUMNS = list(STORED)


def stored_top_activating(
    run: Run, study: Study, data: Dataset, units: Sequence[str], execution: Execution | None = None
) -> pd.DataFrame:
    """The top-activating images of channels, read from the study's folder.

    Those that are missing are found and stored there first. A study does not measure them, but a report needs them.

    Arguments:
        run, study: whose network and epoch.
        data: the run's data.
        units: channels, as `study.variants()` writes them.
        execution: device, workers, batch size.

    Returns:
        One row per channel and image, the largest activation first: unit, sample, activation, n_searched.
    """
    file = study.path / "top-activating.parquet"
    there = _stored(file, len(data))
    missing = [unit for unit in units if unit not in set(there["unit"])]
    if not missing:
        return there
    settings = study.record["settings"]
    samples = data.samples("train")
    if len(samples) > MAX_SEARCHED:
        samples = samples.per_group(MAX_SEARCHED // len(set(samples.g.tolist())), settings["seed"])
    log(
        f"finding the top-activating {data.noun}s of {len(missing)} channels: one pass over {len(samples)} training "
        f"{data.noun}s"
    )
    found = top_activating(run.network(study.record["epoch"]), samples, missing, execution=execution)
    if found.empty:
        return there
    try:
        with run.writing():
            frame = _with(_stored(file, len(data)), found)
            write_parquet(file, frame)
            return frame
    except StoredFileError:
        raise
    except UserError as error:
        log(f"note: {file.name} is not stored for the next report: {error}")
    return _with(there, found)


def _stored(file: Path, n_samples: int) -> pd.DataFrame:
    if not is_stored(file):
        return pd.DataFrame(columns=COLUMNS)
    remedy = "delete it: the next report makes it again"
    rows = read_frame(file, STORED, remedy)
    with reading(file, remedy):
        if (rows["sample"] >= n_samples).any():
            raise BrokenFileError("it names samples that the data don't have")
    return rows


def _with(there: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The rows found, and those of other units that are there."""
    others = there[~there["unit"].isin(found["unit"])]
    return found if others.empty else pd.concat([others, found], ignore_index=True)


def top_activating(
    model: nn.Module, samples: Samples, units: Sequence[str], *, k: int = MAX_IMAGES, execution: Execution | None = None
) -> pd.DataFrame:
    """The top-activating samples of each channel.

    A channel's activation is the largest value of its output over the positions, but not over those that pad a text.
    If the batch norm after it has a negative weight, the output is negated first, so that a large activation is also
    large for the next layer.

    Arguments:
        model: the network; it is not changed.
        samples: which are searched.
        units: channels, such as "layer3.0.conv2:17". Those of layers whose weights the network reads without calling
            them, as PyTorch's attention does, have no rows in the result.
        k: number of samples returned for each channel.
        execution: device, workers, batch size.

    Returns:
        One row per channel and sample, the largest activation first: unit, sample, activation, n_searched.
    """
    execution = execution or Execution()
    network = working_copy(model, choose_device(execution.device))
    factors = norm_factors(network)
    numbers: dict[str, list[int]] = {}
    for unit in units:
        layer, _, index = unit.rpartition(":")
        numbers.setdefault(layer, []).append(int(index))
    seen: dict[str, list[Tensor]] = {layer: [] for layer in numbers}

    def record(layer: str, is_linear: bool) -> Callable[..., None]:
        sign = factors.get(f"{layer}.weight", torch.ones(1)).sign()

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            flat = output.flatten(1, -2) if is_linear and output.ndim > 2 else output.unsqueeze(1)
            if not is_linear:
                flat = output.flatten(2).transpose(1, 2)
            chosen = flat * sign.to(flat)
            if is_padded.shape == chosen.shape[:2]:
                chosen = chosen.masked_fill(is_padded[..., None], -torch.inf)
            seen[layer].append(chosen[..., numbers[layer]].amax(1).float().cpu())

        return hook

    is_padded = torch.empty(0)
    layers = {name: module for name, module in network.named_modules() if name in numbers}
    for layer, module in layers.items():
        module.register_forward_hook(record(layer, isinstance(module, nn.Linear)))
    batches = samples.batches(execution.samples_per_pass, execution.workers or 0)
    n_batches = -(-len(samples) // execution.samples_per_pass)
    with torch.no_grad():
        for batch in progress(batches, n_batches, f"{samples.dataset.noun}s"):
            inputs = moved(batch.inputs, next(network.parameters()).device)
            is_padded = _padded(inputs)
            logits(network, inputs)
    rows = []
    for layer, parts in seen.items():
        if not parts:
            continue
        values = torch.cat(parts).numpy()
        for column, number in enumerate(numbers[layer]):
            order = np.argsort(-values[:, column], kind="stable")[:k]
            rows += [
                (f"{layer}:{number}", int(samples.index[i]), float(values[i, column]), len(samples)) for i in order
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _padded(inputs: Inputs) -> Tensor:
    """Which positions only pad a text, [samples, positions]; empty if none are known."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return torch.empty(0) if mask is None else mask == 0
