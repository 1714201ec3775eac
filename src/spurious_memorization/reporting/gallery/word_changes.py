"""Which words of a text an edit acts on: what of its margin change goes if the word is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.texts import Texts
from ...datasets.word_properties import WORD
from ...edits.apply import edited_tensors
from ...edits.edit import Edit, EditSpec
from ...errors import UserError
from ...networks.forward import device_of, exact_float32, logits, moved, working_copy
from ...networks.losses import margin
from ...networks.selection import Selection
from ...networks.units import parse_units
from ...settings import Execution
from ...studies.network import StudiedNetwork

SHOWN_WORDS = 3
"""Words that are marked in a text."""


class WordChange(NamedTuple):
    """A word and what it has to do with an edit.

    Arguments:
        part: 0 for the first text, 1 for the second.
        start, end: place of the word in the text.
        change: the margin change by the edit on the text, minus that on the text without the word. Below 0 if the edit
            lowers the margin because of this word.
    """

    part: int
    start: int
    end: int
    change: float


def edit_of(studied: StudiedNetwork, variant: pd.Series) -> Edit:
    """The edit of a row of `variants.parquet`, whose units are listed.

    Raises:
        UserError: the checkpoint that it puts in is gone.
    """
    spec = EditSpec(variant["kind"], json.loads(variant["parameters"]))
    units = parse_units(studied.model, variant["units"], Selection(unit=variant["unit"]))
    return Edit(spec.kind, units, spec.parameters, studied.tensors_of(spec, variant["unit"]), seed=int(variant["seed"]))


def word_changes(
    studied: StudiedNetwork, edit: Edit, samples: Sequence[int], execution: Execution | None = None
) -> dict[int, tuple[WordChange, ...]]:
    """The words of each sample whose leaving out changes the most, the largest first; at most `SHOWN_WORDS` of them.

    Each word is left out of the text alone, and both networks answer the text without it.

    Arguments:
        studied: the network before the edit, and its data, which are texts.
        edit: the edit.
        samples: index of each sample.
        execution: batch size.

    Raises:
        UserError: the data are no texts.
    """
    source = studied.data.source
    if not isinstance(source, Texts):
        raise UserError("the data are no texts")
    words = [(sample, *place) for sample in samples for place in _places(source, sample)]
    first: list[str] = []
    second: list[str] = []
    for sample, part, start, end in [*((sample, -1, 0, 0) for sample in samples), *words]:
        left = [text[:start] + text[end:] if i == part else text for i, text in enumerate(source.parts(sample))]
        first.append(left[0])
        second.append(left[-1])
    inputs = source.tokenized(first, second if source.pairs is not None else None)
    y = studied.data.y[[*samples, *(sample for sample, *_ in words)]]
    network = working_copy(studied.model)
    size = (execution or Execution()).samples_per_pass
    changes = _margins(network, inputs, y, size, edited_tensors(network, edit)) - _margins(network, inputs, y, size, {})
    of_whole = dict(zip(samples, changes[: len(samples)].tolist(), strict=True))
    found: dict[int, list[WordChange]] = {sample: [] for sample in samples}
    for (sample, part, start, end), change in zip(words, changes[len(samples) :].tolist(), strict=True):
        found[sample].append(WordChange(part, start, end, of_whole[sample] - change))
    return {
        sample: tuple(sorted(of_sample, key=lambda one: -abs(one.change))[:SHOWN_WORDS])
        for sample, of_sample in found.items()
    }


def _places(source: Texts, sample: int) -> list[tuple[int, int, int]]:
    """Part, start and end of each word of a sample."""
    return [
        (part, match.start(), match.end())
        for part, text in enumerate(source.parts(sample))
        for match in WORD.finditer(text)
    ]


def _margins(
    network: torch.nn.Module, inputs: Mapping[str, Tensor], y: NDArray[np.int64], size: int, changed: dict[str, Tensor]
) -> NDArray[Any]:
    """Margin of each text, [texts]."""
    device, parts = device_of(network), []
    with torch.no_grad(), exact_float32():
        for start in range(0, len(y), size):
            batch = {name: values[start : start + size].long() for name, values in inputs.items()}
            labels = torch.from_numpy(y[start : start + size]).to(device)
            parts.append(margin(logits(network, moved(batch, device), changed), labels).cpu())
    return torch.cat(parts).double().numpy()
