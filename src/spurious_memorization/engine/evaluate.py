"""Every edited network on every sample: chooses the engine that fits the network, and runs its blocks."""

from __future__ import annotations

from collections.abc import Sequence

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
from .outcomes import Outcomes, assemble, block_plan, outcomes_per_block
from .protocol import Engine

BYTES_PER_OUTCOME = 10
"""Predicted class, loss and margin."""

EXAMPLES = 3


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
    check_memory(outcomes * BYTES_PER_OUTCOME, f"{outcomes:,} outcomes", "evaluate fewer edits, or fewer samples")
    engine = engine_for(model, samples, loss=loss, precision=precision, execution=execution)
    engine = compiled_where_it_pays(engine, passes_needed(engine, edits, len(samples)), execution)
    plan = list(block_plan(len(edits), len(samples), outcomes_per_block(engine.pass_multiplications)))
    steps = progress(plan, len(plan), "edited networks")
    blocks = [engine.run(edits, rows, samples.part(columns)) for rows, columns in steps]
    return assemble(edits, blocks, engine.description)


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
