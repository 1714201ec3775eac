"""The prefix engine where it can run a network, and full forward passes where it cannot or fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..console import log
from ..datasets.samples import Samples
from ..datasets.sources import Inputs
from ..edits.edit import Edit
from ..errors import UserError, first_line, is_out_of_memory
from ..networks.names import LossName, Precision
from ..settings import Execution
from .outcomes import Block
from .pass_time import TimedPass
from .plain import PlainEngine
from .prefix.engine import PrefixEngine, prefix_engine
from .prefix.program import NotExportable
from .threads import on_threads

T = TypeVar("T")


def prefix_or_plain(
    model: nn.Module, example: Inputs, *, loss: LossName, precision: Precision, execution: Execution
) -> FallbackEngine:
    """The prefix engine; the plain one if torch.export cannot handle the network or its inputs, or if anything fails.

    Arguments:
        model: the network, which stays as it is.
        example: a few inputs, [samples, ...].
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Raises:
        UserError: the device is not available, or its memory is full.
    """
    try:
        return FallbackEngine(prefix_engine(model, example, loss=loss, precision=precision, execution=execution))
    except UserError:
        raise
    except NotExportable as error:
        reason = str(error)
    except Exception as error:
        reason = _announced(error)
    return FallbackEngine(PlainEngine(model, loss=loss, precision=precision, execution=execution, reason=reason))


class FallbackEngine:
    """Runs an engine; after the first unexpected error of the prefix engine the plain one, with a line in the log.

    A `UserError` passes through. So does memory that is full, as a `UserError`: the plain engine's batches are no
    smaller. Blocks from before the error stay valid, since both engines agree up to rounding.

    Arguments:
        engine: the prefix engine, or already the plain one.
        threads: with which it computes; those of the process if not given.
    """

    def __init__(self, engine: PrefixEngine | PlainEngine, threads: int | None = None) -> None:
        self._engine = engine
        self._threads = threads

    @property
    def description(self) -> str:
        """How outcomes are computed now: "shared prefix", or "plain" and the reason."""
        return self._engine.description

    @property
    def precision(self) -> Precision:
        """Precision of the forward passes."""
        return self._engine.precision

    @property
    def pass_multiplications(self) -> int:
        """Multiplications of a full forward pass of one sample; 0 where they are not known."""
        return self._engine.pass_multiplications

    def run(self, edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        """Compute one block; see `Engine.run`."""
        return self._result(lambda engine: engine.run(edits, rows, samples))

    def pass_fractions(self, edits: Sequence[Edit]) -> NDArray[np.float64]:
        """The fraction of a full forward pass that each edit needs, between 0 and 1, [edits]."""
        return self._result(lambda engine: engine.pass_fractions(edits))

    def pass_time(self, samples: Samples, precision: Precision | None = None) -> TimedPass:
        """Measure how long a full forward pass of one sample takes, in this precision or in the engine's own."""
        return self._result(lambda engine: engine.pass_time(samples, precision))

    def compiling_pays(self, passes: float) -> bool:
        """Whether compiling saves more time than it costs, for this number of full forward passes of one sample."""
        return self._engine.compiling_pays(passes)

    def on_threads(self, n: int) -> FallbackEngine:
        """The same engine, which computes with so many threads."""
        return FallbackEngine(self._engine, n)

    def compiled(self) -> FallbackEngine:
        """The same engine compiled by torch.compile; the engine itself where that is not possible."""
        return FallbackEngine(self._result(lambda engine: engine.compiled()), self._threads)

    def _result(self, of: Callable[[PrefixEngine | PlainEngine], T]) -> T:
        with on_threads(self._threads):
            return self._result_of_either(of)

    def _result_of_either(self, of: Callable[[PrefixEngine | PlainEngine], T]) -> T:
        failing = self._engine
        if isinstance(failing, PlainEngine):
            return of(failing)
        try:
            return of(failing)
        except UserError:
            raise
        except Exception as error:
            reason = _announced(error)
        self._engine = PlainEngine(
            failing.network.model,
            loss=failing.loss,
            precision=failing.precision,
            execution=failing.execution,
            reason=reason,
        )
        return of(self._engine)


def _announced(error: Exception) -> str:
    """Log that the prefix engine failed; give the reason.

    Raises:
        UserError: memory is full.
    """
    what = f"{type(error).__name__}: {first_line(error)}"
    if is_out_of_memory(error):
        raise UserError(
            f"no memory is left for edited networks ({what}): use smaller batches (--eval-batch-size), or a machine "
            "with more memory"
        ) from error
    reason = f"the prefix engine failed ({what})"
    log(f"{reason}: going on with full forward passes")
    return reason
