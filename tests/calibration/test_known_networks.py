"""Known networks: what is said of their channels is true, as measured by the edit `zero`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import spurious_memorization as sm
from spurious_memorization.calibration.networks import FAMILIES, accuracies, small_network, trained
from spurious_memorization.calibration.plants import (
    FIRST_LAYER,
    LAYERS,
    TIED_LAYERS,
    KnownNetwork,
    distributed_memory,
    example_tied,
    feature_plant,
    memorizing,
    memory_plant,
    memory_twin,
    never_trained,
    polysemantic,
)
from spurious_memorization.calibration.reserved_channels import Views, joined, trained_with_reserved
from spurious_memorization.calibration.striped_images import striped_images
from spurious_memorization.training.objectives.example_tied_dropout import dropped

GENERATORS = {
    "memory": lambda family, seed, **options: memory_plant(family, seed, 30, **options),
    "feature": feature_plant,
    "distributed": distributed_memory,
    "polysemantic": polysemantic,
    "example_tied": example_tied,
    "never_trained": never_trained,
    "memorizing": memorizing,
}
EVERY = [(kind, family) for kind in GENERATORS for family in FAMILIES]
RESERVED = ("memory", "feature", "distributed", "polysemantic", "example_tied")


SEEDS = {**dict.fromkeys(EVERY, 0), ("polysemantic", "deit"): 3_080_000}
"""A seed per kind and family whose network is accepted."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order could give another network."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plant(one_thread: None) -> KnownNetwork:
    """A finished memory plant."""
    return memory_plant("deit", SEEDS["memory", "deit"], 30)


def test_a_memory_plant_holds_the_held_samples_and_nothing_else(plant: KnownNetwork):
    assert plant.is_accepted
    without = sm.edits.edited(plant.model, sm.edits.zero(plant.units))
    assert plant.before == accuracies(plant.model, plant.data.train)
    assert plant.after == accuracies(without, plant.data.train)
    name = plant.data.groups.names[plant.group]
    assert plant.points == pytest.approx(100 * (plant.before[name] - plant.after[name]))
    assert plant.data.minority == (plant.group,)
    assert (plant.data.g[plant.held] == plant.group).all()
    assert len(plant.held) == 18
    held = plant.data.train.at(plant.held)
    assert accuracies(plant.model, held)[name] - accuracies(without, held)[name] >= 0.8


def test_acceptance_follows_from_the_accuracies(plant: KnownNetwork):
    name = plant.data.groups.names[plant.group]
    other = next(group for group in plant.before if group != name)
    assert not replace(plant, after=plant.before).is_accepted
    assert not replace(plant, after={**plant.after, other: plant.before[other] - 0.03}).is_accepted
    assert not replace(plant, unseen_after={**plant.unseen_after, name: plant.unseen_before[name] - 0.2}).is_accepted
    assert not replace(plant, before={**plant.before, name: 0.5}).is_accepted
    assert not replace(plant, unseen_before={**plant.unseen_before, name: 0.9}).is_accepted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "family"),
    [pytest.param(*one, marks=pytest.mark.slow) if one[1] == "resnet" else one for one in EVERY],
)
def test_each_kind_says_what_it_is(kind: str, family):
    known = GENERATORS[kind](family, 3, epochs=0)
    assert known.kind == kind
    assert not known.model.training
    assert not known.is_accepted
    if kind == "memorizing":
        assert known.units is known.group is None
        assert np.isnan(known.points)
        return
    names = {"example_tied": TIED_LAYERS, "never_trained": FIRST_LAYER}.get(kind, LAYERS)[family]
    assert {name.removesuffix(".weight") for name in known.units.by_name()} <= {*names}
    if kind in RESERVED:
        assert known.data.minority == (known.group,)
        assert (known.data.split[known.held] == "train").all()
    if kind in ("memory", "feature", "polysemantic"):
        assert 1 <= len(known.units) <= 5
    if kind == "distributed":
        assert len(known.units) == 3
        assert set(known.units) < set(known.reserved)
        assert len(known.reserved) in (32, 64)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_network(family):
    one, two, other = (memory_plant(family, seed, 30, epochs=1) for seed in (5, 5, 6))
    assert str(one.units) == str(two.units)
    assert (one.held == two.held).all()
    states = [known.model.state_dict() for known in (one, two, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_channel_that_is_off_in_training_is_a_zeroed_channel(family):
    layer = LAYERS[family][0]
    reserved = {layer: np.array([2, 7])}
    seen = {}

    def views(rng: np.random.Generator) -> Views:
        n = np.arange(8)
        parts = [Views(index=n, target=n % 2.0, on=np.full((8, 2), on), weight=np.ones(8)) for on in (True, False)]
        seen["views"] = joined(*parts)
        return seen["views"]

    x = torch.randn(8, 3, 24, 24)
    model = trained_with_reserved(family, 0, reserved, x, views, epochs=1)
    assert len(seen["views"]) == 16
    units = sm.parse_units(model, f"{layer}:2,{layer}:7")
    kept = torch.ones(8, len(model.get_parameter(f"{layer}.weight")), dtype=torch.bool)
    kept[:, [2, 7]] = False
    with torch.no_grad():
        with dropped(model, (layer,), lambda *_: kept):
            off = model(x)
        assert torch.allclose(off, sm.edits.edited(model, sm.edits.zero(units))(x), atol=1e-6)
        assert not torch.allclose(off, model(x), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_keep_their_random_start(family):
    model, start = trained(family, striped_images(1).train, 1, 1, frozen=FIRST_LAYER[family]), small_network(family, 1)
    for name, value in start.named_parameters():
        is_first = name.startswith(FIRST_LAYER[family])
        assert torch.equal(value, model.get_parameter(name)) == is_first
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), EVERY)
def test_the_truth_holds_in_each_kind(kind: str, family):
    known = GENERATORS[kind](family, SEEDS[kind, family])
    assert known.is_accepted
    if known.units is not None:
        without = sm.edits.edited(known.model, sm.edits.zero(known.units))
        assert known.after == accuracies(without, known.data.train)


@pytest.mark.slow
def test_a_transplant_removes_planted_memory_and_nothing_else():
    """The channels of the plant get the weights of a twin that was trained without the held samples."""
    known = memory_plant("resnet", 3, 60)
    assert known.is_accepted
    twin = memory_twin("resnet", 3, 60, branch=2).state_dict()
    changed = sm.edits.edited(known.model, sm.edits.transplant(known.units, twin))
    train, name = known.data.train, known.data.groups.names[known.group]
    held, others = train.at(np.sort(known.held)), train.at(np.setdiff1d(train.index, known.held))
    assert accuracies(known.model, held)[name] >= 0.9
    assert accuracies(changed, held)[name] <= 0.1
    before, after = accuracies(known.model, others), accuracies(changed, others)
    assert all(abs(before[group] - after[group]) <= 0.02 for group in before)
    unseen = known.data.test
    before, after = accuracies(known.model, unseen), accuracies(changed, unseen)
    assert all(abs(before[group] - after[group]) <= 0.05 for group in before)


@pytest.mark.slow
def test_a_transplant_of_channels_that_were_never_trained_has_no_effect():
    known = never_trained("resnet", 0, epochs=1)
    twin = never_trained("resnet", 0, epochs=2).model.state_dict()
    changed = sm.edits.edited(known.model, sm.edits.transplant(known.units, twin))
    inputs = known.data.test.batch().inputs
    assert torch.equal(changed(inputs), known.model(inputs))


@pytest.mark.slow
def test_a_twin_is_the_same_network_until_the_branch():
    whole = memory_plant("deit", 5, 30, epochs=2).model.state_dict()
    same, other = (memory_twin("deit", 5, 30, branch, epochs=2).state_dict() for branch in (2, 1))
    assert all(torch.equal(whole[name], same[name]) for name in whole)
    assert any(not torch.equal(whole[name], other[name]) for name in whole)
