"""The shared-prefix engine: a batch passes through the unedited network once, and each edit branches off where it
first changes something.

The network is cut into segments between which a single value passes. On the way through a segment, each edit that
starts there is followed channel by channel (`changes`) until every channel differs. Edits that are that far are
stacked along the batch axis, and what is left of the network runs once for the stack.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...datasets.samples import Samples
from ...edits.edit import Edit
from ...networks.forward import choose_device, moved, working_copy
from ...networks.losses import LOSSES, margin
from ...networks.names import LossName, Precision
from ...settings import Execution
from ..cpu.memory import reused_memory
from ..outcomes import Block, Engine
from .changes import Change, Channels, Prepared, as_run, changes
from .traced import Traced, kept_ready, run_alone, run_stack, segment_values, traced
from .work import full_work

BATCH_BYTES = 32_000_000
"""Size of the largest value of a batch, and of a stack."""

WAITING_BYTES = 256_000_000
"""Size of the changes that wait for the next segment."""

COMPILE_FROM = 2e14
"""Multiplications from which compiling pays: about half an hour on two cores, against half a minute to compile. In
float32 on a CPU it never does: oneDNN's and Winograd's convolutions are as fast, and the rest goes along with them."""

UNEDITED = -1


def shared_engine(
    model: nn.Module,
    example: Tensor,
    *,
    loss: LossName = "cross_entropy",
    precision: Precision = "float32",
    execution: Execution | None = None,
) -> Engine:
    """An engine that calculates for each edit only what the edit changes.

    Arguments:
        model: the network, which stays as it is.
        example: an input with a batch axis, [samples, ...].
        loss: name of the loss to record.
        precision: "float32" or "bf16".
        execution: device, workers, batch size; changes no result.

    Raises:
        Untraceable: the network can't be cut; the plain engine can run it.
    """
    execution = execution or Execution()
    device = choose_device(execution.device)
    network = traced(working_copy(model, device), example.to(device), precision)
    return _engine(network, example.to(device), loss, execution)


def _engine(network: Traced, example: Tensor, loss: LossName, execution: Execution) -> Engine:
    device = example.device
    batch_size = max(1, min(execution.eval_batch_size, BATCH_BYTES // network.row_bytes[0]))

    def run(edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        shape = (len(rows), len(samples))
        predicted, losses = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
        margins = np.zeros(shape, np.float32)
        wanted, prepared = {row: edits[row] for row in rows if row != UNEDITED}, kept_ready(network)
        for edit in wanted.values():  # now: what is small and stays would lie scattered between a batch's large values
            if edit.units.kind != "weight":
                prepared(edit)
        start = 0
        with torch.no_grad(), reused_memory() as give_back:
            for batch in samples.batches(batch_size, execution.workers or 0):
                inputs, y = moved(batch.inputs, device), batch.y.to(device)
                assert isinstance(inputs, Tensor)
                here = slice(start, start + len(y))
                for row, output in answers(network, wanted, inputs, unedited=UNEDITED in rows, prepared=prepared):
                    at = row - rows.start
                    predicted[at, here] = output.argmax(1).cpu().numpy()
                    losses[at, here] = LOSSES[loss](output, y).cpu().numpy()
                    margins[at, here] = margin(output, y).cpu().numpy()
                    give_back()
                start += len(y)
        return Block(np.array(rows), samples.index, predicted, losses, margins)

    def shares(edits: Sequence[Edit]) -> NDArray[np.float64]:
        return np.array([network.share(edit) for edit in edits])

    def pass_seconds(samples: Samples, network: Traced = network) -> float:
        inputs = moved(samples.part(range(batch_size)).batch().inputs, device)
        assert isinstance(inputs, Tensor)
        with torch.no_grad(), reused_memory():
            return min(_seconds(network, as_run(inputs, network.dtype)) for _ in range(2)) / len(inputs)

    def compiled() -> Engine:
        again = network.compiled(example.expand(batch_size, *example.shape[1:]))
        return _engine(again, example, loss, execution)

    return Engine(
        run,
        "shared prefix, compiled" if network.is_compiled else "shared prefix",
        shares,
        pass_seconds,
        None if network.dtype == torch.float32 else lambda samples: pass_seconds(samples, network.in_float32()),
        full_work(network.segments),
        compiled,
        inf if device.type == "cpu" and network.dtype == torch.float32 else COMPILE_FROM,
    )


def answers(
    network: Traced,
    edits: Mapping[int, Edit],
    inputs: Tensor,
    *,
    unedited: bool,
    prepared: Callable[[Edit], Prepared] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Logits [samples, classes] of every edited network, in the order in which they become known.

    Arguments:
        network: before any edit.
        edits: by number.
        inputs: [samples, ...].
        unedited: give the logits before any edit too, as number -1.
        prepared: makes an edit ready, or has it ready.
    """
    prepared = prepared or network.prepared
    last = len(network.segments) - 1
    starting: dict[int, list[int]] = defaultdict(list)
    for number, edit in edits.items():
        starting[min((network.place[node] for node in network.touched(edit)), default=last)].append(number)
    waiting: dict[int, Channels] = {}
    same = [UNEDITED] if unedited else []
    stacks = _Stacks(network)
    value = as_run(inputs, network.dtype)
    for place, segment in enumerate(network.segments):
        came, waiting, waiting_bytes = waiting, {}, 0
        here = [*came, *starting.pop(place, ())]
        if not here:
            if not (starting or same):
                return
            value = network.runs[place](value)
            continue
        values = segment_values(network.program, segment, network.constants, value, ways=network.ways)
        for number in here:
            ready = prepared(edits[number])
            places = sorted({network.place[node] for node in ready.touched})
            if ready.constants:
                end = places[-1] + 1
                stacks.add(end, number, ready, run_alone(network, place, end, value, ready))
                yield from stacks.full()
                continue
            given = came.pop(number, None)
            change = changes(network.program, segment, ready, given, values, network.constants, network.ways)
            later = [p for p in places if p > place]
            if change is None and later:
                starting[later[0]].append(number)
            elif change is None:
                same.append(number)
            elif isinstance(change, Channels) and place < last and waiting_bytes < WAITING_BYTES:
                waiting[number] = change
                waiting_bytes += change.new.nbytes
            else:
                stacks.add(place + 1, number, ready, _whole(change, values[segment.output]))
            del change  # a stack runs beside nothing that it doesn't need
            yield from stacks.full()
        if len(waiting) == 1 and not (starting or same):  # alone, it would need the unedited values all for itself
            ((number, few),) = waiting.items()
            waiting = {}
            stacks.add(place + 1, number, prepared(edits[number]), few.whole(values[segment.output]))
            del few
        value = values[segment.output]
        del values
        yield from stacks.rest()
    for number in same:
        yield number, value.float()


def _whole(change: Change, unedited: Tensor) -> Tensor:
    return change.whole(unedited) if isinstance(change, Channels) else change


def _seconds(network: Traced, inputs: Tensor) -> float:
    started = time.perf_counter()
    for run in network.runs:
        inputs = run(inputs)
    inputs.sum().item()  # waits for an accelerator
    return time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class _Stacks:
    """Edited networks that have come as far as a segment, until they are enough to run on together."""

    network: Traced
    members: dict[int, list[tuple[int, Prepared, Tensor]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, start: int, number: int, edit: Prepared, value: Tensor) -> None:
        """Add what an edited network gives to segment `start`."""
        self.members[start].append((number, edit, value))

    def full(self) -> Iterator[tuple[int, Tensor]]:
        """The logits of each stack that one more would make too large, and of all once they are as large together."""
        if sum(value.nbytes for waiting in self.members.values() for _, _, value in waiting) > BATCH_BYTES:
            yield from self.rest()
        for start, waiting in list(self.members.items()):
            rows = (len(waiting) + 1) * len(waiting[0][2])
            is_through = start == len(self.network.segments)
            if is_through or rows * self.network.row_bytes[start] > BATCH_BYTES:
                yield from self._run(start)

    def rest(self) -> Iterator[tuple[int, Tensor]]:
        """The logits of all that wait."""
        for start in list(self.members):
            yield from self._run(start)

    def _run(self, start: int) -> Iterator[tuple[int, Tensor]]:
        waiting = self.members.pop(start)
        numbers, edits = [number for number, _, _ in waiting], [edit for _, edit, _ in waiting]
        given = [value for _, _, value in waiting]
        waiting.clear()
        yield from zip(numbers, run_stack(self.network, start, edits, given), strict=True)
