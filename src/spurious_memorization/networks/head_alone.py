"""The classifier head as a network of its own, on features that the other layers compute once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..console import log, progress
from ..datasets.samples import Dataset, Samples
from ..datasets.sources import Inputs, Tensors
from ..errors import UserError
from ..resources import check_memory
from ..settings import Execution
from .feature_files import feature_file, read_features, write_features
from .features import features_and_logits
from .forward import choose_device, exact_float32, moved, outside_inference_mode, working_copy
from .head import head_names, linear_head, name_head
from .losses import finite

CHECKED_SAMPLES = 8
"""Stored features are compared with those of so many samples, computed anew."""

ROUNDING = 1e-3
"""Largest difference of the same features by two computations, as a share of the largest feature."""


@dataclass(frozen=True, eq=False)
class EncodedInputs(Tensors):
    """Features [samples, features] in place of the inputs of which they were computed.

    Arguments:
        of: fingerprint of these inputs. It is that of the features, too, since the samples are the same.
    """

    of: str

    def fingerprint(self) -> str:
        return self.of


class HeadAlone(nn.Module):
    """A network's linear head, under its name in the network. It gives the logits for features [samples, features].

    Arguments:
        name: module name of the head in the network.
        head: the layer itself, not a copy.
    """

    def __init__(self, name: str, head: nn.Linear) -> None:
        super().__init__()
        *folders, last = name.split(".")
        place: nn.Module = self
        for folder in folders:
            inner = nn.Module()
            place.add_module(folder, inner)
            place = inner
        place.add_module(last, head)
        self._head_name = name
        name_head(self, (name,))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [samples, classes]."""
        logits: Tensor = self.get_submodule(self._head_name)(features)
        return logits


@outside_inference_mode
def head_on_features(
    model: nn.Module, data: Dataset, needed_by: str, execution: Execution | None = None
) -> tuple[nn.Module, Dataset]:
    """A network's head alone, and the data set whose inputs are the features that the head gets.

    The features are computed in evaluation mode and in float32. They are kept beside the decoded images, so a later
    call with the same layers and samples reads them.

    Arguments:
        model: the network, which stays as it is. Its head is shared, not copied.
        data: the samples.
        needed_by: what needs them, for errors.
        execution: device, workers, batch size.

    Raises:
        UserError: the logits don't come from one linear layer alone, a feature is NaN or infinite, or the features
            don't fit into memory.
    """
    execution = execution or Execution()
    head = linear_head(model, needed_by)
    (name,) = head_names(model)
    if not name:
        return model, data
    check_memory(4 * len(data) * head.in_features, f"{len(data)} x {head.in_features} features", "use fewer samples")
    network = working_copy(model, choose_device(execution.device))
    _check_head(network, name, data.samples(data.splits[0]).part(range(CHECKED_SAMPLES)), needed_by, execution)
    file = feature_file(network, name, data)
    features = None if file is None else read_features(file, len(data), head.in_features)
    if features is not None and _are_features_of(network, features, data, execution):
        log(f"features: those of {len(data)} samples from an earlier call")
    else:
        features = _computed(network, data, head.in_features, execution)
        if file is not None:
            write_features(file, features)
    return HeadAlone(name, head), replace(data, source=EncodedInputs(features, data.source.fingerprint()))


def _computed(network: nn.Module, data: Dataset, width: int, execution: Execution) -> Tensor:
    """The features of all samples that belong to a split, [samples, features]; zeros for the others."""
    features = torch.zeros(len(data), width)
    for split in data.splits:
        samples = data.samples(split)
        batches = samples.batches(execution.samples_per_pass, execution.workers or 0)
        n = -(-len(samples) // execution.samples_per_pass)
        for batch in progress(batches, n, f"features, {split}"):
            features[batch.index] = _features_and_logits(network, batch.inputs, execution)[0]
            finite(features[batch.index], batch.index, "the encoder", source=data.source)
    return features


def _check_head(network: nn.Module, name: str, samples: Samples, needed_by: str, execution: Execution) -> None:
    """Check that the head's output is the network's output."""
    features, logits = _features_and_logits(network, samples.batch().inputs, execution)
    head = linear_head(network, needed_by)
    fits = features.shape[1] == head.in_features and logits.shape[1] == head.out_features
    if not fits or not _are_close(head(features.to(head.weight)).cpu(), logits):
        raise UserError(
            f"{needed_by} needs a head whose output is the network's answer: the answer of {name} goes through more "
            "before it is one"
        )


def _are_features_of(network: nn.Module, features: Tensor, data: Dataset, execution: Execution) -> bool:
    """Whether stored features are those of this network, on a few samples of each split."""
    for split in data.splits:
        samples = data.samples(split).part(range(CHECKED_SAMPLES))
        own, _ = _features_and_logits(network, samples.batch().inputs, execution)
        if not _are_close(own, features[samples.index]):
            return False
    return True


def _features_and_logits(network: nn.Module, inputs: Inputs, execution: Execution) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), exact_float32():
        features, logits = features_and_logits(network, moved(inputs, choose_device(execution.device)))
    return features.cpu(), logits.cpu()


def _are_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= ROUNDING * other.abs().max().clamp(min=1e-12))
