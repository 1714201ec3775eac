"""The prefix engine: a batch passes through the unedited network once, and each edit branches off at its first change.

The network is cut into segments between which a single value passes. In the segment where an edit starts, its change
is computed channel by channel (`changes`) until every channel differs. Edits that have reached this point are stacked
along the batch axis, and the rest of the network runs once for the whole stack.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...datasets.samples import Samples
from ...datasets.sources import Inputs
from ...edits.edit import Edit
from ...networks.forward import choose_device, device_of, exact_float32, first_repeated, moved, working_copy
from ...networks.names import LossName, Precision
from ...settings import Execution
from ..cpu.kernels import reused_memory
from ..outcomes import Block
from ..pass_time import TimedPass, measured_pass
from ..record import record_block
from .changes import segment_change
from .channelwise import Change, ChangedChannels
from .edit_cache import EditCache
from .multiplications import full_pass_multiplications
from .network import SegmentedNetwork, Shared, segment_values, segmented
from .stacks import Stacks

BATCH_BYTES = 32_000_000
"""Size of the largest value of a batch, and of a stack."""

ENOUGH_ON_CPU = 1024, 4_000_000
"""Samples, and size of their largest value. On a CPU, batches beyond both are no faster: they don't fit its caches."""

PARTS_OF_GPU = 64
"""A GPU needs larger batches: one in this many parts of its memory."""

WAITING_BYTES = 256_000_000
"""Size of the changes in few channels that may wait for the next segment. It grows with the size of a batch."""

MIN_MULTIPLICATIONS_TO_COMPILE = 2e14
"""Compiling pays from this many multiplications: about half an hour on two cores, against half a minute to compile."""

UNEDITED = -1
"""Number of the network before any edit."""


def prefix_engine(
    model: nn.Module,
    example: Inputs,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> PrefixEngine:
    """Export a network, cut it into segments, and build its engine.

    Arguments:
        model: the network, which stays as it is.
        example: a few inputs, [samples, ...].
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Raises:
        NotExportable: torch.export cannot handle the network; the plain engine can run it.
        UserError: the device is not available.
    """
    execution = execution or Execution()
    device = choose_device(execution.device)
    example = moved(example, device)
    network = segmented(working_copy(model, device), example, precision)
    return PrefixEngine(network, example, loss=loss, execution=execution)


class PrefixEngine:
    """Computes for each edit only what the edit changes.

    Arguments:
        network: the network before any edit, cut into segments.
        example: a few inputs, [samples, ...], on the network's device.
        loss: name of the loss to record.
        execution: workers and batch size; changes no result.
    """

    def __init__(self, network: SegmentedNetwork, example: Inputs, *, loss: LossName, execution: Execution) -> None:
        self.network = network
        self.example = example
        self.device = device_of(network.model)
        self.loss = loss
        self.execution = execution
        self.precision = network.precision
        fitting = max(1, _batch_bytes(self.device) // network.row_bytes[0])
        samples, size = ENOUGH_ON_CPU
        enough = fitting if self.device.type == "cuda" else max(samples, size // network.row_bytes[0])
        self.batch_size = min(execution.eval_batch_size or enough, fitting)
        self.description = "shared prefix, compiled" if network.is_compiled else "shared prefix"
        self.pass_multiplications = full_pass_multiplications(network.segments)

    def run(self, edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        """Compute one block; see `Engine.run`."""
        wanted = {row: edits[row] for row in rows if row != UNEDITED}
        cache = EditCache(self.network)
        cache.fill(wanted.values())
        with torch.no_grad(), exact_float32(), reused_memory() as return_memory:

            def logits_of(inputs: Inputs) -> Iterator[tuple[int, Tensor]]:
                for row, logits in edited_logits(self.network, wanted, inputs, cache, unedited=UNEDITED in rows):
                    yield row, logits
                    return_memory()

            return record_block(
                edits,
                rows,
                samples,
                logits_of,
                loss=self.loss,
                batch_size=self.batch_size,
                workers=self.execution.workers or 0,
                device=self.device,
            )

    def pass_fractions(self, edits: Sequence[Edit]) -> NDArray[np.float64]:
        """The fraction of a full forward pass that each edit needs, between 0 and 1, [edits]."""
        return np.array([self.network.reach.pass_fraction(edits[position]) for position in range(len(edits))])

    def pass_time(self, samples: Samples, precision: Precision | None = None) -> TimedPass:
        """Measure a full forward pass of one sample, in this precision or in the engine's own."""
        network = self.network if precision in (None, self.precision) else self.network.in_precision(precision)
        inputs = moved(samples.part(range(self.batch_size)).batch().inputs, self.device)
        with torch.no_grad(), exact_float32(), reused_memory():
            value, shared = network.enter(inputs)
            return measured_pass(partial(_pass, network, value, shared), len(value), on_cpu=self.device.type == "cpu")

    def compiling_pays(self, passes: float) -> bool:
        """Whether compiling saves more time than it costs. In float32 on a CPU it never does: the convolutions of
        oneDNN and of the Winograd kernel are as fast, and compiling fuses nothing else that takes long. On a GPU it
        saved at most 8 %."""
        device = self.device.type
        if device == "cuda" or (device == "cpu" and self.precision == "float32"):
            return False
        return passes * self.pass_multiplications > MIN_MULTIPLICATIONS_TO_COMPILE

    def compiled(self) -> PrefixEngine:
        """The same engine with compiled segments, where a compiler is available."""
        network = self.network.compiled(first_repeated(self.example, self.batch_size))
        return PrefixEngine(network, self.example, loss=self.loss, execution=self.execution)


def edited_logits(
    network: SegmentedNetwork, edits: Mapping[int, Edit], inputs: Inputs, cache: EditCache, *, unedited: bool
) -> Iterator[tuple[int, Tensor]]:
    """Compute the logits of every edited network for one batch.

    Arguments:
        network: before any edit.
        edits: by number.
        inputs: [samples, ...].
        cache: prepares the edits.
        unedited: give the logits before any edit too, as number -1.

    Returns:
        (number of the edit, logits [samples, classes]), in the order in which they become known.
    """
    last = len(network.segments) - 1
    starting: dict[int, list[int]] = defaultdict(list)  # {segment: edits that first change something there}
    for number, edit in edits.items():
        first = min((network.segment_of[node] for node in network.reach.operations(edit)), default=last)
        starting[first].append(number)
    waiting: dict[int, ChangedChannels] = {}  # {edit: the few channels that it changes in the next segment's input}
    same = [UNEDITED] if unedited else []  # edits that turn out to change nothing
    value, shared = network.enter(inputs)
    constants = {**network.constants, **shared}
    batch_bytes = _batch_bytes(value.device)
    max_waiting = WAITING_BYTES * batch_bytes // BATCH_BYTES
    stacks = Stacks(network, shared, max_bytes=batch_bytes)
    for position, segment in enumerate(network.segments):
        arriving, waiting, waiting_bytes = waiting, {}, 0
        here = [*arriving, *starting.pop(position, ())]
        if not here:
            if not (starting or same):
                return
            value = network.run_segment(position, value, shared)
            continue
        values = segment_values(network.program, segment, constants, value, kernels=network.kernels)
        for number in here:
            prepared = cache.get(edits[number])
            changed_segments = sorted({network.segment_of[node] for node in prepared.operations})
            change = segment_change(
                network.program,
                segment,
                prepared,
                arriving.pop(number, None),
                unedited=values,
                constants=constants,
                kernels=network.kernels,
            )
            later = [p for p in changed_segments if p > position]
            if change is None and later:
                starting[later[0]].append(number)
            elif change is None:
                same.append(number)
            elif isinstance(change, ChangedChannels) and position < last and waiting_bytes < max_waiting:
                waiting[number] = change
                waiting_bytes += change.new.nbytes
            else:
                stacks.add(position + 1, number, prepared, _whole(change, values[segment.output]))
            del change  # while a stack runs, memory holds nothing that it does not need
            yield from stacks.full()
        if len(waiting) == 1 and not (starting or same):  # for one edit alone, the unedited values are not worth it
            ((number, few),) = waiting.items()
            waiting = {}
            stacks.add(position + 1, number, cache.get(edits[number]), few.whole(values[segment.output]))
            del few
        value = values[segment.output]
        del values
        yield from stacks.rest()
    for number in same:
        yield number, value.float()


def _whole(change: Change, unedited: Tensor) -> Tensor:
    return change.whole(unedited) if isinstance(change, ChangedChannels) else change


def _batch_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return BATCH_BYTES
    return max(BATCH_BYTES, torch.cuda.get_device_properties(device).total_memory // PARTS_OF_GPU)


def _pass(network: SegmentedNetwork, value: Tensor, shared: Shared) -> None:
    for position in range(len(network.segments)):
        value = network.run_segment(position, value, shared)
    value.sum().item()  # waits for an accelerator
