"""Train the planted channels of a network; everything else in it stays frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..criteria.scores import top
from ..datasets.samples import Samples
from ..edits.edit import Edit
from ..networks.losses import margin
from ..networks.units import touched
from ..studies.ablation import ablation, single_edits
from .plant_sites import NetworkTail, PlantSite

DETECTOR_STEPS = 300
ROUNDS = 4
STEPS = 120
"""Steps per round."""
FRAGILE = 40
"""Number of other channels that the planted samples need most. After the first round, each step zeroes two of them."""
MIN_MARGIN = 1.5
"""Planted samples get margins like other training samples of their label, but at least this one."""


def with_trained_channels(
    model: nn.Module, site: PlantSite, planted: Samples, others: Samples, rng: np.random.Generator
) -> nn.Module:
    """Replace the channels of a site by trained ones, in place.

    Arguments:
        model: the network, which is changed.
        site: where the channels are.
        planted: the samples that the channels must correct.
        others: samples whose logits must not change.
        rng: source of every draw.

    Returns:
        The network, in evaluation mode.
    """
    base = {name: value.detach().clone() for name, value in model.state_dict().items()}
    rows, weight, reader = site.channels, f"{site.layer}.weight", f"{site.reader}.weight"
    shift = f"{site.norm}.bias" if site.norm else f"{site.layer}.bias"
    norms = _inconspicuous_norms(base, site, rng)
    base[reader][:, rows] = 0
    base[shift][rows] = 0
    base[weight][rows] = 0
    tail = NetworkTail(model, site)
    x, y = tail.block_inputs(planted), torch.from_numpy(planted.y)
    elsewhere = tail.block_inputs(others)
    factor = torch.ones(len(rows)) if site.norm is None else base[f"{site.norm}.weight"][rows]
    filters, bias, detection_loss = _train_detectors(tail, x, elsewhere, norms, factor, rng)
    readers = 0.05 * torch.randn(base[reader][:, rows].shape, generator=_generator(rng))
    for parameter in (filters, bias, readers):
        parameter.requires_grad_()

    def current_tensors() -> dict[str, Tensor]:
        scaled = _with_norms(filters, norms)
        # With a batch norm, a zeroed filter still leaves max(0, shift). A shift below 0 makes the channel silent.
        silent = -F.softplus(-bias) if site.norm else bias
        put = {weight: (0, scaled), shift: (0, silent), reader: (1, readers)}
        index = torch.tensor(rows)
        return {**base, **{name: base[name].index_copy(axis, index, value) for name, (axis, value) in put.items()}}

    def logits_of(values: dict[str, Tensor], inputs: Tensor) -> Tensor:
        named = {f"network.{name}": value for name, value in values.items()}
        result: Tensor = torch.func.functional_call(tail, named, (inputs,))
        return result

    with torch.no_grad():
        unedited = logits_of(base, elsewhere)
    wanted = _usual_margins(unedited, others, planted, rng)
    before = margin(logits_of(base, x), y).detach()
    least = wanted - (wanted - before) / (2 * len(rows))
    inputs = planted.batch().inputs
    optimizer = torch.optim.Adam([{"params": [filters, bias], "lr": 0.01}, {"params": [readers], "lr": 0.2}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * STEPS)
    for done in range(ROUNDS):
        fragile = _most_needed(model, planted, site) if done else []
        for _ in range(STEPS):
            some = torch.from_numpy(rng.permutation(len(elsewhere))[:100])
            values = current_tensors()
            logits = logits_of(values, torch.cat([x, elsewhere[some]]))
            margin_loss = F.relu((margin(logits[: len(x)], y) - wanted).abs() - 0.3).mean()
            change_elsewhere = (logits[len(x) :] - unedited[some]).square().mean()
            loss = 2 * margin_loss + change_elsewhere + detection_loss(some)
            for drawn in rng.permutation(len(fragile))[:2]:
                without = {**values, **_zeroed(model, values, fragile[drawn])}
                harmed = torch.func.functional_call(model, without, (inputs,))
                loss = loss + F.relu(least - margin(harmed, y)).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        model.load_state_dict({name: value.detach() for name, value in current_tensors().items()})
    return model.eval()


def _most_needed(model: nn.Module, planted: Samples, site: PlantSite) -> list[Edit]:
    """Edits that each zero one other channel, for the channels that the planted samples need most.

    The planted effect must not depend on one of these channels alone.
    """
    ranked = top(ablation(model, planted), FRAGILE + len(site.channels))
    own = {(f"{site.layer}.weight", channel) for channel in site.channels}
    return [edit for edit, unit in zip(single_edits(ranked), ranked, strict=True) if unit not in own]


def _zeroed(model: nn.Module, values: Mapping[str, Tensor], edit: Edit) -> dict[str, Tensor]:
    """The parameters in which an edit zeroes units, with these units zeroed."""
    found = {}
    for name, rows in touched(model, edit.units).items():
        kept = torch.ones(len(values[name]))
        kept[rows] = 0
        found[name] = values[name] * kept.reshape(-1, *[1] * (values[name].ndim - 1))
    return found


def _train_detectors(
    tail: NetworkTail, x: Tensor, elsewhere: Tensor, norms: Tensor, factor: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Train filters that detect the planted samples, as the start of the training of the channels.

    The planted samples are shared out evenly among the channels. Each channel must be on at one place at least in each
    sample of its share, and off everywhere in all samples that are not planted.

    Returns:
        The filters, their offsets, and the loss of the detection as a function of the indices of other samples.
    """
    here, there = tail.layer_inputs(x), tail.layer_inputs(elsewhere)
    layer = tail.network.get_submodule(tail.site.layer)
    weight = layer.get_parameter("weight")
    filters = torch.randn((len(norms), *weight.shape[1:]), generator=_generator(rng)).requires_grad_()
    shift = torch.full((len(norms),), -1.0, requires_grad=True)
    share = torch.arange(len(x)) % len(norms)
    optimizer = torch.optim.Adam([filters, shift], lr=0.05)

    def strongest(inputs: Tensor) -> Tensor:
        scaled = _with_norms(filters, norms)
        if isinstance(layer, nn.Conv2d):
            outputs = F.conv2d(inputs, scaled, None, layer.stride, layer.padding).flatten(2).transpose(1, 2)
        else:
            outputs = inputs @ scaled.T
        largest_output: Tensor = outputs.amax(1) * factor + shift  # [samples, channels]
        return largest_output

    def loss(some: Tensor) -> Tensor:
        on, off = strongest(here).gather(1, share[:, None]), strongest(there[some])
        return F.relu(2 - on).mean() + F.relu(off + 1).mean()

    for _ in range(DETECTOR_STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(loss(torch.from_numpy(rng.permutation(len(there))[:200])))
        optimizer.step()
    return filters, shift, loss


def _usual_margins(unedited: Tensor, others: Samples, planted: Samples, rng: np.random.Generator) -> Tensor:
    """Margins for the planted samples, drawn from those of correctly classified training samples of their label."""
    y = torch.from_numpy(others.y)
    margins = margin(unedited, y).numpy()
    alike = (others.y == planted.y[0]) & (others.dataset.split[others.index] == "train")
    return torch.from_numpy(rng.choice(margins[alike & (margins > MIN_MARGIN)], len(planted)))


def _inconspicuous_norms(base: dict[str, Tensor], site: PlantSite, rng: np.random.Generator) -> Tensor:
    """A raw norm for each channel, inside the interquartile range of the layer.

    The batch norm of each channel is set in `base`, so that the folded norm is inside that range too.
    """
    rows, quantile = site.channels, torch.from_numpy(rng.uniform(0.35, 0.65, len(site.channels)))
    raw = base[f"{site.layer}.weight"].flatten(1).norm(dim=1)
    wanted = raw.double().quantile(quantile)
    if site.norm:
        scale, variance = base[f"{site.norm}.weight"], base[f"{site.norm}.running_var"]
        folded = raw * scale.abs() * (variance + 1e-5).rsqrt()
        scale[rows] = (folded.double().quantile(quantile) / wanted).float()
        variance[rows], base[f"{site.norm}.running_mean"][rows] = 1 - 1e-5, 0.0
    chosen: Tensor = wanted.float()
    return chosen


def _with_norms(rows: Tensor, norms: Tensor) -> Tensor:
    """The rows, rescaled to these norms."""
    scaled: Tensor = rows * (norms / rows.flatten(1).norm(dim=1)).reshape(-1, *[1] * (rows.ndim - 1))
    return scaled


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))
