"""The research code's answers on fine-tuning with pruning, met with the settings of the recipe `paper-pruning`."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from golden_networks import TOLERANCE, Golden, close
from torch import Tensor

import spurious_memorization as sm
from spurious_memorization.networks.units import short_name
from spurious_memorization.training.masks import parameter_masks
from spurious_memorization.training.objectives.pruned_contrast import PrunedContrastSettings, finetuning_loss


def paper(golden: Golden, **recorded) -> PrunedContrastSettings:
    settings = sm.TrainSettings(recipe="paper-pruning", objective={"name": "pruned-contrast", **recorded})
    return settings.objective.expanded(settings.recipe, golden.model)


def pruned(golden: Golden, settings: PrunedContrastSettings, batch=None) -> sm.Units:
    return sm.pruned_units(
        golden.model,
        settings.mask,
        settings.fraction,
        batch,
        select=sm.Selection(unit=settings.unit, layers=settings.layers, with_bias=settings.with_bias),
        loss="cross_entropy_on_probabilities",
        strictly_beyond=settings.strictly_beyond,
    )


def counted(units: sm.Units) -> dict[str, int]:
    return {short_name(name): len(index) for name, index in units.by_name().items()}


def held(golden: Golden, key: str):
    """What the network's file holds under a key; the test is skipped where there is nothing."""
    if key not in golden.expected:
        pytest.skip(f"no {key} for this network")
    assert golden.expected[key]
    return golden.expected[key]


def described(golden: Golden, batch: str) -> tuple[int, PrunedContrastSettings]:
    """Number of samples and settings of a step, read from its description."""
    about = batch if "first" in batch else golden.expected["finetune_step"]["batch"]
    order, percent = re.search(r"(smallest|largest) ([\d.]+) %", about).groups()
    settings = paper(
        golden,
        mask=f"magnitude-{order}",
        fraction=float(percent) / 100,
        temperature=float(re.search(r"temperature ([\d.]+)", about)[1]),
        cross_entropy_weight=float(re.search(r"weight ([\d.]+)", about)[1]),
    )
    return int(re.search(r"first (\d+)", about)[1]), settings


def test_golden_nt_xent(golden):
    cases = held(golden, "nt_xent")
    views = golden.tensors
    for temperature, expected in cases.items():
        second = views["f2"].clone().requires_grad_()
        loss = sm.nt_xent(views["f1"], second, float(temperature))
        assert float(loss.detach()) == close(expected["loss"])
        (slope,) = torch.autograd.grad(loss, second)
        assert float(slope.norm()) == close(expected["grad_norm_wrt_second"])


def test_golden_magnitude_masks(golden):
    cases = held(golden, "magnitude_pruning")
    for name, expected in cases.items():
        order, fraction = name.split("_")
        units = pruned(golden, paper(golden, mask=f"magnitude-{order}", fraction=float(fraction)))
        assert counted(units) == {layer: n for layer, n in expected.items() if n}, name


def test_golden_gradient_masks(golden):
    cases = held(golden, "activation_pruning")
    first = golden.data.train.part(range(int(re.search(r"first (\d+)", cases["batch"])[1]))).batch()
    for fraction, expected in cases.items():
        if fraction == "batch":
            continue
        units = pruned(golden, paper(golden, mask="gradient", fraction=float(fraction)), first)
        recorded = {
            layer: value if isinstance(value, int) else sorted(value) for layer, value in expected.items() if value
        }
        if units.kind == "channel":
            assert {short_name(name): sorted(index.tolist()) for name, index in units.by_name().items()} == recorded
        else:
            assert counted(units) == recorded


def step(golden: Golden, expected: dict, *, training: bool) -> tuple[float, dict[str, float]]:
    """The loss and gradient norms of one step as its stored description says."""
    n, settings = described(golden, expected["batch"])
    batch = golden.data.train.part(range(n)).batch()
    masks = parameter_masks(golden.model, pruned(golden, settings))
    golden.model.train(training)
    loss = finetuning_loss(golden.model, masks, batch.inputs, batch.y, settings, "cross_entropy_on_probabilities")
    names, parameters = zip(*golden.model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, parameters)
    golden.model.eval()
    return float(loss.detach()), {name: float(slope.norm()) for name, slope in zip(names, slopes, strict=True)}


def plain(norms: dict[str, float]) -> dict[str, float]:
    return {name.replace("fc.0.", "fc.").replace("head.0.", "head."): value for name, value in norms.items()}


def test_golden_finetuning_step(golden):
    expected = held(golden, "finetune_step")
    loss, norms = step(golden, expected, training=False)
    assert loss == close(expected["loss"])
    assert norms == pytest.approx(plain(expected["grad_norm"]), rel=TOLERANCE, abs=1e-10)


def test_golden_pruned_probabilities(golden):
    expected = held(golden, "finetune_step").get("pruned_probabilities")
    if expected is None:
        pytest.skip("no pruned_probabilities for this network")
    n, settings = described(golden, golden.expected["finetune_step"]["batch"])
    units = pruned(golden, settings)
    batch = golden.data.train.part(range(n)).batch()
    with torch.no_grad():
        probabilities = sm.edits.edited(golden.model, sm.edits.zero(units))(batch.inputs).softmax(1)
    torch.testing.assert_close(probabilities, torch.tensor(expected).flip(1), rtol=1e-4, atol=1e-6)


def test_golden_finetuning_step_in_training_mode(golden):
    expected = held(golden, "finetune_step_training_mode")
    before = {name: value.clone() for name, value in golden.model.state_dict().items()}
    try:
        loss, norms = step(golden, expected, training=True)
        after: dict[str, Tensor] = {name: value.clone() for name, value in golden.model.state_dict().items()}
    finally:
        golden.model.load_state_dict(before)
    assert loss == close(expected["loss"])
    for statistic in ("running_mean", "running_var"):
        for norm, values in expected.get(statistic, {}).items():
            np.testing.assert_allclose(after[f"{norm}.{statistic}"], values, rtol=1e-4, atol=1e-6)
    assert norms == pytest.approx(plain(expected["grad_norm"]), rel=TOLERANCE, abs=1e-10)
