"""Every edited network on every sample: chooses the engine that fits the network, and runs its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..console import progress
from ..datasets.samples import Samples, checked_samples
from ..datasets.sources import Inputs
from ..edits.edit import Edit, checked_edits
from ..networks.checked import checked_network
from ..networks.forward import check_deterministic, choose_device, outside_inference_mode
from ..networks.names import LossName, Precision
from ..resources import check_memory
from ..settings import Execution
from .fallback import prefix_or_plain
from .outcomes import Block, Outcomes, assemble, block_plan, outcomes_per_block, paired_with_unedited
from .protocol import Engine
from .threads import is_one_enough

BYTES_PER_OUTCOME = 10
"""Predicted class, loss and margin."""

EXAMPLES = 3

SMALL = 10**8
"""Multiplications of a pass of a small network, at most. For a large network, a machine that is busy for a moment must
not decide about hours."""

EDITS_TIMED, SAMPLES_TIMED = 16, 32


@outside_inference_mode
def evaluate(
    model: nn.Module,
    edits: Edit | Sequence[Edit],
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Outcomes:
    """Compute the outcomes of every edited network on every sample, and those of the network before any edit.

    Arguments:
        model: the network, which stays as it is.
        edits: the edits, or one edit; each is applied alone.
        samples: where the outcomes are measured.
        loss: name of the loss to record, as for `gradient`.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Returns:
        Predicted class, loss and margin for every edit and sample. `effects` computes accuracy changes and verdicts
        from them.

    Raises:
        UserError: an image is missing or broken, an edit does not fit the network, or the outcomes don't fit into
            memory.

    Example:
        ```python
        result = sm.evaluate(model, [sm.edits.zero(units)], data.train)
        result.after.predicted  # [edits, samples]
        ```
    """
    model, edits, samples = checked_network(model), checked_edits(edits), checked_samples(samples)
    outcomes = (len(edits) + 1) * len(samples)
    remedy = "evaluate fewer edits, or fewer samples, or use `outcome_blocks`"
    check_memory(outcomes * BYTES_PER_OUTCOME, f"{outcomes:,} outcomes", remedy)
    engine = engine_for(model, samples, loss=loss, precision=precision, execution=execution)
    engine = compiled_where_it_pays(engine, passes_needed(engine, edits, len(samples)), execution)
    blocks = [block for _, block in _blocks(engine, edits, samples)]
    return assemble(edits, blocks, engine.description)


@outside_inference_mode
def outcome_blocks(
    model: nn.Module,
    edits: Edit | Sequence[Edit],
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Iterator[tuple[Block, Block]]:
    """Compute the same outcomes as `evaluate`, block by block, for more edits and samples than memory holds.

    Arguments:
        model: the network, which stays as it is.
        edits: the edits, or one edit. Any `Sequence` will do, also one that makes each edit when it is asked for.
        samples: where the outcomes are measured.
        loss: name of the loss to record, as for `gradient`.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Returns:
        Yields for each block of edits and samples the outcomes before any edit, which are one row, and those after
        each edit.

    Raises:
        UserError: an image is missing or broken, or an edit does not fit the network.

    Example:
        ```python
        n_correct = np.zeros(len(edits), int)
        for before, after in sm.outcome_blocks(model, edits, data.train):
            n_correct[after.edits] += (after.predicted == data.y[after.index]).sum(axis=1)
        ```
    """
    model, samples = checked_network(model), checked_samples(samples)
    if not isinstance(edits, Sequence):
        edits = checked_edits(edits)
    engine = engine_for(model, samples, loss=loss, precision=precision, execution=execution)
    engine = compiled_where_it_pays(engine, passes_needed(engine, edits, len(samples)), execution)
    return paired_with_unedited(_blocks(engine, edits, samples), np.arange(len(edits)))


@outside_inference_mode
def _blocks(engine: Engine, edits: Sequence[Edit], samples: Samples) -> Iterator[tuple[range, Block]]:
    """The range of edits of each block of the plan, and its outcomes."""
    plan = list(block_plan(len(edits), len(samples), outcomes_per_block(engine.pass_multiplications)))
    for rows, columns in progress(plan, len(plan), "edited networks"):
        first = max(0, rows.start)
        some = checked_edits([edits[position] for position in range(first, rows.stop)])
        block = engine.run(some, range(rows.start - first, rows.stop - first), samples.part(columns))
        yield rows, replace(block, edits=np.array(rows))


def engine_for(
    model: nn.Module,
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Engine:
    """Choose the engine for a network: the prefix engine, or the plain one if torch.export cannot handle the network
    or its inputs, or if anything unexpected fails.

    Arguments:
        model: the network, which stays as it is.
        samples: the first few are examples of the inputs.
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Raises:
        UserError: the device is not available, an image is missing or broken, or the network does not answer each
            sample alike; see `check_deterministic`.
    """
    execution = execution or Execution()
    example = example_inputs(samples)
    check_deterministic(model, example, choose_device(execution.device))
    return prefix_or_plain(model, example, loss=loss, precision=precision, execution=execution)


def example_inputs(samples: Samples) -> Inputs:
    """Inputs of the first few samples, on which a network is checked before it is used."""
    return samples.part(range(min(EXAMPLES, len(samples)))).batch().inputs


def passes_needed(engine: Engine, edits: Sequence[Edit], n_samples: int) -> float:
    """Count the full forward passes of one sample that all blocks need together.

    Each block also computes the network before any edit, which is one full pass per sample.

    Arguments:
        engine: from `engine_for`.
        edits: all edits.
        n_samples: number of samples.
    """
    plan = block_plan(len(edits), n_samples, outcomes_per_block(engine.pass_multiplications))
    unedited = sum(len(columns) for _, columns in plan)
    return float(engine.pass_fractions(edits).sum()) * n_samples + unedited


def on_one_thread_where_it_pays(
    engine: Engine, edits: Sequence[Edit], samples: Samples, execution: Execution | None = None
) -> Engine:
    """Let the engine of a small network compute on one thread, if that takes hardly longer on this CPU and clearly less
    of its time. It is measured on a few edits and samples.

    Arguments:
        engine: from `engine_for`.
        edits: all edits.
        samples: all samples.
        execution: device.
    """
    on_cpu = choose_device((execution or Execution()).device).type == "cpu"
    if not on_cpu or torch.get_num_threads() == 1 or not 0 < engine.pass_multiplications <= SMALL:
        return engine
    some = samples.part(range(min(SAMPLES_TIMED, len(samples))))
    few = [edits[position] for position in range(min(EDITS_TIMED, len(edits)))]
    is_enough = is_one_enough(lambda: engine.run(few, range(-1, len(few)), some))
    return engine.on_threads(1) if is_enough else engine


def compiled_where_it_pays(engine: Engine, passes: float, execution: Execution | None = None) -> Engine:
    """Compile the engine if that pays for this number of full forward passes, or if the execution asks for it.

    Arguments:
        engine: from `engine_for`.
        passes: full forward passes of one sample, from `passes_needed`.
        execution: its `compile` decides, where it is not None.
    """
    wanted = (execution or Execution()).compile
    pays = engine.compiling_pays(passes) if wanted is None else wanted
    return engine.compiled() if pays else engine
