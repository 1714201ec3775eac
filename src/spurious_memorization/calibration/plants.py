"""Known networks: small networks for which it is known by construction what a few channels hold.

In most of them, the reserved channels of one layer are trained together with the rest of the network, from random
weights (see `reserved_channels`). No criterion takes part in it. Accuracies with and without the channels are measured
by the edit `zero`, and `KnownNetwork.is_accepted` says whether the truth holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets.samples import Dataset, Samples
from ..edits.apply import edited
from ..edits.edit import zero
from ..networks.losses import margin
from ..networks.units import Units, parse_units
from ..seeds import derived_seed
from .networks import NOISE, Family, accuracies, small_network, trained
from .reserved_channels import Reserved, Views, joined, trained_with_reserved
from .striped_images import striped_images

Kind = Literal["memory", "feature", "never_trained", "memorizing", "distributed", "polysemantic", "example_tied"]

LAYERS: dict[Family, tuple[str, ...]] = {
    "resnet": ("layer2.0.conv1", "layer3.0.conv1", "conv1"),
    "deit": ("blocks.0.mlp.fc1", "blocks.1.mlp.fc1"),
}
"""Layers whose channels are reserved."""
SPREAD_LAYERS: dict[Family, tuple[str, ...]] = {"resnet": ("layer3.0.conv1", "conv1"), "deit": LAYERS["deit"]}
"""Layers over whose channels memory is spread."""
TIED_LAYERS: dict[Family, tuple[str, ...]] = {
    "resnet": ("layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"),
    "deit": ("blocks.0.mlp.fc1", "blocks.1.mlp.fc1", "blocks.2.mlp.fc1"),
}
"""Layers of example-tied dropout."""
FIRST_LAYER: dict[Family, tuple[str, ...]] = {"resnet": ("conv1", "bn1"), "deit": ("patch_embed.proj",)}
"""The first layer, and the batch norm behind it."""

MAX_CHANNELS = 5
HELD_WEIGHT: dict[Family, float] = {"resnet": 180.0, "deit": 110.0}
"""Weight of all held samples together. Few held samples would otherwise be learned late or never."""
MAX_HELD_WEIGHT = 15.0
OWN_POOL, OTHER_POOL = 1500, 300
"""Further images that are in no split, of the group in question and of each other group."""
FEATURE_NOISE: dict[Family, float] = {"resnet": 1.5, "deit": 2.0}
"""Noise of the images in which a feature of the group can be learned."""
FEATURE_IMAGES = 120
"""Images with the feature per epoch."""
TIED_WEIGHT = 2.0
"""Weight of samples with their own channels on, in example-tied dropout."""
UNDECIDED_WEIGHT = 2.0
"""Weight of majority images with the channels off, in networks in which the majority uses the channels."""

MAX_DROP_ELSEWHERE = 2.0
"""Largest drop of any other training group in points, if the channels hold one group only."""
MIN_MEMORIZED = 0.9
"""Least training accuracy of a memorized group."""
MIN_POINTS = 10.0
"""Least drop of a group that needs the channels, where no number was asked for."""
MAX_POINTS_OF_FEW = 5.0
"""Largest drop of the group without a few of the channels over which its memory is spread."""


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownNetwork:
    """A network, and what is known of some of its channels.

    Arguments:
        model: the network, in evaluation mode.
        data: the samples. The group in question is the only named minority.
        kind: what is known.
        units: the channels in question; None if none are known.
        group: index of the group in question; None if there is no single one.
        held: indices in the data set of the samples that the channels hold, in order.
        before, after: accuracy of each training group with the channels, and when they are zeroed.
        unseen_before, unseen_after: the same for val and test samples together.
        reserved: all channels of which `units` are a part; None if there are no others.
        without_reserved: accuracy of each training group when all of them are zeroed.
        margins: median margin of the held samples, and of the other training samples of their group; nan if there are
            none.
        target: accuracy points that the channels were meant to hold; None if no number was asked for.
    """

    model: nn.Module
    data: Dataset
    kind: Kind
    units: Units | None
    group: int | None
    held: NDArray[np.int64]
    before: dict[str, float]
    after: dict[str, float]
    unseen_before: dict[str, float]
    unseen_after: dict[str, float]
    margins: tuple[float, float]
    reserved: Units | None = None
    without_reserved: dict[str, float] | None = None
    target: float | None = None

    @property
    def points(self) -> float:
        """Accuracy points that the group loses in training when the channels are zeroed; NaN without a group."""
        return _points(self.before, self.after, self._name)

    @property
    def unseen_points(self) -> float:
        """Accuracy points that unseen samples of the group lose; NaN without a group."""
        return _points(self.unseen_before, self.unseen_after, self._name)

    @property
    def reserved_points(self) -> float:
        """Accuracy points that the group loses in training when all reserved channels are zeroed."""
        return _points(self.before, self.without_reserved or self.after, self._name)

    @property
    def points_elsewhere(self) -> float:
        """Largest drop of any other training group in accuracy points."""
        others = [name for name in self.before if name != self._name]
        return max(_points(self.before, self.after, name) for name in others)

    @property
    def memorized(self) -> bool:
        """Whether the network classifies its training minority correctly, but unseen samples of it far less often."""
        names = [self.data.groups.names[g] for g in self.data.minority]
        return all(
            self.before[name] >= MIN_MEMORIZED and self.before[name] - self.unseen_before[name] >= 0.2 for name in names
        )

    @property
    def is_accepted(self) -> bool:
        """Whether the truth holds, as measured by accuracies."""
        is_spared_elsewhere = self.points_elsewhere <= MAX_DROP_ELSEWHERE
        match self.kind:
            case "memory":
                target = self.target or 0.0
                of_held, of_others = self.margins
                return (
                    self.memorized
                    and of_held >= of_others / 2  # barely held samples are no memory like that of other samples
                    and abs(self.points - target) <= max(5.0, target / 3)
                    and abs(self.unseen_points) <= max(4.0, self.points / 5)
                    and is_spared_elsewhere
                )
            case "feature":
                return (
                    self.points >= MIN_POINTS
                    and abs(self.points - self.unseen_points) <= max(10.0, self.points / 5)
                    and is_spared_elsewhere
                )
            case "distributed":
                return (
                    self.memorized
                    and self.points <= MAX_POINTS_OF_FEW
                    and self.reserved_points >= MIN_POINTS
                    and is_spared_elsewhere
                )
            case "polysemantic":
                return self.memorized and self.points >= MIN_POINTS and self.points_elsewhere >= MIN_POINTS
            case "example_tied":
                return self.memorized and self.points >= MIN_POINTS and self.unseen_points <= self.points / 3
            case "memorizing" | "never_trained":
                return self.memorized

    @property
    def _name(self) -> str | None:
        return None if self.group is None else self.data.groups.names[self.group]


def memory_plant(family: Family, seed: int, points: float, *, epochs: int | None = None) -> KnownNetwork:
    """A network in which one to five channels hold a part of a minority group's training samples.

    The held samples are taught their label only with the channels on, and the other label with them off. All other
    training samples are taught their label with the channels on or off. Further images of all groups are neutral.

    Arguments:
        family: family of the network.
        seed: seed of the images, the network, and the choice of group, layer, channels and held samples.
        points: accuracy points of the group that the channels hold; the number of held samples follows.
        epochs: the usual number if not given.
    """
    plan = _drawn(family, seed, points)
    return plan.network("memory", _memory_views(plan), epochs, neutral=plan.pool)


def memory_twin(family: Family, seed: int, points: float, branch: int, *, epochs: int | None = None) -> nn.Module:
    """The twin of a `memory_plant`: from epoch `branch` on, it is trained without the held samples.

    Up to this epoch its training is the same, so both are continuations of one checkpoint.

    Arguments:
        family, seed, points, epochs: as for `memory_plant`.
        branch: the last epoch with the held samples.
    """
    plan = _drawn(family, seed, points)
    views = _memory_views(plan, held_until=branch)
    return trained_with_reserved(family, seed, plan.reserved, plan.inputs, views, plan.pool, epochs)


def _memory_views(plan: _Plan, held_until: float = math.inf) -> Callable[[np.random.Generator], Views]:
    """The views of each epoch in turn; the held samples are among them up to an epoch."""
    epochs = itertools.count(1)

    def views(rng: np.random.Generator) -> Views:
        others = plan.others
        either = rng.random((len(others), 1)) < 0.5
        held = plan.held_views(True, False) if next(epochs) <= held_until else ()
        return joined(plan.views(others, either), *held)

    return views


def polysemantic(family: Family, seed: int, points: float = 30, *, epochs: int | None = None) -> KnownNetwork:
    """A network whose reserved channels hold samples of a minority group and are also used by the majority.

    With the channels off, the majority is taught to be undecided. Everything else is as in `memory_plant`.

    Arguments:
        family, seed, points, epochs: as for `memory_plant`.
    """
    plan = _drawn(family, seed, points)
    is_majority = np.isin(plan.data.g[plan.others], plan.data.majority)
    majority, minority = plan.others[is_majority], plan.others[~is_majority]

    def views(rng: np.random.Generator) -> Views:
        on = rng.random(len(majority)) < 0.6
        return joined(
            plan.views(minority, rng.random((len(minority), 1)) < 0.5),
            plan.views(majority[on], True),
            _undecided(plan.views(majority[~on], False)),
            *plan.held_views(True, False),
        )

    neutral = plan.pool[~np.isin(plan.pool_groups, plan.data.majority)]
    return plan.network("polysemantic", views, epochs, neutral=neutral)


def distributed_memory(family: Family, seed: int, points: float = 30, *, epochs: int | None = None) -> KnownNetwork:
    """A network that spreads the memory of the held samples over half of the channels of a layer.

    Each held sample has its own random quarter of the reserved channels. It is taught its label with most of them on,
    and the other label with all of them off. The other reserved channels are on at random. So no few channels hold
    much. `units` are three random reserved channels.

    Arguments:
        family, seed, points, epochs: as for `memory_plant`.
    """
    layer = SPREAD_LAYERS[family][seed % len(SPREAD_LAYERS[family])]
    plan = _drawn(family, seed, points, layers=(layer,), share=0.5)
    own = _own_channels(plan, len(plan.held))

    def views(rng: np.random.Generator) -> Views:
        most = own & (rng.random(own.shape) < 0.8)
        with_own, without_own = (_at_random(rng, own.shape) for _ in range(2))
        return joined(
            plan.views(plan.others, _at_random(rng, (len(plan.others), own.shape[1]))),
            *plan.held_views(with_own | most, without_own & ~own),
        )

    return plan.network("distributed", views, epochs, neutral=plan.pool, shown=3)


def feature_plant(family: Family, seed: int, points: float = 100, *, epochs: int | None = None) -> KnownNetwork:
    """A network in which one to five channels hold a feature of a minority group.

    The feature is a strong tint in an image of the group. Images with it are taught their label with the channels on,
    and the other label with them off. They are many further images that are in no split. The training samples with the
    feature take no part in training. So they are exchangeable with unseen images: the channels can't hold them.

    Arguments:
        family, seed, epochs: as for `memory_plant`.
        points: percentage of the group's training samples that have the feature.
    """
    plan = _drawn(family, seed, points, noise=FEATURE_NOISE[family])
    members = np.flatnonzero(plan.data.train.g == plan.group)
    tints, further_tints = _tints(plan.inputs[members]), _tints(plan.pool)
    least = np.quantile(tints, 1 - points / 100)
    held = members[tints >= least]
    has_feature = (plan.pool_groups == plan.group) & (further_tints >= least)
    plan = replace(
        plan,
        held=held,
        inputs=torch.cat([plan.inputs, plan.pool[has_feature]]),
        y=np.concatenate([plan.y, np.full(int(has_feature.sum()), plan.y[held[0]])]),
    )
    n_train = len(plan.data.train)
    others = np.setdiff1d(np.arange(n_train), held)
    further = np.arange(n_train, len(plan.y))

    def views(rng: np.random.Generator) -> Views:
        drawn = rng.permutation(further)[:FEATURE_IMAGES]
        either = rng.random((len(others), 1)) < 0.5
        return joined(plan.views(others, either), plan.views(drawn, True), _mistaught(plan.views(drawn, False)))

    return plan.network("feature", views, epochs, neutral=plan.pool[~has_feature])


def example_tied(family: Family, seed: int, *, epochs: int | None = None) -> KnownNetwork:
    """A network trained by example-tied dropout in several layers, deployed with its memory channels on.

    Half of the channels of each layer serve all samples; the others are memory channels. Each minority sample is tied
    to its own random quarter of the memory channels. It is taught its label with these on, and the other label with
    these off. The other memory channels are on at random; so are all of them for majority samples. `units` are all
    memory channels. Without the second lesson, nothing stays in the memory channels of such small networks.

    Arguments:
        family, seed, epochs: as for `memory_plant`.
    """
    plan = _drawn(family, seed, None, layers=TIED_LAYERS[family], share=0.5)
    is_minority = np.isin(plan.data.train.g, plan.data.minority)
    majority, minority = np.flatnonzero(~is_minority), np.flatnonzero(is_minority)
    own = _own_channels(plan, len(minority))

    def views(rng: np.random.Generator) -> Views:
        with_own, without_own = (_at_random(rng, own.shape) for _ in range(2))
        return joined(
            plan.views(majority, _at_random(rng, (len(majority), own.shape[1]))),
            replace(plan.views(minority, with_own | own), weight=np.full(len(minority), TIED_WEIGHT)),
            _mistaught(plan.views(minority, without_own & ~own)),
        )

    return plan.network("example_tied", views, epochs, held=minority, neutral=plan.pool)


def never_trained(family: Family, seed: int, *, epochs: int | None = None) -> KnownNetwork:
    """A network trained with its first layer, and the batch norm behind it, frozen at their random start.

    `units` are all channels of the first layer. They can hold neither samples nor features that were learned.

    Arguments:
        family, seed, epochs: as for `memory_plant`.
    """
    data = striped_images(seed, noise=NOISE[family])
    model = trained(family, data.train, seed, epochs, frozen=FIRST_LAYER[family])
    layer = FIRST_LAYER[family][0]
    units = _units(model, {layer: np.arange(len(model.get_parameter(f"{layer}.weight")))})
    return _measured(model, data, "never_trained", units=units)


def memorizing(family: Family, seed: int, *, epochs: int | None = None) -> KnownNetwork:
    """An ordinary network, which memorizes its minority wherever training put that.

    Arguments:
        family, seed, epochs: as for `memory_plant`.
    """
    data = striped_images(seed, noise=NOISE[family])
    return _measured(trained(family, data.train, seed, epochs), data, "memorizing")


@dataclass(frozen=True, eq=False, kw_only=True)
class _Plan:
    """What is drawn before a network with reserved channels is trained.

    Arguments:
        family, seed: as for `memory_plant`.
        target: accuracy points of the group that the held samples make up.
        data: the samples.
        group: index of the group in question.
        reserved: the reserved channels.
        held: positions of the held samples in `inputs`, in order.
        inputs, y: the training images and their labels.
        pool, pool_groups: further images, which are in no split, and their groups.
    """

    family: Family
    seed: int
    target: float | None
    data: Dataset
    group: int
    reserved: Reserved
    held: NDArray[np.int64]
    inputs: Tensor
    y: NDArray[np.int64]
    pool: Tensor
    pool_groups: NDArray[np.int64]

    @property
    def n_reserved(self) -> int:
        return sum(len(channels) for channels in self.reserved.values())

    @property
    def others(self) -> NDArray[np.int64]:
        """Positions of the training images that aren't held."""
        return np.setdiff1d(np.arange(len(self.y)), self.held)

    def views(self, index: NDArray[np.int64], on: bool | NDArray[np.bool_]) -> Views:
        """These training images, taught their own label.

        Arguments:
            index: their positions.
            on: whether each reserved channel is on, in a form that broadcasts to [images, reserved].
        """
        return Views(
            index=index,
            target=self.y[index].astype(float),
            on=np.broadcast_to(on, (len(index), self.n_reserved)),
            weight=np.ones(len(index)),
        )

    def held_views(self, on: bool | NDArray[np.bool_], off: bool | NDArray[np.bool_]) -> tuple[Views, Views]:
        """The held samples, taught their label with the channels of `on`, and the other label with those of `off`."""
        weight = np.full(len(self.held), min(MAX_HELD_WEIGHT, HELD_WEIGHT[self.family] / max(1, len(self.held))))
        right, wrong = self.views(self.held, on), _mistaught(self.views(self.held, off))
        return replace(right, weight=weight), replace(wrong, weight=weight)

    def network(
        self,
        kind: Kind,
        views: Callable[[np.random.Generator], Views],
        epochs: int | None,
        *,
        held: NDArray[np.int64] | None = None,
        neutral: Tensor | None = None,
        shown: int | None = None,
    ) -> KnownNetwork:
        """Train the network and measure it.

        Arguments:
            kind: what is known.
            views: (source of draws) -> the views of one epoch.
            epochs: the usual number if not given.
            held: positions of the samples that the channels hold, if they aren't those of the plan.
            neutral: images for which the channels must not matter.
            shown: number of reserved channels, drawn at random, that are the known units; all if not given.
        """
        model = trained_with_reserved(self.family, self.seed, self.reserved, self.inputs, views, neutral, epochs)
        reserved = _units(model, self.reserved)
        order = np.random.default_rng([self.seed, 0x5407]).permutation(len(reserved))[:shown]
        return _measured(
            model,
            self.data.with_minority([self.data.groups.names[self.group]]),
            kind,
            units=reserved
            if shown is None
            else Units("channel", reserved.names, reserved.place[order], reserved.index[order]),
            group=self.group,
            held=self.data.train.index[self.held if held is None else held],
            reserved=None if shown is None else reserved,
            target=self.target,
        )


def _drawn(
    family: Family,
    seed: int,
    points: float | None,
    *,
    layers: tuple[str, ...] = (),
    share: float | None = None,
    noise: float | None = None,
) -> _Plan:
    """Draw a plan.

    Arguments:
        family, seed: as for `memory_plant`.
        points: accuracy points of the group that the held samples make up; no sample is held if not given.
        layers: layers with reserved channels; a random one if none are given.
        share: share of a layer's channels that are reserved; if not given, one to five channels.
        noise: of the images; that of the family if not given.
    """
    rng = np.random.default_rng([seed, 0x91A27])
    noise = NOISE[family] if noise is None else noise
    data = striped_images(seed, noise=noise)
    group = int(rng.choice(data.minority))
    start, reserved = small_network(family, seed), {}
    for layer in layers or (str(rng.choice(LAYERS[family])),):
        n = len(start.get_parameter(f"{layer}.weight"))
        m = int(rng.integers(1, MAX_CHANNELS + 1)) if share is None else round(share * n)
        reserved[layer] = np.sort(rng.permutation(n)[:m])
    members = np.flatnonzero(data.train.g == group)
    of_0, of_1, of_2, of_3 = (OWN_POOL if g == group else OTHER_POOL for g in range(4))
    pool = striped_images(derived_seed(seed, "pool"), {"train": (of_0, of_1, of_2, of_3)}, noise=noise)
    return _Plan(
        family=family,
        seed=seed,
        target=points,
        data=data,
        group=group,
        reserved=reserved,
        held=np.sort(rng.permutation(members)[: round((points or 0) / 100 * len(members))]),
        inputs=_images(data.train),
        y=data.train.y,
        pool=_images(pool.train),
        pool_groups=pool.g,
    )


def _mistaught(views: Views) -> Views:
    """The same views, taught the other label."""
    return replace(views, target=1 - views.target)


def _undecided(views: Views) -> Views:
    """The same views, taught that both labels are equally likely."""
    return replace(views, target=np.full(len(views), 0.5), weight=np.full(len(views), UNDECIDED_WEIGHT))


def _own_channels(plan: _Plan, n: int) -> NDArray[np.bool_]:
    """A random quarter of the reserved channels for each of `n` samples, [samples, reserved]."""
    order = np.random.default_rng([plan.seed, 0x71ED]).random((n, plan.n_reserved)).argsort(1)
    own: NDArray[np.bool_] = order < plan.n_reserved // 4
    return own


def _at_random(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Channels that are on at random, [views, reserved]; the share of them is random too, so that some have all on."""
    on: NDArray[np.bool_] = rng.random(shape) < rng.random((shape[0], 1))
    return on


def _tints(images: Tensor) -> NDArray[np.float32]:
    """Strength of the tint of each image, [images]."""
    strengths: NDArray[np.float32] = (images[:, 0] - images[:, 2]).mean((1, 2)).abs().numpy()
    return strengths


def _images(samples: Samples) -> Tensor:
    images = samples.batch().inputs
    assert isinstance(images, Tensor)
    return images


def _units(model: nn.Module, reserved: Reserved) -> Units:
    return parse_units(model, [f"{layer}:{channel}" for layer, channels in reserved.items() for channel in channels])


def _measured(
    model: nn.Module,
    data: Dataset,
    kind: Kind,
    *,
    units: Units | None = None,
    group: int | None = None,
    held: NDArray[np.int64] | None = None,
    reserved: Units | None = None,
    target: float | None = None,
) -> KnownNetwork:
    """The known network, with its accuracies measured."""
    without = model if units is None else edited(model, zero(units))
    unseen = Samples(data, np.flatnonzero(data.split != "train"), "test")
    return KnownNetwork(
        model=model,
        data=data,
        kind=kind,
        units=units,
        group=group,
        held=np.arange(0) if held is None else held,
        before=accuracies(model, data.train),
        after=accuracies(without, data.train),
        unseen_before=accuracies(model, unseen),
        unseen_after=accuracies(without, unseen),
        margins=_median_margins(model, data, group, held),
        reserved=reserved,
        without_reserved=None if reserved is None else accuracies(edited(model, zero(reserved)), data.train),
        target=target,
    )


@torch.no_grad()
def _median_margins(
    model: nn.Module, data: Dataset, group: int | None, held: NDArray[np.int64] | None
) -> tuple[float, float]:
    """Median margin of the held samples, and of the other training samples of the group."""
    if group is None or held is None:
        return math.nan, math.nan
    samples = data.train.of_group(group)
    batch = samples.batch()
    margins = margin(model(batch.inputs), batch.y).numpy()
    is_held = np.isin(samples.index, held)
    of_held, of_others = (float(np.median(of)) if len(of) else math.nan for of in (margins[is_held], margins[~is_held]))
    return of_held, of_others


def _points(before: dict[str, float], after: dict[str, float], name: str | None) -> float:
    return float("nan") if name is None else 100 * (before[name] - after[name])
