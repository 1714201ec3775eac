"""Planted truth: networks in which a few known channels memorize the training samples of one minority group.

A network is trained on the majority groups alone, so that it fails on the minority. Then m channels of one layer are
made anew: their own weights and what the next layer makes of them are trained to mend the training samples of one
minority group and to be silent on everything else, other images of the same group included, while the rest of the
network stays frozen. The result is an ordinary network of the same architecture. The channels' norms are held inside
the interquartile range of their layer, raw and folded, so that no criterion finds them for being loud.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..controls.norms import norms_of_units
from ..criteria.scores import top
from ..datasets.samples import Dataset, Samples
from ..edits.apply import edited
from ..edits.edit import Edit, zero
from ..networks.losses import margin
from ..networks.units import Units, parse_units, touched
from ..studies.ablation import ablation, single_edits
from .networks import Family, accuracies, trained

MAX_LEFT = 0.20
MIN_MENDED = 0.95
MAX_HARM = 0.01
MAX_NOISE = 0.05
"""A plant is accepted if ablating it drops the planted group from at least 95 % to at most 20 %, and every other group
by at most one point; and if no other group is more than five points better without it."""

DETECTOR_STEPS = 300
ROUNDS = 4
STEPS = 120
"""In each round."""
FRAGILE = 40
"""Other channels that the planted samples lean on most, of which two are zeroed in each step after the first round."""
MIN_MARGIN = 1.5
"""Planted samples get margins as other training samples of their label have them, but at least this."""


@dataclass(frozen=True, eq=False)
class Plant:
    """A network with a known answer.

    Arguments:
        model: the network, in evaluation mode.
        units: the planted channels.
        data: its samples; the planted group is the named minority.
        group: the planted group.
        norm_quantiles: where each planted channel's folded norm lies among those of its layer, [units].
        before, after: accuracy of the training groups with the channels and without.
    """

    model: nn.Module
    units: Units
    data: Dataset
    group: int
    norm_quantiles: NDArray[np.float64]
    before: dict[str, float]
    after: dict[str, float]

    @property
    def is_accepted(self) -> bool:
        """Whether the known answer holds."""
        planted = self.data.groups.names[self.group]
        others = [name for name in self.before if name != planted]
        return (
            self.before[planted] >= MIN_MENDED
            and self.after[planted] <= MAX_LEFT
            and all(-MAX_NOISE <= self.before[name] - self.after[name] <= MAX_HARM for name in others)
            and bool(((self.norm_quantiles >= 0.25) & (self.norm_quantiles <= 0.75)).all())
        )


def plant(family: Family, data: Dataset, seed: int, m: int) -> Plant:
    """Train a small network on the majority and plant `m` channels that memorize one minority group.

    Arguments:
        family: of the network.
        data: with train, val and test samples; the channels are trained to be silent on val, and test stays unseen.
        seed: of the network, and of the choice of group, layer and channels.
        m: number of channels.
    """
    rng = np.random.default_rng([seed, 0x91A27])
    train = data.train
    majority = train.at(train.index[np.isin(train.g, data.majority)])
    model = trained(family, majority, seed)
    group = int(rng.choice(data.minority))
    place = _Place.resnet(model, rng, m) if family == "resnet" else _Place.deit(model, rng, m)
    planted = _mended(model, place, train.of_group(group), _others(data, group), rng)
    units = parse_units(planted, ",".join(f"{place.layer}:{channel}" for channel in place.channels))
    own = data.with_minority([data.groups.names[group]])
    return Plant(
        planted,
        units,
        own,
        group,
        _quantiles(planted, units),
        accuracies(planted, own.train),
        accuracies(edited(planted, zero(units)), own.train),
    )


@dataclass(frozen=True, eq=False)
class _Place:
    """Where channels are planted.

    Arguments:
        block: the stage of a ResNet or block of a DeiT.
        layer: whose output channels they are.
        channels: their numbers.
        reader: the layer that reads them.
        norm: the batch norm behind the layer; none in a transformer.
    """

    block: str
    layer: str
    channels: list[int]
    reader: str
    norm: str | None

    @staticmethod
    def resnet(model: nn.Module, rng: np.random.Generator, m: int) -> _Place:
        """The first convolution of the block of a middle stage."""
        stage = f"layer{rng.choice([2, 3])}"
        n = len(model.get_parameter(f"{stage}.0.conv1.weight"))
        channels = sorted(rng.permutation(n)[:m].tolist())
        return _Place(stage, f"{stage}.0.conv1", channels, f"{stage}.0.conv2", f"{stage}.0.bn1")

    @staticmethod
    def deit(model: nn.Module, rng: np.random.Generator, m: int) -> _Place:
        """The hidden layer of the MLP of an early block."""
        block = f"blocks.{rng.choice([0, 1])}"
        n = len(model.get_parameter(f"{block}.mlp.fc1.weight"))
        return _Place(block, f"{block}.mlp.fc1", sorted(rng.permutation(n)[:m].tolist()), f"{block}.mlp.fc2", None)


def _others(data: Dataset, group: int) -> Samples:
    """What must stay as it is: all other training samples, and val samples."""
    there = ((data.split == "train") & (data.g != group)) | (data.split == "val")
    return Samples(data, np.flatnonzero(there), "train")


def _mended(model: nn.Module, place: _Place, planted: Samples, others: Samples, rng: np.random.Generator) -> nn.Module:
    """The network with trained channels in the place of those chosen."""
    base = {name: value.detach().clone() for name, value in model.state_dict().items()}
    rows, weight, reader = place.channels, f"{place.layer}.weight", f"{place.reader}.weight"
    shift = f"{place.norm}.bias" if place.norm else f"{place.layer}.bias"
    target = _quiet_norms(base, place, rng)
    base[reader][:, rows] = 0
    base[shift][rows] = 0
    base[weight][rows] = 0
    tail = _Tail(model, place)
    x, y = tail.reached(planted), torch.from_numpy(planted.y)
    elsewhere = tail.reached(others)
    factor = torch.ones(len(rows)) if place.norm is None else base[f"{place.norm}.weight"][rows]
    own, bias, detection = _detectors(tail, x, elsewhere, target, factor, rng)
    readers = 0.05 * torch.randn(base[reader][:, rows].shape, generator=_generator(rng))
    for parameter in (own, bias, readers):
        parameter.requires_grad_()

    def tensors() -> dict[str, Tensor]:
        scaled = _of_norm(own, target)
        shut = -F.softplus(-bias) if place.norm else bias  # a zeroed filter leaves max(0, shift): it must be shut
        put = {weight: (0, scaled), shift: (0, shut), reader: (1, readers)}
        index = torch.tensor(rows)
        return {**base, **{name: base[name].index_copy(axis, index, value) for name, (axis, value) in put.items()}}

    def answer(values: dict[str, Tensor], inputs: Tensor) -> Tensor:
        named = {f"network.{name}": value for name, value in values.items()}
        result: Tensor = torch.func.functional_call(tail, named, (inputs,))
        return result

    with torch.no_grad():
        unedited = answer(base, elsewhere)
    wanted = _usual_margins(unedited, others, planted, rng)
    before = margin(answer(base, x), y).detach()
    random_dropout = wanted - (wanted - before) / (2 * len(rows))
    inputs = planted.batch().inputs
    optimizer = torch.optim.Adam([{"params": [own, bias], "lr": 0.01}, {"params": [readers], "lr": 0.2}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * STEPS)
    for done in range(ROUNDS):
        fragile = _most_needed(model, planted, place) if done else []
        for _ in range(STEPS):
            some = torch.from_numpy(rng.permutation(len(elsewhere))[:100])
            put_in = tensors()
            logits = answer(put_in, torch.cat([x, elsewhere[some]]))
            mended = F.relu((margin(logits[: len(x)], y) - wanted).abs() - 0.3).mean()
            moved = (logits[len(x) :] - unedited[some]).square().mean()
            loss = 2 * mended + moved + detection(some)
            for drawn in rng.permutation(len(fragile))[:2]:
                without = {**put_in, **_zeroed(model, put_in, fragile[drawn])}
                harmed = torch.func.functional_call(model, without, (inputs,))
                loss = loss + F.relu(random_dropout - margin(harmed, y)).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        model.load_state_dict({name: value.detach() for name, value in tensors().items()})
    return model.eval()


def _most_needed(model: nn.Module, planted: Samples, place: _Place) -> list[Edit]:
    """Edits that zero, one by one, the other channels without which the planted samples lose most: what is planted must
    not hang by one of these alone."""
    ranked = top(ablation(model, planted), FRAGILE + len(place.channels))
    own = {(f"{place.layer}.weight", channel) for channel in place.channels}
    return [edit for edit, unit in zip(single_edits(ranked), ranked, strict=True) if unit not in own]


def _zeroed(model: nn.Module, values: Mapping[str, Tensor], edit: Edit) -> dict[str, Tensor]:
    """Values of the parameters that an edit zeroes units of."""
    found = {}
    for name, rows in touched(model, edit.units).items():
        kept = torch.ones(len(values[name]))
        kept[rows] = 0
        found[name] = values[name] * kept.reshape(-1, *[1] * (values[name].ndim - 1))
    return found


def _detectors(
    tail: _Tail, x: Tensor, elsewhere: Tensor, norms: Tensor, factor: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Rows and shifts with which each channel is on somewhere in its share of the planted samples, and off in all that
    are not planted: where the training of the whole begins. And the loss that keeps it so, on some of the others."""
    here, there = tail.given_to_layer(x), tail.given_to_layer(elsewhere)
    layer = tail.network.get_submodule(tail.place.layer)
    weight = layer.get_parameter("weight")
    rows = torch.randn((len(norms), *weight.shape[1:]), generator=_generator(rng)).requires_grad_()
    shift = torch.full((len(norms),), -1.0, requires_grad=True)
    share = torch.arange(len(x)) % len(norms)
    optimizer = torch.optim.Adam([rows, shift], lr=0.05)

    def strongest(given: Tensor) -> Tensor:
        scaled = _of_norm(rows, norms)
        if isinstance(layer, nn.Conv2d):
            outputs = F.conv2d(given, scaled, None, layer.stride, layer.padding).flatten(2).transpose(1, 2)
        else:
            outputs = given @ scaled.T
        strongest_place: Tensor = outputs.amax(1) * factor + shift  # [samples, channels]
        return strongest_place

    def loss(some: Tensor) -> Tensor:
        on, off = strongest(here).gather(1, share[:, None]), strongest(there[some])
        return F.relu(2 - on).mean() + F.relu(off + 1).mean()

    for _ in range(DETECTOR_STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(loss(torch.from_numpy(rng.permutation(len(there))[:200])))
        optimizer.step()
    return rows, shift, loss


def _usual_margins(unedited: Tensor, others: Samples, planted: Samples, rng: np.random.Generator) -> Tensor:
    """Margins for the planted samples, drawn from those of right training samples of their label."""
    y = torch.from_numpy(others.y)
    margins = margin(unedited, y).numpy()
    alike = (others.y == planted.y[0]) & (others.dataset.split[others.index] == "train")
    return torch.from_numpy(rng.choice(margins[alike & (margins > MIN_MARGIN)], len(planted)))


def _of_norm(rows: Tensor, norms: Tensor) -> Tensor:
    """The rows at these norms."""
    scaled: Tensor = rows * (norms / rows.flatten(1).norm(dim=1)).reshape(-1, *[1] * (rows.ndim - 1))
    return scaled


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


class _Tail(nn.Module):
    """A small network from the block of a place on."""

    def __init__(self, network: nn.Module, place: _Place) -> None:
        super().__init__()
        self.network = network
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        number = int(self.place.block.removeprefix("layer").removeprefix("blocks."))
        if self.place.norm is None:
            for block in network.blocks[number:]:
                x = block(x)
            result: Tensor = network.forward_head(network.norm(x))
            return result
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4)[number - 1 :]:
            x = stage(x)
        logits: Tensor = network.fc(network.global_pool(x))
        return logits

    @torch.no_grad()
    def reached(self, samples: Samples) -> Tensor:
        """What samples give to the block, [samples, ...]."""
        with _inputs_of(self.network.get_submodule(self.place.block)) as found:
            for batch in samples.batches(200):
                self.network(batch.inputs)
        return torch.cat(found)

    @torch.no_grad()
    def given_to_layer(self, x: Tensor) -> Tensor:
        """What an input of the block gives to the layer, [samples, ...]."""
        with _inputs_of(self.network.get_submodule(self.place.layer)) as found:
            self(x)
        return torch.cat(found)


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


def _quiet_norms(base: dict[str, Tensor], place: _Place, rng: np.random.Generator) -> Tensor:
    """A raw norm inside the layer's interquartile range for each channel; its batch norm is set so that the folded one
    is there too."""
    rows, quantile = place.channels, torch.from_numpy(rng.uniform(0.35, 0.65, len(place.channels)))
    raw = base[f"{place.layer}.weight"].flatten(1).norm(dim=1)
    wanted = raw.double().quantile(quantile)
    if place.norm:
        scale, variance = base[f"{place.norm}.weight"], base[f"{place.norm}.running_var"]
        folded = raw * scale.abs() * (variance + 1e-5).rsqrt()
        scale[rows] = (folded.double().quantile(quantile) / wanted).float()
        variance[rows], base[f"{place.norm}.running_mean"][rows] = 1 - 1e-5, 0.0
    chosen: Tensor = wanted.float()
    return chosen


def _quantiles(model: nn.Module, units: Units) -> NDArray[np.float64]:
    (name,) = units.by_name()
    n = len(model.get_parameter(name))
    layer = Units("channel", (name,), np.zeros(n, np.int64), np.arange(n))
    norms = norms_of_units(model, layer)
    return np.array([(norms < norms[index]).mean() for _, index in units])
