"""Every edited network on every sample: the engine that fits the network, and the blocks that it runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..console import progress
from ..datasets.samples import Samples
from ..edits.edit import Edit
from ..networks.names import LossName, Precision
from ..settings import Execution
from .outcomes import Engine, Outcomes, assemble, block_plan
from .plain import plain_engine
from .prefix.engine import shared_engine
from .prefix.program import Untraceable


def evaluate(
    model: nn.Module,
    edits: Sequence[Edit],
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Outcomes:
    """What every edited network answers on every sample, and the network before any edit.

    Arguments:
        model: the network, which stays as it is.
        edits: the changes, each applied alone.
        samples: where they are measured.
        loss: name of the loss to record, as for `gradient`.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Returns:
        Predicted class, loss and margin for every edit and sample; `effects` makes shifts and verdicts of them.

    Raises:
        UserError: a image is missing or broken, an edit doesn't fit the network.

    Example:
        ```python
        result = sm.evaluate(model, [sm.edits.zero(units)], data.train)
        result.after.predicted  # [edits, samples]
        ```
    """
    engine = engine_for(model, samples, loss=loss, precision=precision, execution=execution)
    engine = compiled_where_it_pays(engine, passes_needed(engine, edits, len(samples)), execution)
    plan = list(block_plan(len(edits), len(samples)))
    steps = progress(plan, len(plan), "edited networks")
    return assemble(edits, [engine.run(edits, rows, samples.part(columns)) for rows, columns in steps], engine.path)


def engine_for(
    model: nn.Module,
    samples: Samples,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Engine:
    """The shared-prefix engine, or the plain one where the network or its inputs don't allow the other; arguments as
    for `evaluate`."""
    example = samples.part(range(1)).batch().inputs
    try:
        if not isinstance(example, Tensor):
            raise Untraceable("its input is no single tensor")
        return shared_engine(model, example, loss=loss, precision=precision, execution=execution)
    except Untraceable as reason:
        return plain_engine(model, loss=loss, precision=precision, execution=execution, why=str(reason))


def passes_needed(engine: Engine, edits: Sequence[Edit], n_samples: int) -> float:
    """Full passes of one sample that all blocks need together: each block begins with the network before any edit."""
    walks = sum(len(columns) for _, columns in block_plan(len(edits), n_samples))
    return float(engine.shares(edits).sum()) * n_samples + walks


def compiled_where_it_pays(engine: Engine, passes: float, execution: Execution | None = None) -> Engine:
    """The engine compiled, if so many full passes are worth it or the execution says so."""
    wanted = (execution or Execution()).compile
    pays = passes * engine.pass_work > engine.compile_from if wanted is None else wanted
    return engine.compiled() if pays and engine.compiled is not None else engine
