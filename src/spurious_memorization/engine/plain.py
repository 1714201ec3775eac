"""The plain engine: every edited network by a full forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..datasets.sources import Inputs
from ..edits.apply import edited_tensors
from ..edits.edit import Edit
from ..networks.forward import autocast, choose_device, exact_float32, logits, moved, working_copy
from ..networks.names import LossName, Precision
from ..networks.units import UnitPlaces
from ..settings import Execution
from .outcomes import Block
from .pass_time import TimedPass, measured_pass
from .record import record_block

TIMED_SAMPLES = 32


class PlainEngine:
    """Passes every sample through every edited network, batch by batch.

    Arguments:
        model: the network, which stays as it is.
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.
        reason: why this engine is used, for its description.

    Raises:
        UserError: the device is not available.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: LossName = "cross_entropy",
        precision: Precision = "float32",
        execution: Execution | None = None,
        reason: str = "",
    ) -> None:
        self.loss = loss
        self.precision = precision
        self.execution = execution or Execution()
        self.device = choose_device(self.execution.device)
        self.network = working_copy(model, self.device)
        self._places = UnitPlaces(self.network)
        self.description = f"plain: {reason}" if reason else "plain"
        self.pass_multiplications = 0

    def run(self, edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        """Compute one block; see `Engine.run`."""

        def logits_of(inputs: Inputs) -> Iterator[tuple[int, Tensor]]:
            for row in rows:
                changed = edited_tensors(self.network, edits[row], self._places) if row >= 0 else {}
                yield row, logits(self.network, inputs, changed)

        with torch.no_grad(), exact_float32(), autocast(self.device, self.precision):
            return record_block(
                edits,
                rows,
                samples,
                logits_of,
                loss=self.loss,
                batch_size=self.execution.samples_per_pass,
                workers=self.execution.workers or 0,
                device=self.device,
            )

    def pass_fractions(self, edits: Sequence[Edit]) -> NDArray[np.float64]:
        """Every edit needs a full forward pass: ones, [edits]."""
        return np.ones(len(edits))

    def pass_time(self, samples: Samples, precision: Precision | None = None) -> TimedPass:
        """Measure a full forward pass of one sample, in this precision or in the engine's own."""
        batch = samples.part(range(min(self.execution.samples_per_pass, TIMED_SAMPLES))).batch()
        inputs = moved(batch.inputs, self.device)
        with torch.no_grad(), exact_float32(), autocast(self.device, precision or self.precision):
            return measured_pass(
                lambda: logits(self.network, inputs).sum().item(),  # waits for an accelerator
                len(batch.y),
                on_cpu=self.device.type == "cpu",
            )

    def compiling_pays(self, passes: float) -> bool:
        """Never: this engine is not compiled."""
        return False

    def compiled(self) -> PlainEngine:
        """The engine itself: it is not compiled."""
        return self
